"""A folder of driving videos (mp4 and the like) or of image folders as a source: no labels, no
depth.

Splits. A subfolder named train, validation or test is that split; what lies outside of these is
train. Without a validation subfolder the files that a list names are validation; without such a
list about a tenth of them, chosen by a hash of their names (so that adding files moves no other).
The rest is train.

A recording is cut where it pauses, and into clips of 30/17 s, as long as a Cityscapes snippet; what
remains at the end lengthens the clips a little. Every frame that a player shows is in one clip. A
clip whose frames come at several rates is read at the fastest of them, the frame nearest to each
time.
"""

import collections
import hashlib
import os
import pathlib
import sys
import threading
from typing import NamedTuple

import numpy as np

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import folders, timeline, video, windows
from re2pix_jax.data.sources import CLIP_SECONDS
from re2pix_jax.errors import UserError

SPLITS = ('train', 'validation', 'test')


class Piece(NamedTuple):
    """A clip: `shown` frames of a file from its frame `first` on, read as `frames` at `fps`."""

    path: str
    name: str
    first: int
    shown: int
    frames: int
    fps: float
    picks: np.ndarray | None = None  # which of the shown ones these are; None: they themselves
    problem: str | None = None


class Videos:
    """Clips cut from the videos below a folder. A `Source`.

    Reading a few frames of a video means decoding all before them back to a key frame, so decoded
    clips are kept (as uint8 at `size`) in a cache, oldest use out first.

    Args:
        path: the folder.
        split: one of `SPLITS`.
        size: (height, width) that frames are fitted to; None: their own.
        cache_bytes: of the cache.
        validation: file with the names of the validation videos, one a line.
        keep_unreadable: a file that cannot be opened is a clip with a `problem` instead of an
            error.
        cover: (height, width) that frames are scaled down to cover where `size` is None.
        folder_fps: frames a second of the folders of images.

    Raises:
        UserError: the folder is missing, holds no videos, has none for the split, or a file in it
            can't be read.
    """

    def __init__(
        self,
        path,
        split: str = 'train',
        size=(64, 128),
        cache_bytes: int = 512 << 20,
        validation=None,
        keep_unreadable: bool = False,
        cover=None,
        folder_fps: float = windows.BASE_FPS,
    ):
        if split not in SPLITS:
            raise UserError(f'split {split!r}: a folder of videos has {", ".join(SPLITS)}')
        self.size, self.cover = tuple(size) if size else None, tuple(cover) if cover else None
        self.cache_bytes, self.folder_fps = cache_bytes, folder_fps
        self.pieces = [
            piece
            for file, name in _files_of(pathlib.Path(path), split, validation)
            for piece in _cut(file, name, folder_fps, keep_unreadable)
        ]
        self._cache, self._lock = collections.OrderedDict(), threading.Lock()

    def __getstate__(self):  # a worker process starts with an empty cache
        return {
            name: value for name, value in self.__dict__.items() if name not in ('_cache', '_lock')
        }

    def __setstate__(self, state):
        self.__dict__.update(state, _cache=collections.OrderedDict(), _lock=threading.Lock())

    def __len__(self):
        return len(self.pieces)

    def num_frames(self, index):
        return self.pieces[index].frames

    def fps(self, index):
        return self.pieces[index].fps

    def name(self, index):
        return self.pieces[index].name

    def origin(self, index):
        return self.pieces[index].name.partition('#')[0]

    def problem(self, index):
        """Why the clip cannot be read, None where it seems to be fine."""
        return self.pieces[index].problem

    def read(self, index, indices, labels=True):
        picks, indices = self.pieces[index].picks, np.asarray(indices)
        frames = self._decoded(int(index))[indices if picks is None else picks[indices]]
        if not labels:
            return {'frames': frames}
        shape = frames.shape[:3]
        return {
            'frames': frames,
            'labels': np.full(shape, IGNORE, np.uint8),
            'depth': np.zeros(shape, np.float32),
        }

    def _decoded(self, index):
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        piece = self.pieces[index]
        frames = video.take(
            piece.path,
            range(piece.first, piece.first + piece.shown),
            size=self.size,
            cover=self.cover,
            folder_fps=self.folder_fps,
        )
        with self._lock:
            self._cache[index] = frames
            while sum(kept.nbytes for kept in self._cache.values()) > self.cache_bytes:
                self._cache.popitem(last=False)
        return frames


