"""What a source of clips is, whatever it reads."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

CLIP_SECONDS = 30 / 17  # a Cityscapes snippet: 30 frames at 17 Hz


@runtime_checkable
class Source(Protocol):
    """Clips of one split. Picklable, for it travels to worker processes.

    A source may also have, for a clip: `target(index)`, the native frame that its evaluation
    protocol predicts, which the clip may be too short for, or None; `origin(index)`, the file it
    comes from; `problem(index)`, why it cannot be used, or None; `size_of(index)`, the (height,
    width) that its frames have before anybody enlarges them; `depth_coding(index)`, how its
    depth is stored in 16 bits (`records.depth_of`); and `depth_kind(index)`, told without opening
    the clip: 'metres', 'classes' (ordinal ones, of a published teacher; 0 is unknown too) or None
    where no depth is known.
    """

    def __len__(self) -> int:
        """Number of clips."""

    def num_frames(self, index: int) -> int:
        """Native frames of a clip."""

    def fps(self, index: int) -> float:
        """Native frame rate of a clip, Hz."""

    def name(self, index: int) -> str:
        """What to call the clip in messages and reports."""

    def read(
        self, index: int, indices: Sequence[int], labels: bool = True
    ) -> dict[str, np.ndarray]:
        """Native frames `indices` of a clip, in that order.

        Returns:
            'frames' uint8 [T, H, W, 3]; with `labels` also 'labels' uint8 [T, H, W], Cityscapes
            train ids, 255 where unknown, and 'depth' float32 [T, H, W], metres or classes
            (`depth_kind`), 0 where unknown.
        """
