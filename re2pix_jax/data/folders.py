"""Folders as people have them: which images are the frames of one, in which order and at which
places in time; which videos lie below one.
"""

import collections
import decimal
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from re2pix_jax.errors import UserError

IMAGE_ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEO_ENDINGS = (
    *('.mp4', '.mov', '.mkv', '.avi', '.webm', '.m4v', '.ts', '.mts', '.m2ts', '.mpg', '.mpeg'),
    *('.wmv', '.asf', '.flv', '.gif', '.3gp', '.ogv', '.vob', '.m2v', '.mxf', '.mjpeg', '.mjpg'),
    *('.h264', '.264', '.h265', '.265', '.hevc'),
)
IGNORED = '__MACOSX'
"""What a Mac puts beside the files of an archive; like all names that begin with a dot."""

APART = 'give them a folder of their own'

Number = int | decimal.Decimal


class Frames(NamedTuple):
    """The images of a folder.

    Attributes:
        files: in the order of their numbers, ascending.
        places: of each in time, in frames from the first: holes in the numbers count.
        cuts: places in `files` at which names of another form begin: another camera.
        notes: what is odd about the folder.
    """

    files: list[pathlib.Path]
    places: Int64[np.ndarray, ' n']
    cuts: tuple[int, ...]
    notes: tuple[str, ...]


def holds_images(folder: str | os.PathLike) -> bool:
    """Whether some lie in the folder itself."""
    names = (path.name for path in _entries(folder))
    return any(_is_image(name) and not hidden(name) for name in names)


def _is_image(name):
    return name.lower().endswith(IMAGE_ENDINGS)


def images(folder: str | os.PathLike) -> Frames:
    """The frames that a folder holds.

    Raises:
        UserError: it holds no images, or two of one number.
    """
    shown = [path for path in _entries(folder) if not hidden(path.name) and path.is_file()]
    known = [path for path in shown if _is_image(path.name)]
    empty = [path for path in known if not path.stat().st_size]
    form = forms(path.stem for path in shown)
    found = sorted((path for path in known if path not in empty), key=lambda path: form[path.stem])
    if not found:
        films = [path.name for path in shown if path.suffix.lower() in VIDEO_ENDINGS]
        hint = f'; it holds videos: name one of them, as {films[0]}' if films else ''
        raise UserError(
            f'{folder}: the folder holds no images, expected .png or .jpg frames, their names in '
            f'order{hint}'
        )
    for one, other in zip(found, found[1:]):
        if form[one.stem] == form[other.stem]:
            raise UserError(
                f'{folder}: {one.name} and {other.name} are two frames of one number; keep one of '
                'them, or give each series a folder of its own'
            )
    notes = _named(empty, 'empty and left out')
    groups = collections.defaultdict(list)
    for path in found:
        groups[form[path.stem][0]].append(path)
    if 2 * len(groups) > len(found):  # names, not numbers
        found.sort(key=lambda path: _natural(path.stem))
        return Frames(found, np.arange(len(found)), (), tuple(notes))
    places, cuts, last = [], [], -1
    for group in groups.values():
        own, odd = _places([form[path.stem][1] for path in group])
        notes += [note for note in odd if note not in notes]
        places.append(last + 1 + own)
        last = places[-1][-1]
        cuts.append((cuts[-1] if cuts else 0) + len(group))
    spans = {words: (form[of[0].stem], form[of[-1].stem]) for words, of in groups.items()}
    between = lambda words, numbers: (
        words in spans and (spans[words][0] < (words, numbers) < spans[words][1])
    )
    others = [path for path in shown if path not in known and between(*form[path.stem])]
    notes += _named(others, 'between the images, but of no known kind, and left out')
    if len(groups) > 1:
        names = ', '.join(group[0].name for group in groups.values())
        notes.append(f'names of {len(groups)} forms (from {names} on), each a clip of its own')
    return Frames(found, np.concatenate(places), tuple(cuts[:-1]), tuple(notes))


