"""What the published datasets share: clips that are lists of image files below one folder.

A dataset's class says where its files lie (`_list`). Opening only lists them; images are opened by
`read` alone.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import folders, records, shown
from re2pix_jax.data.sources import planes
from re2pix_jax.errors import UserError

AGAIN = 'take it from the dataset again'


class Clip(NamedTuple):
    """A clip's files, as paths below the raw folder with '/' between their parts."""

    name: str
    files: list[str]  # one for each native frame
    fps: float
    target: int | None  # the native frame that the evaluation protocol predicts, where there is one
    labels: dict[int, str] = {}  # native frame → image of labels
    depth: dict[int, str] = {}  # native frame → image of counts, of 8 or 16 bits
    camera: str | None = None  # what it takes to make metres of `depth`, where it takes a file
    problem: str | None = None


class ImageClips:
    """The clips of one split of a dataset as published. A `Source`.

    Raises:
        UserError: no such folder, another layout, no such split, or no clips of it.
    """

    NAME: str
    EXPECTED: str  # a file that every copy has, by which the layout is told
    SPLITS: tuple[str, ...]

    def __init__(self, path, split: str):
        self.path = pathlib.Path(path)
        if split not in self.SPLITS:
            raise UserError(f'split {split!r}: {self.NAME} has {", ".join(self.SPLITS)}')
        if not self.path.is_dir():
            raise UserError(
                f'{path}: no such folder, expected {self.NAME} as published, with {self.EXPECTED} '
                'in it'
            )
        self.clips = list(self._list(split))
        if not self.clips:
            others = [other for other in self.SPLITS if other != split and any(self._list(other))]
            if others:
                raise UserError(
                    f'{path}: no clips of split {split!r}, there are some of {", ".join(others)}'
                )
            raise UserError(
                f'{path}: not {self.NAME} as published, expected {self.EXPECTED} in it; give the '
                'folder that holds it'
            )

    def _list(self, split: str) -> Iterable[Clip]:
        """The clips of a split, none where their folder is missing."""
        raise NotImplementedError

    def __len__(self):
        return len(self.clips)

    def num_frames(self, index):
        return len(self._clip(index).files)

    def fps(self, index):
        return self._clip(index).fps

    def name(self, index):
        return self._clip(index).name

    def origin(self, index):
        """Where the clip comes from: its first file, a path below the raw folder."""
        return (self._clip(index).files or ['.'])[0]

    def size_of(self, index):
        """As `Source` says: that of the first frame; None where it cannot be opened."""
        try:
            with Image.open(self.path / self.origin(index)) as image:
                return image.size[::-1]
        except Exception:  # noqa: BLE001 (who reads it says so)
            return None

    def target(self, index):
        """The native frame that the evaluation protocol predicts, also where the clip ends before
        it.
        """
        return self._clip(index).target

    def problem(self, index):
        """Why the clip can't be used, as far as listing files tells; None if it can."""
        return self._clip(index).problem

    def depth_coding(self, index):
        """How 16-bit counts mean metres or classes, see `records.depth_of`."""
        return records.CENTIMETRES

    def depth_kind(self, index):
        """As `Source` says; a dataset without depth has none."""
        return None

    def read(self, index, indices, labels=True):
        """As `Source.read`, at the size of the files.

        Raises:
            UserError: a file that is missing, damaged or of another size than the first frame.
        """
        clip, indices = self._clip(index), [int(k) for k in indices]
        read = {'frames': self._frames(clip, indices)}
        if labels:
            shape = read['frames'].shape[1:3]
            read['labels'] = np.stack(
                [
                    self._labels(clip.labels[k], shape)
                    if k in clip.labels
                    else np.full(shape, IGNORE, np.uint8)
                    for k in indices
                ]
            )
            counts = np.stack(
                [
                    self._plane(clip.depth[k], shape, np.uint16)
                    if k in clip.depth
                    else np.zeros(shape, np.uint16)
                    for k in indices
                ]
            )
            read['depth'] = records.depth_of(counts, self.depth_coding(index))
        return read

    def _clip(self, index) -> Clip:
        return self.clips[index]

    def _frames(self, clip, indices) -> np.ndarray:
        """uint8 [T, H, W, 3]"""
        frames = []
        for file in (clip.files[k] for k in indices):
            frames.append(self._shown(file))
            if frames[0].shape != frames[-1].shape:
                raise self._wrong_size(file, frames[-1], frames[0].shape[:2])
        return np.stack(frames)

    def _labels(self, file, shape) -> np.ndarray:
        """uint8 [H, W], train ids."""
        return self._plane(file, shape, np.uint8)

    def _plane(self, file, shape, dtype) -> np.ndarray:
        """Integers [H, W], the values of an image of one channel."""
        what = f'as {self.NAME} has them; {AGAIN}'
        values = planes.read(self.path / file, dtype, what, AGAIN)
        if values.shape != shape:
            raise self._wrong_size(file, values, shape)
        return values

    def _wrong_size(self, file, values, shape):
        return UserError(
            f'{self.path / file}: {list(values.shape)} pixels and channels, its clip has frames of '
            f'{list(shape)} pixels; take the file from the dataset again'
        )

    def _shown(self, file) -> np.ndarray:
        return shown.image(self.path / file, again=AGAIN)


def names(folder) -> list[str]:
    """Sorted names of what lies in a folder, without what is hidden or a Mac's archive adds; none
    where there is no such folder.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not folders.hidden(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
