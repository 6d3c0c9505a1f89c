"""Where in which videos predictions begin, and what each is called."""

import collections
import contextlib
import os
import pathlib
from typing import NamedTuple

import numpy as np

from re2pix_jax.data import folders, stretches, timeline, windows
from re2pix_jax.errors import UserError
from re2pix_jax.progress import say_once

LEAST_EVERY = 0.1
"""Seconds between two moments at the least."""


class Moment(NamedTuple):
    """A time of a video, in seconds, and what to call the video.

    Attributes:
        path: the file, or folder of images.
        name: as much of the path as tells it from all others asked for.
        start: the time.
        searched: whether it was found in a folder, and not named.
    """

    path: pathlib.Path
    name: str
    start: float
    searched: bool

    @property
    def cost(self) -> int:
        """The command's status where it cannot be read."""
        return 1 if self.searched else 2


def moments(model, paths, start=0.0, every=0.0, folder_fps=windows.BASE_FPS) -> list[Moment]:
    """What is predicted: in every video below `paths`, which are files, folders of images and
    folders of such, the time `start` and, with `every`, those of a regular step after it, as long
    as a context fits and nothing interrupts it. What is named twice is there once.

    Raises:
        UserError: a folder without either; steps shorter than LEAST_EVERY.
    """
    if 0 < every < LEAST_EVERY:
        raise UserError(
            f'--every={every:g}: expected at least {LEAST_EVERY} seconds, or 0 for one prediction'
        )
    found = {}  # real path → (path, parts of it that are its name, whether it was searched for)
    for path in map(pathlib.Path, paths):
        searched = path.is_dir() and not folders.holds_images(path)
        below, notes = folders.videos(path) if searched else ([], [])
        if searched and not below:
            raise UserError('; '.join([f'{path}: the folder holds no images or videos', *notes]))
        for note in notes:
            say_once(note)
        for file in [path / name for name in below] or [path]:
            parts = len(file.parts) - len(path.parts) + 1
            found.setdefault(os.path.realpath(file), (file, parts, searched))
    asked = []
    for (path, _, searched), name in zip(found.values(), _names(found.values()), strict=True):
        times = [start]
        with contextlib.suppress(UserError):  # who reads it says so
            line = timeline.of(path, folder_fps)
            end = line.times[-1] - (model.context_frames - 1) / model.fps
            later = np.arange(start + every, end, every).tolist() if every else []
            later = [time for time in later if _unbroken(line, model, time)]
            # A first moment in a pause is no loss where others follow; alone, its error is told.
            times = [*([] if later and not _unbroken(line, model, start) else [start]), *later]
        asked += [Moment(path, name, time, searched) for time in times]
    return asked


def _names(found) -> list[str]:
    """The last parts of each path, as many as asked for or, of names that are alike as names of
    folders, as many as tell them apart.
    """
    paths = [pathlib.Path(os.path.abspath(path)).parts[1:] for path, _, _ in found]
    counts = [parts for _, parts, _ in found]
    for _ in range(max(map(len, paths))):
        names = ['/'.join(parts[-n:]) for parts, n in zip(paths, counts, strict=True)]
        times = collections.Counter(map(_flat, names))
        if max(times.values()) == 1:
            return names
        counts = [n + (times[_flat(name)] > 1) for n, name in zip(counts, names, strict=True)]
    return [f'{name}_{number}' for number, name in enumerate(names, 1)]  # alike but for slashes


def _flat(name):
    return name.replace('/', '_')


def _unbroken(line, model, start) -> bool:
    with contextlib.suppress(UserError):
        stretches.frames_from(line, model.fps, start, model.context_frames)
        return True
    return False
