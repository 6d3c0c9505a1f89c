"""A dataset as a table: segments of videos and of folders of images, one a row, for data that lies
as no famous one does.

A CSV file with a header, or JSON lines. Columns:

    path          video file or folder of images; relative to the table
    start, end    seconds of the segment; empty: from the beginning, to the end
    split         train, validation or test; empty: train
    labels        folder of 8-bit images of train ids, one for each frame of `path`, in its order;
                  of the same numbers, where `path` is a folder too
    depth         so too, of 16 bits; depth_metres: metres in a count (0.01)

The first is needed. Other columns, such as a pose, are left alone. A segment is cut into clips as
a folder of videos is.
"""

import collections
import csv
import functools
import json
import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

from re2pix_jax.data import folders, records, timeline, windows
from re2pix_jax.data.sources import planes, videos
from re2pix_jax.errors import UserError
from re2pix_jax.progress import counted

PATHS = ('path', 'labels', 'depth')


class Row(NamedTuple):
    """A segment, as the table has it in a line."""

    line: int
    path: pathlib.Path
    start: float
    end: float
    split: str
    labels: pathlib.Path | None
    depth: pathlib.Path | None
    depth_metres: float


class Table(videos.Videos):
    """The clips of one split of a table. A `Source`; arguments are those of `Videos`, of which a
    table has its own splits.

    Raises:
        UserError: no such file, a row that cannot be used, segments that overlap, no row of the
            split.
    """

    def __init__(
        self,
        path,
        split: str = 'train',
        size=(64, 128),
        cache_bytes: int = 512 << 20,
        keep_unreadable: bool = False,
        cover=None,
        folder_fps: float = windows.BASE_FPS,
    ):
        self._begin(size, cover, cache_bytes, folder_fps)
        if split not in videos.SPLITS:
            raise UserError(f'split {split!r}: a table has {", ".join(videos.SPLITS)}')
        self.rows, self.pieces, self._files, file = [], [], {}, pathlib.Path(path)
        pair = functools.cache(self._pair)
        for row in rows(file):
            if row.split != split:
                continue
            name, span = row.path.as_posix(), (row.start, row.end)
            there = {of: file.parent / getattr(row, of) for of in PATHS if getattr(row, of)}
            row = row._replace(**there)
            try:
                found = videos.cut(row.path, name, folder_fps, keep_unreadable, span)
                for folder in filter(None, (row.labels, row.depth)):
                    if not found[0].problem:
                        pair(row.path, folder)
            except UserError as error:
                problem = f'line {row.line}: {error}'
                if not keep_unreadable:
                    raise UserError(f'{file}: {problem}') from error
                found = [piece._replace(problem=problem) for piece in found]
            self.pieces += found
            self.rows += [row] * len(found)
        if not self.pieces:
            raise UserError(f'{path}: no row of split {split!r}')

    def _pair(self, path, folder):
        """Takes the images of a folder for those of the frames of `path`; refuses others."""
        frames = folders.images(path) if path.is_dir() else None
        count = len(frames.files if frames else timeline.of(path).times)
        found = folders.images(folder)
        if len(found.files) != count:
            there, wanted = counted(len(found.files), 'image'), counted(count, 'frame')
            raise UserError(f'{folder}: {there}, but {path} has {wanted}; expected one for each')
        if frames:
            both = zip(folders.numbers(frames), folders.numbers(found))
            for place, (one, other) in enumerate(both):
                if len(one) == len(other) and one != other:
                    raise UserError(
                        f'{found.files[place]}: by its order the image of {frames.files[place]}, '
                        'which has another number; expected for each frame one of its number'
                    )
        self._files[folder] = found.files

    def depth_kind(self, index):
        """As `Source` says."""
        return 'metres' if self.rows[index].depth else None

    def depth_coding(self, index):
        """As `Source` says."""
        return 'linear', self.rows[index].depth_metres

    def read(self, index, indices, labels=True):
        """As `Source.read`; labels and depth have the pixels of their files."""
        clip, row, piece = (
            super().read(index, indices, labels),
            self.rows[index],
            self.pieces[index],
        )
        if labels:
            shown = np.asarray(indices) if piece.picks is None else piece.picks[indices]
            numbers = piece.first + shown
            if row.labels:
                what = 'an 8-bit PNG of train ids'
                clip['labels'] = self._planes(row.labels, numbers, np.uint8, what)
            if row.depth:
                what = f'a 16-bit PNG of counts of {row.depth_metres:g} m (depth_metres)'
                counts = self._planes(row.depth, numbers, np.uint16, what)
                clip['depth'] = records.depth_of(counts, self.depth_coding(index))
        return clip

    def _planes(self, folder, numbers, dtype, what):
        """Images of one channel [T, h, w] of these frames, cut to the shape of `size`."""
        files, read = self._files[folder], []
        for number in numbers:
            read.append(planes.read(files[number], dtype, what, 'replace it'))
            if read[-1].ndim != 2 or read[-1].shape != read[0].shape:
                raise UserError(
                    f'{files[number]}: {list(read[-1].shape)} pixels and channels, expected one '
                    f'channel and the size of the others, {list(read[0].shape[:2])}'
                )
        read = np.stack(read)
        if self.size is None:
            return read
        box = windows.centre_box(*read.shape[1:], self.size)
        return windows.pick(read, box, (box.height, box.width))


