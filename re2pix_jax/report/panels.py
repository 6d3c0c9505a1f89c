"""Labelled panels: a video that shows them side by side, and a contact sheet that shows them
through time.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MINIMUM_WIDTH = 256  # pixels: below, text over a panel is hard to read
MAXIMUM_COLUMNS = 16  # of a sheet; longer sequences are shown at even steps
BACKGROUND, INK, GREY, FAINT = (24, 24, 24), (235, 235, 235), (96, 96, 96), (150, 150, 150)
MARGIN, BAR, TEXT = 4, 20, 13


class Panel(NamedTuple):
    """One thing through time.

    Attributes:
        title: what it shows.
        frames: list of uint8 [H, W, 3], or None where there is no frame: then a grey panel says so.
        absent: what that grey panel says.
    """

    title: str
    frames: list
    absent: str = 'no truth'


def enlarge(frame, minimum_width=MINIMUM_WIDTH):
    """Repeats the pixels of uint8 [H, W, 3] the smallest whole number of times that makes it
    `minimum_width` wide.
    """
    scale = max(1, -(-minimum_width // frame.shape[1]))
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def moment(seconds):
    """How a time relative to the last context frame is written: '-0.35 s', '0.00 s', '+0.18 s'."""
    return f'{seconds:+.2f} s' if abs(seconds) > 5e-3 else '0.00 s'


def video(panels, seconds, columns=2):
    """Frames of a video that shows the panels in a grid.

    Args:
        panels: `Panel`s of T frames of one size each.
        seconds: [T], time of each frame relative to the last context frame.
        columns: of the grid.

    Returns:
        uint8 [T, height, width, 3], even height and width.
    """
    _check(panels, seconds)
    size = _size(panels)
    rows = -(-len(panels) // columns)
    height, width = rows * (size[0] + BAR + MARGIN) + MARGIN, columns * (size[1] + MARGIN) + MARGIN
    pictures = []
    for step, time in enumerate(seconds):
        canvas = Image.new('RGB', (width + width % 2, height + height % 2), BACKGROUND)
        for place, panel in enumerate(panels):
            left = MARGIN + place % columns * (size[1] + MARGIN)
            top = MARGIN + place // columns * (size[0] + BAR + MARGIN)
            stage = 'context ' if time <= 0 else ''
            _text(canvas, (left, top), panel.title, INK)
            _text(
                canvas,
                (left + size[1], top),
                stage + moment(time),
                FAINT if time <= 0 else INK,
                right=True,
            )
            canvas.paste(_picture(panel, step, size), (left, top + BAR))
        pictures.append(np.asarray(canvas))
    return np.stack(pictures)


def sheet(panels, seconds, heading=''):
    """A contact sheet: one row a panel, one column a time step, of which `MAXIMUM_COLUMNS` are
    shown at most.

    Args:
        panels, seconds: as in `video`.
        heading: a line of text above.

    Returns:
        uint8 [height, width, 3].
    """
    _check(panels, seconds)
    size = _size(panels)
    steps = np.unique(
        np.linspace(0, len(seconds) - 1, min(len(seconds), MAXIMUM_COLUMNS)).round().astype(int)
    )
    gutter = max(_width(panel.title) for panel in panels) + 3 * MARGIN
    top = MARGIN + (BAR if heading else 0)
    width, height = (
        gutter + len(steps) * (size[1] + MARGIN),
        top + BAR + len(panels) * (size[0] + MARGIN),
    )
    canvas = Image.new('RGB', (max(width, _width(heading) + 2 * MARGIN), height), BACKGROUND)
    _text(canvas, (MARGIN, MARGIN), heading, INK)
    for column, step in enumerate(steps):
        left = gutter + column * (size[1] + MARGIN)
        past = seconds[step] <= 0
        _text(
            canvas,
            (left, top),
            ('context ' if past else '') + moment(seconds[step]),
            FAINT if past else INK,
        )
        for row, panel in enumerate(panels):
            canvas.paste(_picture(panel, step, size), (left, top + BAR + row * (size[0] + MARGIN)))
    for row, panel in enumerate(panels):
        _text(
            canvas,
            (MARGIN, top + BAR + row * (size[0] + MARGIN) + size[0] // 2 - TEXT // 2),
            panel.title,
            INK,
        )
    return np.asarray(canvas)


def _check(panels, seconds):
    if not panels or any(len(panel.frames) != len(seconds) for panel in panels):
        raise ValueError(
            f'panels of {[len(panel.frames) for panel in panels]} frames for {len(seconds)} times'
        )


def _size(panels):
    sizes = {frame.shape for panel in panels for frame in panel.frames if frame is not None}
    if len(sizes) != 1:
        raise ValueError(f'expected frames of one size, got {sorted(sizes)}')
    return enlarge(np.zeros(sizes.pop(), np.uint8)).shape[:2]


def _picture(panel, step, size):
    frame = panel.frames[step]
    if frame is not None:
        return Image.fromarray(enlarge(np.asarray(frame)))
    picture = Image.new('RGB', (size[1], size[0]), GREY)
    _text(
        picture, ((size[1] - _width(panel.absent)) // 2, (size[0] - TEXT) // 2), panel.absent, INK
    )
    return picture


def _font():
    return ImageFont.load_default(
        TEXT
    )  # Pillow's own, so that pictures do not depend on the fonts of a machine


def _width(text):
    return int(np.ceil(_font().getlength(text)))


def _text(canvas, place, text, colour, right=False):
    left = place[0] - _width(text) if right else place[0]
    ImageDraw.Draw(canvas).text((left, place[1]), text, fill=colour, font=_font())
