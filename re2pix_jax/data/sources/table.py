"""A dataset as a table: segments of videos and of folders of images, one a row, for data that lies
as no famous one does.

A CSV file with a header, or JSON lines. Columns:

    path          video file or folder of images; relative to the table
    start, end    seconds of the segment; empty: from the beginning, to the end
    split         train, validation or test; empty: train
    labels        folder of 8-bit images of train ids, one for each frame of `path`, in its order
    depth         so too, of 16 bits; depth_metres: metres in a count (0.01)

The first is needed. Other columns, such as a pose, are left alone. A segment is cut into clips as
a folder of videos is.
"""

import collections
import csv
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from re2pix_jax.data import folders, records, windows
from re2pix_jax.data.sources import videos
from re2pix_jax.errors import UserError


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
        self.rows, self.pieces, file = [], [], pathlib.Path(path)
        for row in rows(file):
            if row.split != split:
                continue
            name = row.path.as_posix()
            place, span = file.parent / row.path, (row.start, row.end)
            try:
                found = videos.cut(place, name, folder_fps, keep_unreadable, span)
            except UserError as error:
                raise UserError(f'{file}: line {row.line}: {error}') from error
            self.pieces += found
            self.rows += [row._replace(path=place)] * len(found)
        if not self.pieces:
            raise UserError(f'{path}: no row of split {split!r}')
        self._files = {}
        for row in self.rows:
            for folder in filter(None, (row.labels, row.depth)):
                self._files.setdefault(folder, folders.images(file.parent / folder).files)

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
                clip['labels'] = self._planes(row.labels, numbers, row.line).astype(np.uint8)
            if row.depth:
                counts = self._planes(row.depth, numbers, row.line).astype(np.uint16)
                clip['depth'] = records.depth_of(counts, self.depth_coding(index))
        return clip

    def _planes(self, folder, numbers, line):
        """Images of one channel [T, h, w] of these frames, cut to the shape of `size`."""
        files = self._files[folder]
        if max(numbers) >= len(files):
            raise UserError(
                f'{folder}: {len(files)} images, but frame {max(numbers)} of line {line} is asked '
                'for; expected one for each frame'
            )
        planes = []
        for number in numbers:
            try:
                with Image.open(files[number]) as image:
                    planes.append(np.asarray(image))
            except Exception as error:  # a damaged image shows in many ways
                reason = records.reason(error)
                raise UserError(
                    f'{files[number]}: not a readable image ({reason}); replace it'
                ) from error
            if planes[-1].ndim != 2 or planes[-1].shape != planes[0].shape:
                raise UserError(
                    f'{files[number]}: {list(planes[-1].shape)} pixels and channels, expected one '
                    f'channel and the size of the others, {list(planes[0].shape[:2])}'
                )
        planes = np.stack(planes)
        if self.size is None:
            return planes
        box = windows.centre_box(*planes.shape[1:], self.size)
        return windows.pick(planes, box, (box.height, box.width))


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
        of_path[row.path].append(row)
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
    try:
        text = file.read_text(encoding='utf-8-sig')
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f'{file}: not a table in UTF-8 ({records.reason(error)})') from error
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
        except (TypeError, ValueError):
            return math.nan

    path, split = values.get('path'), values.get('split') or 'train'
    place = lambda name: pathlib.Path(values[name]) if values.get(name) else None
    start, end, unit = number('start', 0.0), number('end', math.inf), number('depth_metres', 0.01)
    for wrong, expected in (
        (not isinstance(path, str) or not path, 'a path'),
        (split not in videos.SPLITS, f'split one of {", ".join(videos.SPLITS)}, not {split!r}'),
        (not 0 <= start < end, f'0 <= start < end, seconds, not {start:g} and {end:g}'),
        (not 0 < unit < 1, 'depth_metres, metres in a count'),
    ):
        if wrong:
            raise UserError(f'{file}: line {line}: expected {expected}')
    return Row(line, pathlib.Path(path), start, end, split, place('labels'), place('depth'), unit)