def forms(stems: Iterable[str]) -> dict[str, tuple[tuple[str, ...], tuple[Number, ...]]]:
    """The words of each name and its numbers: 'left_007' → (('left_', ''), (7,)). In this order
    names of one form are sorted by their numbers.

    Two numbers with a point between them are one where the names of a form drop the zeros at its
    end, as python prints seconds: 10.3 comes after 10.15. Elsewhere they are two: in CLIP.FRAME
    1.9 comes before 1.10.
    """
    groups, found = collections.defaultdict(dict), {}
    for stem in stems:
        parts = re.split('([0-9]+)', stem.casefold())
        groups[tuple(parts[::2])][stem] = parts[1::2]
    for words, group in groups.items():
        columns = [list(texts) for texts in zip(*group.values())]
        for place in reversed(range(1, len(columns))):
            whole, after = columns[place - 1 : place + 1]
            alone = [word == '.' for word in words[place - 1 : place + 2]] == [False, True, False]
            if alone and len({*map(len, after)}) > 1 and not any(map(_ends_in_zero, after)):
                digits = max(map(len, after))
                columns[place - 1 : place + 1] = [
                    [f'{one}.{other.ljust(digits, "0")}' for one, other in zip(whole, after)]
                ]
        rows = zip(*(map(_number, texts) for texts in columns)) if columns else itertools.repeat(())
        found |= {stem: (words, row) for stem, row in zip(group, rows)}
    return found


def numbers(frames: Frames) -> list[tuple[Number, ...]]:
    """Of each frame, those numbers of its name that change within the folder; empty where none do,
    or the names have several forms.
    """
    form = forms(path.stem for path in frames.files)
    if len({words for words, _ in form.values()}) > 1:
        return []
    return list(zip(*_changing(form[path.stem][1] for path in frames.files)))


def _changing(numbers) -> list[tuple[Number, ...]]:
    return [column for column in zip(*numbers) if len(set(column)) > 1]


def _ends_in_zero(digits) -> bool:
    return len(digits) > 1 and digits.endswith('0')


def _number(text) -> Number:
    return decimal.Decimal(text) if '.' in text else int(text)


def hidden(name: str) -> bool:
    """Whether what is called so is no footage: `._a.jpg`, `.DS_Store`, `__MACOSX`."""
    return name.startswith('.') or name == IGNORED


def videos(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """What lies below a folder: paths within it, in natural order, of videos and of folders of
    images; and a line for each file that is left out. Symbolic links are followed.
    """
    folder, notes = pathlib.Path(folder), []
    names = [path.relative_to(folder).as_posix() for path in _walk(folder, (), notes)]
    if names and holds_images(folder):
        notes.append(f'{folder}: images right in it, left out; {APART}')
    return sorted(names, key=_natural), notes


def _walk(folder, above, notes) -> Iterator[pathlib.Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    pictures = False
    for path in _entries(folder):
        if hidden(path.name):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real), notes)
        elif path.suffix.lower() in VIDEO_ENDINGS + IMAGE_ENDINGS:
            if not path.is_file():
                what = 'no regular file' if path.exists() else 'a link to nothing'
                notes.append(f'{path}: {what}, left out')
            elif path.suffix.lower() in IMAGE_ENDINGS:
                pictures |= path.stat().st_size > 0
            elif path.stat().st_size:
                yield path
            else:
                notes.append(f'{path}: an empty file, left out')
    if pictures and above:
        yield folder


def _entries(folder) -> list[pathlib.Path]:
    try:
        return sorted(pathlib.Path(folder).iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: the folder can't be listed ({os.strerror(error.errno or 0).lower()}); make "
            'it readable or leave it out'
        ) from error


def _natural(name: str) -> list:
    parts = re.split('([0-9]+)', name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _places(numbers: list[tuple[Number, ...]]) -> tuple[np.ndarray, list[str]]:
    """Places in time of names of one form, from 0 on, and notes of what is odd about the numbers.
    Names with several numbers that change, or one without a usual step (a time stamp), tell an
    order alone.
    """
    order, changing = np.arange(len(numbers)), _changing(numbers)
    alone = order, ['numbers that tell an order alone: each is the next frame, at folder_fps']
    if len(changing) != 1:
        return alone if changing else (order, [])
    (values,) = changing
    steps = [after - before for before, after in zip(values, values[1:])]
    counts = collections.Counter(steps)
    usual = min(steps, key=lambda step: (-counts[step], step))
    if 2 * counts[usual] < len(steps) or (values[-1] - values[0]) / usual > 1 << 62:
        return alone
    whole = [max(1, int((2 * step + usual) // (2 * usual))) for step in steps]
    holes = [
        f'{before + usual}' + (f' to {after - usual}' if after - before > 2 * usual else '')
        for before, after, one in zip(values, values[1:], whole)
        if one > 1
    ]
    notes = [f'numbers that are missing: {_first(holes)}'] if holes else []
    if usual != 1:
        notes.append(f'numbers go up by {usual}: each is the next frame, at folder_fps')
    return np.cumsum([0, *whole]), notes


def _named(paths, what) -> list[str]:
    return [f'{_first([path.name for path in paths])}: {what}'] if paths else []


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more
