"""A folder of driving videos (mp4 and the like) or of image folders as a source: no labels, no
depth.

Splits. A subfolder named train, validation or test is that split; what lies outside of these is
train; beside such a subfolder one called val or the like is refused. Without a validation subfolder
the files that a list names are validation; without such a list about a tenth of the footage: of
every file each tenth minute, or each tenth part of a file of less than ten, from a place on that a
hash of its name gives (so that adding files moves no other). The rest is train.

A recording is cut where it pauses, and into clips of 30/17 s, as long as a Cityscapes snippet; what
remains at the end lengthens the clips a little. Every frame that a player shows is in one clip. A
clip whose frames come at several rates is read at the fastest of them, the frame nearest to each
time.
"""

import collections
import hashlib
import math
import os
import pathlib
import threading
from typing import NamedTuple

import numpy as np

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import folders, records, timeline, video, windows
from re2pix_jax.data.sources.source import CLIP_SECONDS
from re2pix_jax.errors import UserError
from re2pix_jax.progress import say_once

SPLITS = ('train', 'validation', 'test')
ALIKE = ('val', 'valid', 'validation', 'eval', 'evaluation', 'dev', 'test', 'testing')
"""Names, in any case, by which others call what is not trained on."""

TENTH = 10
HELD_OUT = 60.0
"""Seconds of a block that is held out as a whole, so that most of it is far from what is trained
on. [O]"""


class Piece(NamedTuple):
    """A clip: `shown` frames of a file from its frame `first` on, read as `frames` at `fps`."""

    path: str
    name: str
    first: int
    shown: int
    frames: int
    fps: float
    size: tuple[int, int]  # as shown
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
        self._begin(size, cover, cache_bytes, folder_fps)
        told, by_minutes = _told(pathlib.Path(path), validation)
        wanted = 'train' if by_minutes and split == 'validation' else split
        files = {
            name: cut(pathlib.Path(path, name), name, folder_fps, keep_unreadable)
            for name in told
            if told[name] == wanted
        }
        self.pieces = [piece for pieces in files.values() for piece in pieces]
        if by_minutes and wanted == 'train':
            held = _held_out(files)
            self.pieces = [p for p in self.pieces if (p.name in held) == (split == 'validation')]
        if not self.pieces:
            raise UserError(
                f'{path}: no videos for split {split!r}; put some into {pathlib.Path(path, split)}'
            )

    def _begin(self, size, cover, cache_bytes, folder_fps):
        self.size, self.cover = tuple(size) if size else None, tuple(cover) if cover else None
        self.cache_bytes, self.folder_fps = cache_bytes, folder_fps
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
        return self.pieces[index].name.rpartition('#')[0]

    def size_of(self, index):
        """As `Source` says."""
        return self.pieces[index].size

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


def _told(folder, validation=None):
    """{name of a video or image folder: its split} in their order; and whether the validation split
    is yet to be cut out of these.
    """
    if not folder.is_dir():
        what = 'a file' if folder.exists() else 'no such folder'
        raise UserError(f'{folder}: {what}, expected a folder of videos (mp4) or of image folders')
    names, notes = folders.videos(folder)
    for note in notes:
        say_once(note)
    if not names:
        own = f', but images; {folders.APART}' if folders.holds_images(folder) else ''
        raise UserError(
            f'{folder}: no videos ({", ".join(folders.VIDEO_ENDINGS)}) and no folders of images in '
            f'it{own}'
        )
    tops = {name: name.split('/')[0] for name in names}
    told = {name: top if top in SPLITS else 'train' for name, top in tops.items()}
    if validation:
        told.update((name, 'validation') for name in _listed(pathlib.Path(validation), names))
    _check_tops(folder, names, told)
    _check_names(folder, names, told)
    return told, not validation and 'validation' not in told.values()


def _check_tops(folder, names, told):
    """Refuses a folder that would be trained on, and that has the name of another split in other
    words, beside one that is called as a split.
    """
    tops = dict.fromkeys(name.split('/')[0] for name in names)
    trained = {name.split('/')[0] for name in names if told[name] == 'train'}
    odd = next((top for top in tops if top in trained and top.casefold() in ALIKE), None)
    others = [top for top in tops if top != odd and top.casefold() in ('train', *ALIKE)]
    if odd and others:
        raise UserError(
            f'{folder}: {odd} beside {others[0]} would be trained on; expected train, validation '
            f'and test as names of splits: rename {odd}, or move what is in it'
        )


