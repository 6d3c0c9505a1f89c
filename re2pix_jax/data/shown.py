"""Frames as a player or a viewer shows them: upright, with square pixels, in 8 bits of sRGB.

Videos: display matrix, shape of the pixels, range and matrix of the colours, fields, high dynamic
range. Images: EXIF orientation, 16 bits, palettes, CMYK. Alpha is dropped, as ffmpeg and Pillow do.
"""

import fractions
import os
import threading

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Colorspace
from jaxtyping import UInt8
from PIL import Image

from re2pix_jax.data import decoding, windows
from re2pix_jax.errors import UserError

Picture = UInt8[np.ndarray, 'h w 3']

UNSPECIFIED = 2  # of matrices and transfer functions, in the numbers of ISO/IEC 23091-2
HDR = {16: 'PQ', 18: 'HLG'}
TONE_MAPPED = 'out_range=full:out_primaries=bt709:out_transfer=bt709:intent=perceptual'
ORIENTATION = 0x0112  # of EXIF
UPRIGHT = {  # EXIF orientation → (transposed first, then mirrored, then upside down)
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


class Screen:
    """Shows the frames of one video.

    Args:
        name: of the video, for messages.
        aspect: width of a stored pixel over its height.
    """

    def __init__(self, name, aspect: fractions.Fraction = fractions.Fraction(1)):
        self.name, self.aspect = name, aspect

    def __call__(self, frame: av.VideoFrame) -> Picture:
        """A decoded frame as it is shown.

        Raises:
            UserError: pixels that cannot be converted.
        """
        try:
            picture = self._colours(frame)
        except decoding.FAILURES as error:
            raise UserError(
                f'{self.name}: frames of {frame.width}x{frame.height} pixels of kind '
                f'{frame.format.name} cannot be shown ({decoding.reason(error)}); convert the '
                'video, for instance by ffmpeg -pix_fmt yuv420p'
            ) from error
        height, width = picture.shape[:2]
        if self.aspect != 1:
            wide = max(1, round(width * self.aspect))
            full_frame = windows.Box(0, 0, height, width)
            picture = windows.resize(picture[None], full_frame, (height, wide))[0]
        return _turned(picture, _display(frame))

    def _colours(self, frame):
        hdr, interlaced = frame.color_trc in HDR, frame.interlaced_frame
        if not hdr and not interlaced:
            # Players take what says nothing for BT.709 where it is large, for BT.601 else.
            large = frame.colorspace == UNSPECIFIED and (frame.width >= 1280 or frame.height > 576)
            yuv = len(frame.format.components) >= 3 and not frame.format.is_rgb
            matrix = Colorspace.ITU709 if large and yuv else None
            return frame.to_ndarray(format='rgb24', src_colorspace=matrix)
        # One field of two [O]: the other was taken at another time.
        steps = [('field', 'type=top')] if interlaced else []
        steps += [('scale', TONE_MAPPED)] if hdr else []
        picture = _filtered(frame, [*steps, ('format', 'rgb24')]).to_ndarray()
        if not interlaced:
            return picture
        filled = picture.repeat(2, axis=0)
        between = picture[:-1].astype(np.uint16) + picture[1:] + 1 >> 1
        filled[1 : 2 * len(between) : 2] = between
        return np.ascontiguousarray(filled[: frame.height])


_graphs = threading.local()


def _filtered(frame, steps):
    """A frame after these filters of ffmpeg. Their graphs are kept, a thread its own: the table of
    a tone mapping takes seconds to make.
    """
    colours = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
    kind = frame.width, frame.height, frame.format.name, colours, tuple(steps)
    kept = _graphs.__dict__.setdefault('kept', {})
    if kind not in kept:
        graph = Graph()
        first = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format.name,
            time_base=fractions.Fraction(1, 1000),
        )
        last = graph.add('buffersink')
        graph.link_nodes(first, *(graph.add(*step) for step in steps), last).configure()
        while len(kept) >= 4:
            kept.pop(next(iter(kept)))
        kept[kind] = graph, first, last
    _, first, last = kept[kind]
    first.push(frame)
    return last.pull()


def image(path: str | os.PathLike, again: str = 'replace it, or take it away') -> Picture:
    """The image of a file as a viewer shows it.

    Args:
        path: of the file.
        again: what to do where it is lost.

    Raises:
        UserError: not a readable image, or one of numbers that are no colours.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > decoding.MOST_PIXELS:
                raise UserError(
                    f'{path}: an image of {opened.width}x{opened.height} pixels, expected at most '
                    f'{decoding.MOST_PIXELS}; scale it down'
                )
            picture, turned = _rgb(path, opened), UPRIGHT.get(_orientation(opened))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such file; {again}') from error
    except Exception as error:  # a damaged image shows in many ways
        reason = decoding.reason(error).replace(f' {str(path)!r}', '')
        raise UserError(f'{path}: not a readable image ({reason}); {again}') from error
    return _turned(picture, turned)


def _rgb(path, opened: Image.Image) -> Picture:
    if opened.mode.startswith(('I', 'F')):
        values = np.asarray(opened)
        if opened.mode == 'F' or values.min() < 0 or values.max() > 0xFFFF:
            raise UserError(
                f'{path}: an image of numbers (mode {opened.mode}), expected one of colours with 8 '
                'or 16 bits'
            )
        return (values >> 8).astype(np.uint8)[..., None].repeat(3, axis=-1)
    return np.asarray(opened.convert('RGB'))


def _orientation(opened: Image.Image) -> int:
    try:
        return opened.getexif().get(ORIENTATION, 1)
    except Exception:  # viewers show an image whose EXIF is damaged as it is stored
        return 1


def _display(frame) -> tuple[bool, bool, bool] | None:
    """What a display matrix asks for, as `UPRIGHT`; None without one."""
    # Not frame.side_data: the frame keeps that, and it the frame, so that megabytes a picture wait
    # for the collector of cycles.
    side = SideDataContainer(frame).get('DISPLAYMATRIX')
    if side is None or side.buffer_size < 36:
        return None
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = np.frombuffer(bytes(side)[:36], '<i4')[:5].astype(float)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _turned(picture, how) -> Picture:
    if how is None or not any(how):
        return picture
    transposed, mirrored, upside_down = how
    picture = picture.transpose(1, 0, 2) if transposed else picture
    picture = picture[:, ::-1] if mirrored else picture
    return np.ascontiguousarray(picture[::-1] if upside_down else picture)