def _files_of(folder, split, validation=None):
    """Sorted (path, name) of the videos and image folders of a split."""
    if not folder.is_dir():
        raise UserError(
            f'{folder}: no such folder, expected a folder of videos (mp4) or of image folders'
        )
    names, notes = folders.videos(folder)
    for note in notes:
        print(note, file=sys.stderr, flush=True)
    if not names:
        raise UserError(
            f'{folder}: no videos ({", ".join(folders.VIDEO_ENDINGS)}) and no folders of images in '
            'it'
        )
    told = {
        name: name.split('/')[0] if '/' in name and name.split('/')[0] in SPLITS else 'train'
        for name in names
    }
    _check_names(folder, names, told)
    if validation:
        told.update((name, 'validation') for name in _listed(pathlib.Path(validation), names))
    elif 'validation' not in told.values():
        train = [name for name in names if told[name] == 'train']
        tenth = [name for name in train if _hash(name) < 0.1] or sorted(train, key=_hash)[:1]
        if len(train) > 1:
            told.update((name, 'validation') for name in tenth)
    chosen = [(folder / name, name) for name in names if told[name] == split]
    if not chosen:
        raise UserError(f'{folder}: no videos for split {split!r}; put some into {folder / split}')
    return chosen


def _check_names(folder, names, told):
    """Refuses a file that lies in the folders of two splits, or that links lead to from two: it
    would be trained on and judged by.
    """
    known, real = {}, {}
    for name in names:
        inside = name.partition('/')[2] if name.split('/')[0] in SPLITS else name
        if inside in known and told[known[inside]] != told[name]:
            raise UserError(
                f'{folder}: {known[inside]} and {name} have the same name in two splits; rename '
                'one, or remove one if they are the same drive'
            )
        known[inside] = name
        one = real.setdefault(os.path.realpath(folder / name), name)
        if told[one] != told[name]:
            raise UserError(
                f'{folder}: {one} and {name} are the same file, in two splits; remove one of the '
                'links'
            )


def _listed(file, names):
    """The names in a list of validation videos, checked."""
    if not file.is_file():
        raise UserError(
            f'{file}: no such file; expected a list of validation videos, one name a line'
        )
    listed = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if unknown := sorted(set(listed) - set(names)):
        raise UserError(
            f'{file}: {unknown[0]} is not among the videos; expected paths within the folder, such '
            f'as {names[0]}'
        )
    return listed


def _hash(name):
    """A number in [0, 1) that depends on nothing but the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big') / 2**48


def _cut(path, name, folder_fps, keep_unreadable=False):
    """The clips of a file: disjoint, and together all that it shows."""
    try:
        line = timeline.of(path, folder_fps)
    except UserError as error:
        if not keep_unreadable:
            raise
        return [Piece(str(path), f'{name}#0', 0, 0, 0, 0.0, None, str(error))]
    timeline.tell(path, line)
    pieces = []
    for begin, end in zip((0, *line.cuts), (*line.cuts, len(line.times))):
        times = line.times[begin:end]
        seconds = times[-1] - times[0] + 1 / line.rate
        count = min(end - begin, max(1, int(seconds / CLIP_SECONDS + 1e-3)))
        # By time: where frames come more slowly a clip has fewer.
        wanted = times[0] + np.arange(1, count) * (seconds / count) - 0.5 / line.rate
        edges = begin + np.unique([0, *np.searchsorted(times, wanted), end - begin])
        for first, last in zip(edges.tolist(), edges[1:].tolist()):
            fps, picks = timeline.even(line.times[first:last], line.rate)
            frames = last - first if picks is None else len(picks)
            pieces.append(
                Piece(str(path), f'{name}#{first}', first, last - first, frames, fps, picks)
            )
    return pieces