def _held_out(files) -> set[str]:
    """Names of the clips that are validation, of {file: its clips}: each tenth block of each file;
    where these are less than half of a tenth of all, blocks of more files, where more than twice
    as much, of fewer.
    """
    seconds = lambda pieces: sum(piece.frames / piece.fps for piece in pieces if piece.fps)
    # What cannot be read is no validation.
    files = {name: own for name, own in files.items() if not any(one.problem for one in own)}
    held, more = [], []
    for name in sorted(files, key=_hash):
        whole, begin, blocks = seconds(files[name]), 0.0, {}
        # Minutes, or tenths of a file of less than ten, of a clip at the least.
        count = max(1, min(int(whole / CLIP_SECONDS + 1e-3), max(TENTH, round(whole / HELD_OUT))))
        for piece in files[name]:
            middle = begin + seconds([piece]) / 2
            blocks.setdefault(int(middle / max(whole, 1e-9) * count), []).append(piece)
            begin += seconds([piece])
        blocks, first = list(blocks.values()), int(TENTH * _hash(name))
        held += blocks[first::TENTH]
        if first >= len(blocks):
            more.append(blocks[first % len(blocks)])
    total = sum(map(seconds, files.values()))
    while more and sum(map(seconds, held)) < 0.5 * total / TENTH:
        held.append(more.pop(0))
    while len(held) > 1 and sum(map(seconds, held)) > 2 * total / TENTH:  # of a few short files
        held.pop()
    names = {piece.name for block in held for piece in block}
    # A single clip is to be trained on.
    return names if len(names) < sum(map(len, files.values())) else set()


def _check_names(folder, names, told):
    """Refuses a file that lies in the folders of two splits, or that links lead to from two: it
    would be trained on and judged by.
    """
    known, real = {}, {}
    for name in names:
        inside = name.partition('/')[2] if name.split('/')[0] in SPLITS else name
        if inside and inside in known and told[known[inside]] != told[name]:
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
    listed = [line.strip() for line in text_of(file, 'a list').splitlines() if line.strip()]
    if unknown := sorted(set(listed) - set(names)):
        raise UserError(
            f'{file}: {unknown[0]} is not among the videos; expected paths within the folder, such '
            f'as {names[0]}'
        )
    return listed


def text_of(file, what: str) -> str:
    """A text in UTF-8; `what` an error calls it."""
    try:
        return file.read_text(encoding='utf-8-sig')
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(
            f'{file}: not {what} in UTF-8 ({records.reason(error)}); save it as such'
        ) from error


def _hash(name):
    """A number in [0, 1) that depends on nothing but the name."""
    digest = hashlib.sha256(name.encode(errors='surrogateescape')).digest()
    return int.from_bytes(digest[:6], 'big') / 2**48


def cut(path, name, folder_fps, keep_unreadable=False, span=(0.0, math.inf)):
    """The clips of a file: disjoint, and together all that it shows from the first second of `span`
    on, and before the second.
    """
    try:
        line = timeline.of(path, folder_fps)
    except UserError as error:
        if not keep_unreadable:
            raise
        return [Piece(str(path), f'{name}#0', 0, 0, 0, 0.0, (0, 0), None, str(error))]
    timeline.tell(path, line)
    pieces = []
    low, high = np.searchsorted(line.times, np.asarray(span) - 0.5 / line.rate).tolist()
    if low == high:
        problem = f'shows nothing between {span[0]:g} and {span[1]:g} s'
        return [Piece(str(path), f'{name}#{low}', low, 0, 0, 0.0, line.size, None, problem)]
    edges = [low, *(place for place in line.cuts if low < place < high), high]
    for begin, end in zip(edges, edges[1:]):
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
                Piece(
                    str(path), f'{name}#{first}', first, last - first, frames, fps, line.size, picks
                )
            )
    return pieces
