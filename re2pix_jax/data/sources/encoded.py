"""Clips as the frozen networks see them: components and latents of every frame, computed once
instead of at every step.

The files are those of `records`; a record holds a frame's `components` and `latents` as raw
little-endian float16. The manifest names the networks that made them by the sha256 of their
bundles, and who trains on them compares (`Task.check_data`): features of another encoder are never
used in silence. Frames are encoded whole, hence without crop or flip.
"""

import numpy as np

from re2pix_jax.data import records, video, writing
from re2pix_jax.errors import UserError

THREADS = 4  # [O] that read the next clips while one is encoded
BLOCK = 15  # [O] frames encoded at once; two make a snippet of Cityscapes
STORED = np.dtype('<f2')  # [O] half the bytes; components and latents are of order one


class Encoded(records.Prepared):
    """The clips of one split of a folder that `write` made.

    Raises:
        UserError: no such folder or split, or one that holds frames.
    """

    def __init__(self, path, split: str, size):
        super().__init__(path, split)
        if 'parts' not in self.manifest:
            raise UserError(f'{path}: holds frames; expected as source: "records:{path}"')
        sizes = {tuple(clip['size']) for clip in self.clips}
        if sizes != {tuple(size)}:
            raise UserError(
                f'{path}: encoded from frames of '
                f'{" and ".join(map(str, sorted(map(list, sizes))))} pixels, data.size is '
                f'{list(size)}; encode the clips at that size'
            )
        self.parts = self.manifest['parts']

    def blank(self, frames: int) -> dict[str, np.ndarray]:
        """What `read` gives of so many frames, zeros."""
        return {
            name: np.zeros((frames, *shape), STORED)
            for name, shape in self.manifest['shapes'].items()
        }

    def read(self, index, indices, labels=True):
        """{'components' float16 [T, h, w, P], 'latents' float16 [T, H/f, W/f, c]}, the second where
        a VAE was given.
        """
        try:
            rows = self.rows(index, indices)
            return {
                name: np.stack([np.frombuffer(row[name], STORED).reshape(shape) for row in rows])
                for name, shape in self.manifest['shapes'].items()
            }
        except Exception as error:  # damaged data shows in many ways, see Records
            raise self.unreadable(index, error) from error


def write(
    out,
    splits: dict,
    encode,
    size,
    shapes: dict,
    parts: dict,
    source: str = '',
    settings: dict | None = None,
    shard: tuple[int, int] | None = None,
) -> dict:
    """Encodes every frame of each split's clips into the folder `out` (`writing.write`).

    Args:
        splits: name → `Source`.
        encode: uint8 frames [BLOCK, H, W, 3] → {name: float [BLOCK, *shapes[name]]}, each frame by
            itself.
        size: (height, width) that frames are fitted to before.
        shapes: name → shape of one frame's entry.
        parts: name of a frozen network → sha256 of its bundle.
        source: what the manifest says about where the clips come from.
        settings, shard: as `writing.write` takes them.

    Raises:
        UserError: `out` exists already, a network that overflows float16, or what a source raises.
    """

    def rows_of(clips, index):
        count = clips.num_frames(index)
        rows = [{} for _ in range(count)]
        # One shape whatever the clip's length: compiled once, and a long drive takes no more memory
        # than a short clip.
        for first in range(0, count, BLOCK):
            block = rows[first : first + BLOCK]
            frames = video.fit(
                clips.read(index, range(first, first + len(block)), labels=False)['frames'], size
            )
            frames = np.concatenate([frames, frames[-1:].repeat(BLOCK - len(block), 0)])
            for name, values in encode(frames).items():
                with np.errstate(over='ignore'):  # said below, with a name
                    stored = np.asarray(values).astype(STORED)[: len(block)]
                if not np.isfinite(stored).all():
                    raise UserError(
                        f'{clips.name(index)}: {name} beyond the range of float16, which ends at '
                        '65504'
                    )
                for row, frame in zip(block, stored, strict=True):
                    row[name] = frame.tobytes()
        return rows, {'size': list(size)}

    about = {
        'source': source,
        'parts': parts,
        'shapes': {name: list(shape) for name, shape in shapes.items()},
    }
    return writing.write(
        out,
        splits,
        rows_of,
        list(shapes),
        about,
        settings={'size': list(size), **(settings or {})},
        threads=THREADS,
        strict=True,  # here a clip that fails is no accident of the raw data
        shard=shard,
    )
