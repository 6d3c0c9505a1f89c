"""What videos are good for: how many windows each file gives, and what stands against it."""

import collections
import math
from collections.abc import Collection

from re2pix_jax.data import timeline, windows
from re2pix_jax.data.sources.source import Source
from re2pix_jax.data.sources.videos import Videos
from re2pix_jax.errors import UserError
from re2pix_jax.progress import counted

FRAMES = 8
"""Of a window, as the configs have them."""

UNREADABLE = 'cannot be read, left out'

LEAST_KEPT = 0.5
"""Of its picture: a file whose centre crop keeps less is named. [O]"""


def count(source: Source, index: int) -> int:
    """Windows of a clip, of `FRAMES` frames at the stride of evaluation; 0 where it is too short or
    too slow.
    """
    return int(max(0, source.num_frames(index) - _span(source, index) + 1))


def _span(source, index) -> float:
    """Native frames of a window; infinite where they come too slowly."""
    try:
        return windows.span(FRAMES, windows.STRIDE, source.fps(index))
    except UserError:
        return math.inf


def lines(source: Videos, size: windows.Size, left_out: Collection[str] = ()) -> list[str]:
    """A line for each file of a source: how many windows it gives, of `FRAMES` frames at the stride
    of evaluation, and what is wrong with it.

    Args:
        source: opened with `keep_unreadable`.
        size: (height, width) whose aspect the frames are cropped to.
        left_out: names of clips that turned out to be unreadable.
    """
    files = collections.defaultdict(list)
    for index in range(len(source)):
        files[source.origin(index)].append(index)
    return [f'{name}: {_line(source, clips, size, left_out)}' for name, clips in files.items()]


def _line(source, clips, size, left_out):
    found, clips = clips, [index for index in clips if source.name(index) not in left_out]
    if not clips or (why := source.problem(clips[0])):
        return UNREADABLE + (f' ({why})' if clips else '')
    pieces = [source.pieces[index] for index in clips]
    line = timeline.of(pieces[0].path, source.folder_fps)
    rate = windows.BASE_FPS / windows.STRIDE
    slow = [source.fps(index) for index in clips if math.isinf(_span(source, index))]
    rates = {source.fps(index) for index in clips} - {*slow}
    rates = {fps / windows.native_stride(windows.STRIDE, fps) for fps in rates} or {rate}
    ends = dict.fromkeys(f'{end:.3g}' for end in (min(rates), max(rates)))
    asked = f'{FRAMES} frames at {" to ".join(ends)} per second (stride {windows.STRIDE})'
    counts = [count(source, index) for index in clips]
    said = [f'{counted(len(pieces), "clip")}, {counted(sum(counts), "window")} of {asked}']
    if gone := len(found) - len(clips):
        said.append(f'{counted(gone, "clip")} cannot be read, left out')
    if slow:
        said.append(
            f'{counted(len(slow), "clip")} too slow, {min(slow):.3g} frames per second where '
            f'stride {windows.STRIDE} means {rate:.3g}: film faster, or train at a larger stride'
        )
    short = counts.count(0) - len(slow)
    if short:
        said.append(f'{counted(short, "clip")} too short for a window')
    height, width = line.size
    box = windows.centre_box(height, width, size)
    kept = box.height * box.width / (height * width)
    if kept < LEAST_KEPT:
        said.append(
            f'a centre crop to the shape of {size[0]}x{size[1]} keeps {kept:.0%} of its '
            f'{height}x{width} pixels: choose a --size nearer to its shape'
        )
    return '; '.join(said)