def rows(file: pathlib.Path) -> list[Row]:
    """The rows of a table, checked.

    Raises:
        UserError: see `Table`.
    """
    if not file.is_file():
        what = 'is a folder' if file.is_dir() else 'no such file'
        raise UserError(f'{file}: {what}; expected a table, CSV or JSON lines')
    found = [_row(file, number, values) for number, values in _values(file)]
    if not found:
        raise UserError(f'{file}: no row; expected a header and a row for each segment')
    of_path = collections.defaultdict(list)
    for row in found:
        of_path[os.path.realpath(file.parent / row.path)].append(row)
    for of in of_path.values():
        of.sort(key=lambda row: row.start)
        for one, other in zip(of, of[1:]):
            if other.start < one.end:
                splits = f'{one.split} and {other.split}'
                raise UserError(
                    f'{file}: lines {one.line} and {other.line} overlap in {one.path} ({splits}): '
                    'what is trained on would be judged by, or seen twice; change start or end'
                )
    return found


def _values(file):
    """Yields (line, {column: text or number})."""
    text = videos.text_of(file, 'a table')
    if text.lstrip().startswith('{'):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    values = json.loads(line)
                except ValueError as error:
                    raise UserError(f'{file}: line {number} is no JSON ({error})') from error
                if not isinstance(values, dict):
                    raise UserError(f'{file}: line {number}: expected an object, {{"path": ...}}')
                yield number, values
        return
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if 'path' not in (reader.fieldnames or ()):
        raise UserError(
            f'{file}: no column path in its first line; expected path,start,end,split, of which '
            'the first is needed'
        )
    for values in reader:
        yield reader.line_num, values


def _row(file, line, values) -> Row:
    def number(name, usual):
        value = values.get(name)
        if value in (None, ''):
            return usual
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            return math.nan

    path, split = values.get('path'), values.get('split') or 'train'
    beside = {name: values.get(name) for name in PATHS[1:]}
    start, end, unit = number('start', 0.0), number('end', math.inf), number('depth_metres', 0.01)
    for wrong, expected in (
        (not isinstance(path, str) or not path, 'a path'),
        *(
            (not isinstance(folder, str | None), f'{name}, a folder, not {folder!r}')
            for name, folder in beside.items()
        ),
        (split not in videos.SPLITS, f'split one of {", ".join(videos.SPLITS)}, not {split!r}'),
        (not 0 <= start < end, f'0 <= start < end, seconds, not {start:g} and {end:g}'),
        (not 0 < unit < 1, 'depth_metres, metres in a count'),
    ):
        if wrong:
            raise UserError(f'{file}: line {line}: expected {expected}')
    beside = [pathlib.Path(folder) if folder else None for folder in beside.values()]
    return Row(line, pathlib.Path(path), start, end, split, *beside, unit)
