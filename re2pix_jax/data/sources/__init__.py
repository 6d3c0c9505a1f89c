"""Sources of clips: the procedural world, published datasets, folders of videos, prepared records,
encoded clips; one file each.

A source is anything that can say how many clips it has and give some frames of one of them
(`Source`). `writing` turns any source into ArrayRecord files in the layout of tensorflow-datasets,
`records` reads them.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.errors import UserError

CLIP_SECONDS = 30 / 17  # a Cityscapes snippet: 30 frames at 17 Hz

PUBLISHED = {'cityscapes': 'Cityscapes', 'covla': 'CoVLA', 'kitti': 'Kitti', 'nuscenes': 'NuScenes'}
"""Name of a published dataset, and of its module here → its class, (folder, split) → `Source`."""


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


def open_source(
    name: str,
    split: str,
    size: tuple[int, int] | None,
    clips: int = 0,
    folder_fps: float = BASE_FPS,
) -> Source:
    """The source that a config names.

    Args:
        name: 'world', 'records:FOLDER' (prepared clips), 'videos:FOLDER' (video files and image
            folders), 'table:FILE' (segments of these), 'encoded:FOLDER' (components and latents
            instead of frames), or one of `PUBLISHED` with its raw folder, as 'cityscapes:FOLDER'
            (slow to train on).
        split: 'train', 'validation' or 'test'.
        size: (height, width) at which the world is rendered and videos are fitted; records come as
            they were prepared.
        clips: how many clips of the world; 0: its default for the split. Other sources give all
            they have.
        folder_fps: frames a second of image folders among videos.

    Raises:
        UserError: an unknown kind of source, a folder that is missing or holds no clips, or no such
            split.
    """
    kind, _, path = name.partition(':')
    if kind == 'world' and not path:
        from re2pix_jax.data.sources import world

        return world.World(split, clips=clips, size=size)
    if kind == 'records' and path:
        from re2pix_jax.data import records

        return records.Records(path, split)
    if kind == 'videos' and path:
        from re2pix_jax.data.sources import videos

        return videos.Videos(path, split, size=size, folder_fps=folder_fps, keep_unreadable=True)
    if kind == 'table' and path:
        from re2pix_jax.data.sources import table

        return table.Table(path, split, size=size, folder_fps=folder_fps, keep_unreadable=True)
    if kind == 'encoded' and path:
        from re2pix_jax.data.sources import encoded

        return encoded.Encoded(path, split, size)
    if kind in PUBLISHED and path:
        return published(kind)(path, split)
    raise UserError(
        f'source {name!r}: expected "world", or records, videos, table, encoded, '
        f'{", ".join(PUBLISHED)} and a folder, such as "records:FOLDER"'
    )


def published(name: str) -> Callable[..., Source]:
    """The class of one of `PUBLISHED`."""
    return getattr(importlib.import_module(f're2pix_jax.data.sources.{name}'), PUBLISHED[name])
