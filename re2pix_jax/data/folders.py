"""Folders as people have them: which images are the frames of one, in which order and at which
places in time; which videos lie below one.
"""

import collections
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
    found = sorted((path for path in known if path not in empty), key=lambda path: form(path.stem))
    if not found:
        films = [path.name for path in shown if path.suffix.lower() in VIDEO_ENDINGS]
        hint = f'; it holds videos: name one of them, as {films[0]}' if films else ''
        raise UserError(
            f'{folder}: the folder holds no images, expected .png or .jpg frames, their names in '
            f'order{hint}'
        )
    for one, other in zip(found, found[1:]):
        if form(one.stem) == form(other.stem):
            raise UserError(
                f'{folder}: {one.name} and {other.name} are two frames of one number; keep one of '
                'them, or give each series a folder of its own'
            )
    notes = _named(empty, 'empty and left out')
    groups = collections.defaultdict(list)
    for path in found:
        groups[form(path.stem)[0]].append(path)
    if 2 * len(groups) > len(found):  # names, not numbers
        found.sort(key=lambda path: _natural(path.stem))
        return Frames(found, np.arange(len(found)), (), tuple(notes))
    places, cuts, last = [], [], -1
    for group in groups.values():
        own, missing = _places([form(path.stem)[1] for path in group])
        notes += missing
        places.append(last + 1 + own)
        last = places[-1][-1]
        cuts.append((cuts[-1] if cuts else 0) + len(group))
    spans = {texts: _span(group) for texts, group in groups.items()}
    others = [path for path in shown if path not in known and _between(path, spans)]
    notes += _named(others, 'between the images, but of no known kind, and left out')
    if len(groups) > 1:
        names = ', '.join(group[0].name for group in groups.values())
        notes.append(f'names of {len(groups)} forms (from {names} on), each a clip of its own')
    return Frames(found, np.concatenate(places), tuple(cuts[:-1]), tuple(notes))


def form(stem: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The words of a name and its numbers: 'left_007' → (('left_', ''), (7,)). In this order names
    of one form are sorted by their numbers.
    """
    parts = re.split('([0-9]+)', stem.casefold())
    return tuple(parts[::2]), tuple(map(int, parts[1::2]))


def hidden(name: str) -> bool:
    """Whether what is called so is no footage: `._a.jpg`, `.DS_Store`, `__MACOSX`."""
    return name.startswith('.') or name == IGNORED


def videos(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """What lies below a folder: paths within it, in natural order, of videos and of folders of
    images; and a line for each file that is left out. Symbolic links are followed.
    """
    folder, notes = pathlib.Path(folder), []
    names = [path.relative_to(folder).as_posix() for path in _walk(folder, (), notes)]
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


def _places(numbers: list[tuple[int, ...]]) -> tuple[np.ndarray, list[str]]:
    """Places in time of names of one form, from 0 on, and notes of the holes. Names with several
    numbers that change, or one without a usual step (a time stamp), tell an order alone.
    """
    order = np.arange(len(numbers))
    changing = [column for column in zip(*numbers) if len(set(column)) > 1]
    if len(changing) != 1 or changing[0][-1] - changing[0][0] > 1 << 62:
        return order, []
    values = np.array(changing[0], np.int64)
    steps = np.diff(values)
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    if 2 * counts.max() < len(steps):
        return order, []
    holes = [
        f'{values[k] + usual}' + (f' to {values[k + 1] - usual}' if steps[k] > 2 * usual else '')
        for k in np.flatnonzero(steps > usual)
    ]
    steps = np.maximum(1, (steps + usual // 2) // usual)
    notes = [f'numbers that are missing: {_first(holes)}'] if holes else []
    if usual > 1:
        notes.append(f'numbers go up by {usual}: each is the next frame')
    return np.concatenate([[0], np.cumsum(steps)]), notes


def _span(group):
    numbers = [form(path.stem)[1] for path in group]
    return min(numbers), max(numbers)


def _between(path, spans) -> bool:
    texts, numbers = form(path.stem)
    return texts in spans and spans[texts][0] < numbers < spans[texts][1]


def _named(paths, what) -> list[str]:
    return [f'{_first([path.name for path in paths])}: {what}'] if paths else []


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more
