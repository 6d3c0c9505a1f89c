"""Clips as the frozen networks see them: components and latents of every frame, computed once instead of at every step.

The files are those of `records`; a record holds, for each frame, `components` and `latents` as raw little-endian float16. The
manifest names the networks that made them by the sha256 of their bundles, and who trains on them compares (`Task.check_data`):
features of another encoder are never used in silence. Frames are encoded whole, hence without crop or flip.
"""

import contextlib
import pathlib

import numpy as np

from re2pix_jax.clips.datasets import records
from re2pix_jax.errors import UserError

STORED = np.dtype('<f2')  # [O] half the bytes; components and latents are of order one


class Encoded:
    """The clips of one split of a folder that `write` made.

    Raises:
        UserError: no such folder or split, or one that holds frames.
    """

    def __init__(self, path, split: str, size):
        self.path = pathlib.Path(path)
        self.manifest = records.read_manifest(self.path)
        if 'parts' not in self.manifest:
            raise UserError(f'{path}: holds frames; expected as source: "records:{path}"')
        if split not in self.manifest['splits']:
            raise UserError(f'{path}: no split {split!r}, there is {", ".join(self.manifest["splits"])}')
        if tuple(size) != tuple(self.manifest['size']):
            raise UserError(f'{path}: encoded from frames of {self.manifest["size"]} pixels, data.size is {list(size)}; '
                            'encode the clips at that size')
        self.parts = self.manifest['parts']
        self.clips = self.manifest['splits'][split]
        self._reader = records.open_reader(self.path, split)

    def __len__(self):
        return self.clips['count']

    def num_frames(self, index):
        return self.clips['frames'][index]

    def fps(self, index):
        return self.clips['fps'][index]

    def name(self, index):
        return self.clips['names'][index]

    def read(self, index, indices, labels=True):
        """{'components' float16 [T, h, w, P], 'latents' float16 [T, H/f, W/f, c]}, the second where a VAE was given."""
        try:
            record = self._reader[int(index)]
            return {name: np.stack([np.frombuffer(record[name][k], STORED).reshape(shape) for k in indices])
                    for name, shape in self.manifest['shapes'].items()}
        except Exception as error:  # damaged data shows in many ways, see Records
            raise UserError(f'{self.path}: record {index} ({self.name(index)}) can\'t be read ({records.reason(error)}); '
                            'prepare the folder again') from error


def write(out, splits: dict, encode, shapes: dict, parts: dict, source: str = '') -> None:
    """Encodes every frame of each split's clips into the folder `out`, whole or not at all (`records.write_folder`).

    Args:
        splits: name → `Source`.
        encode: uint8 frames [T, H, W, 3] → {name: float [T, *shapes[name]]}.
        shapes: name → shape of one frame's entry.
        parts: name of a frozen network → sha256 of its bundle.
        source: what the manifest says about where the clips come from.

    Raises:
        UserError: `out` exists already, a network that overflows float16, or what a source raises.
        OSError: the disk is full.
    """
    def clips(split):
        clips = splits[split]
        for index in range(len(clips)):
            frames = clips.read(index, range(clips.num_frames(index)), labels=False)['frames']
            record = {'name': clips.name(index).encode()}
            for name, values in encode(frames).items():
                with np.errstate(over='ignore'):  # said below, with a name
                    stored = np.asarray(values).astype(STORED)
                if not np.isfinite(stored).all():
                    raise UserError(f'{clips.name(index)}: {name} beyond the range of float16, which ends at 65504')
                record[name] = [frame.tobytes() for frame in stored]
            yield record, float(clips.fps(index)), [int(side) for side in frames.shape[1:3]]

    about = {'source': source, 'parts': parts, 'shapes': {name: list(shape) for name, shape in shapes.items()}}
    records.write_folder(out, splits, contextlib.nullcontext(clips), list(shapes), about)
