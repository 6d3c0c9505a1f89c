"""Video files and image folders: read at a wanted frame rate, write as H.264 mp4.

Frames are those that a player shows, as it shows them (`shown`), at their times (`timeline`).
Reading is streamed: each frame is fitted to the wanted size as it comes, so memory grows with the
result and not with the file.
"""

import fractions
import io
import numbers
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import UInt8

from re2pix_jax import files
from re2pix_jax.data import decoding, folders, shown, stretches, timeline, windows
from re2pix_jax.errors import UserError
from re2pix_jax.progress import counted, say_once

Clip = UInt8[np.ndarray, 't h w 3']


class Missing(UserError):
    """Frames that the packets of a file promise do not decode."""


class Probe(NamedTuple):
    """What there is to see: frames a second where the recording runs, frames, pixels as shown."""

    fps: float
    frames: int
    height: int
    width: int


def probe(path: str | os.PathLike, folder_fps: float = windows.BASE_FPS) -> Probe:
    """What a player shows of a video file, or of a folder of images (taken to run at `folder_fps`).

    Raises:
        UserError: no such file, not a video, no frame in it, a folder without images.
    """
    line = timeline.of(_existing(path), folder_fps)
    return Probe(line.rate, len(line.times), *line.size)


def read(
    path: str | os.PathLike,
    fps: float | None = None,
    start: float = 0.0,
    max_frames: int | None = None,
    *,
    size: tuple[int, int] | None = None,
    min_frames: int = 1,
    min_size: int = 1,
    folder_fps: float = windows.BASE_FPS,
    unbroken: bool = False,
) -> Clip:
    """Frames of a video file or of a folder of images. What a user should know of the file (a
    pause, no times) is said once on stderr.

    Args:
        path: a video file, or a folder of images in the order of their numbers.
        fps: wanted frame rate in Hz: for k = 0, 1, ... the frame nearest to start + k / fps is
            taken. None: every frame.
        start: time of the first frame in seconds after the first that is shown.
        max_frames: stop after so many frames. None: read to the end.
        size: (height, width): each frame is fitted to it (see `fit`) as it is read.
        min_frames: fewer frames than this are an error.
        min_size: height and width below this many pixels are an error.
        folder_fps: the rate at which a folder of images was taken.
        unbroken: end where the recording pauses or another begins, which is an error before
            `min_frames`; needs `fps`.

    Returns:
        uint8 [T, H, W, 3], RGB, as shown.

    Raises:
        UserError: no such file, not a video, a folder without images, a source slower than `fps`,
            fewer than `min_frames` frames, or frames that are too small.
    """
    path = _existing(path)
    if fps is not None and not fps > 0:
        raise UserError(f'fps={fps}: the frame rate must be positive')
    check_start(start)
    if max_frames is not None and max_frames < 1:
        raise UserError(f'max_frames={max_frames}: must be at least 1')
    options = dict(size=size, min_size=min_size, folder_fps=folder_fps)
    for decoded in (False, True):
        line = timeline.of(path, folder_fps, decoded)
        timeline.tell(path, line)
        _check_rate(path, fps, line.rate)
        try:
            indices = timeline.nearest(line.times, line.rate, fps, start, max_frames)
            if unbroken and len(indices) >= min_frames:
                indices = indices[: stretches.frames_from(line, fps, start, min_frames)]
        except UserError as error:
            raise UserError(f'{path}: {error}') from error
        if len(indices) < max(min_frames, 1):
            rate = '' if fps is None else f' at {fps:g} frames per second'
            after = f' from {start:g} s on' if start else ''
            length = line.times[-1] - line.times[0] + 1 / line.rate
            latest = line.times[-1] - (max(min_frames, 1) - 1) / (fps or line.rate)
            todo = 'give a longer clip'
            if start and latest >= 0:
                todo = f'start may be at most {int(100 * latest + 1e-6) / 100:g}'
            raise UserError(
                f'{path}: {counted(len(indices), "frame")}{rate}{after}, expected at least '
                f'{max(min_frames, 1)}; it is {length:.4g} s long: {todo}'
            )
        try:
            return take(path, indices, **options)
        except Missing:  # then a clip is as long as what decodes
            if decoded:
                raise


def take(
    path: str | os.PathLike,
    indices: Sequence[int],
    *,
    size: tuple[int, int] | None = None,
    cover: tuple[int, int] | None = None,
    min_size: int = 1,
    folder_fps: float = windows.BASE_FPS,
) -> Clip:
    """Frames by their numbers on the time axis of the file (`timeline.of`).

    Args:
        path, size, min_size, folder_fps: as `read` takes them.
        indices: numbers of frames, in any order, also several times.
        cover: (height, width): each frame is scaled down to just cover it (`windows.cover`).

    Returns:
        uint8 [T, H, W, 3], in the order of `indices`.

    Raises:
        UserError: as `read`, or a frame that does not decode.
    """
    path, indices = pathlib.Path(path), np.asarray(indices, np.int64)
    wanted, places = np.unique(indices, return_inverse=True)
    clip = first = None
    for number, frame in enumerate(_pictures(path, wanted.tolist(), folder_fps)):
        _check_size(path, frame, min_size)
        first = frame if first is None else first
        if frame.shape != first.shape and size is not None:
            sizes = f'{_size(first)} and {_size(frame)}'
            say_once(f'{path}: the frames have different sizes ({sizes}), each is fitted by itself')
        frame = frame if size is None else fit(frame[None], size)[0]
        frame = frame if cover is None else windows.cover(frame, cover)
        if clip is None:
            clip = np.empty((len(indices), *frame.shape), np.uint8)
        if frame.shape != clip.shape[1:]:
            raise UserError(
                f'{path}: the frames have different sizes ({_size(clip[0])} and {_size(frame)}); '
                'expected one size throughout'
            )
        clip[places == number] = frame
    return clip


def _pictures(path, wanted, folder_fps):
    """Yields the frames of these ascending numbers as they are shown."""
    found = folders.images(path).files if path.is_dir() else None
    line = None if found else timeline.of(path, folder_fps)
    count = len(found or line.times)
    if wanted[-1] >= count:
        raise UserError(
            f'{path}: {count} frames, but frame {wanted[-1]} is asked for; has the file changed?'
        )
    if found:
        yield from (shown.image(found[number]) for number in wanted)
        return
    with decoding.opened(path) as (_, stream):
        screen = shown.Screen(path, decoding.aspect(stream))
    done = 0
    # Where a seek lands is the container's business: if too late, go there from further back.
    before = [int(key) for key in line.keys if 0 < key <= wanted[0]] if len(line.pts) else []
    for key, careful in (*((key, False) for key in before[:-3:-1]), (None, False), (None, True)):
        for number, frame in timeline.numbered(path, line, key, careful):
            if number == wanted[done]:
                yield screen(frame)
                done += 1
            if done == len(wanted):
                return
            if number > wanted[done]:
                break
    raise Missing(
        f'{path}: the video is damaged, its frame {wanted[done]} of {len(line.times)} does not '
        'decode; leave it out or cut the damage away'
    )


def write(path: str | os.PathLike, frames: np.ndarray, fps: float) -> None:
    """Writes frames as `encode` makes an mp4 of them; folders above are made. The file is there
    complete or not at all.

    Raises:
        UserError: as `encode`, or a file that can't be written (a full disk, for one).
    """
    # Encoded in memory first, where it is far smaller than the frames.
    files.write_bytes(path, encode(frames, fps, path))


def encode(frames: np.ndarray, fps: float, name: str | os.PathLike = 'video') -> bytes:
    """Frames uint8 [T, H, W, 3], RGB, as an H.264 mp4 (yuv420p of BT.709, plays everywhere).

    That pixel format needs even sizes: an odd height or width is extended by repeating the last row
    or column.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames a second.
        name: what an error calls it.

    Raises:
        UserError: not uint8 [T, H, W, 3] with at least one frame, or a rate that is not positive.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise UserError(
            f'{name}: frames are {frames.dtype} {list(frames.shape)}, expected uint8 [T, H, W, 3], '
            'T > 0'
        )
    if not fps > 0:
        raise UserError(f'{name}: fps={fps}, the frame rate must be positive')
    height, width = frames.shape[1:3]
    encoded = io.BytesIO()
    with av.open(encoded, 'w', format='mp4') as container:
        stream = container.add_stream(
            'libx264',
            rate=fractions.Fraction(fps).limit_denominator(1000),
            options={'crf': '18', 'preset': 'medium'},
        )
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = 'yuv420p'
        coded = stream.codec_context
        coded.colorspace, coded.color_range = Colorspace.ITU709, ColorRange.MPEG
        coded.color_primaries, coded.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for frame in frames:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
            picture = av.VideoFrame.from_ndarray(frame, format='rgb24').reformat(
                format='yuv420p',
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                dst_color_primaries=ColorPrimaries.BT709,
                dst_color_trc=ColorTrc.BT709,
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return encoded.getvalue()


def context(
    clip: str | os.PathLike | np.ndarray,
    count: int,
    fps: float,
    size: tuple[int, int],
    start: float = 0.0,
    folder_fps: float = windows.BASE_FPS,
) -> Clip:
    """What a model looks at of a clip: uint8 [count, height, width, 3].

    Args:
        clip: a file or folder of images, of which the frames from `start` seconds on are taken at
            `fps`; or frames [T, H, W, 3] as `whole_numbers` takes them, of which the last are.
        folder_fps: the rate at which a folder of images was taken.

    Raises:
        UserError: a file that can't be read.
        ValueError: too few frames, of another kind, or a start of what is no file.
    """
    check_start(start)
    if isinstance(clip, str | os.PathLike):
        fit_to = dict(size=size, min_frames=count, folder_fps=folder_fps, unbroken=True)
        return read(clip, fps, start, count, **fit_to)
    if start:
        raise ValueError(
            f'start: {start:g} s, which is for a file; of frames the last {count} are the '
            'context: cut them, as in frames[:end]'
        )
    kind, clip = type(clip).__name__, np.asarray(clip)
    if clip.dtype.kind in 'OSU':
        raise ValueError(f'clip: expected a file, a folder of images or frames, got {kind}')
    if clip.ndim == 3 and clip.shape[-1] == 3:
        raise ValueError(
            f'clip: one picture {list(clip.shape)}, expected frames [time, height, width, 3]; '
            'a list is of clips: np.stack(pictures) makes one of pictures'
        )
    clip = whole_numbers(clip)
    if len(clip) < count:
        raise ValueError(
            f'clip: {len(clip)} frames, but {count} context frames are needed; give a longer clip'
        )
    return fit(clip[-count:], size)


def whole_numbers(frames: np.ndarray) -> Clip:
    """Frames [T, H, W, 3] as uint8: whole numbers from 0 to 255, or floats from 0 to 1.

    Raises:
        ValueError: another shape, or numbers out of range, which may mean anything.
    """
    problem = f'{frames.dtype} {list(frames.shape)}'
    if frames.ndim == 4 and frames.shape[-1] == 3 and frames.size:
        if frames.dtype == np.uint8:
            return frames
        low, high = frames.min(), frames.max()
        problem += f' from {low:.4g} to {high:.4g}'
        if np.issubdtype(frames.dtype, np.integer) and 0 <= low and high <= 255:
            return frames.astype(np.uint8)
        if np.issubdtype(frames.dtype, np.floating) and 0 <= low and high <= 1:
            return np.rint(255 * frames).astype(np.uint8)
    raise ValueError(
        'clip: expected frames [time, height, width, 3], whole numbers from 0 to 255 or floats '
        f'from 0 to 1, got {problem}'
    )


def fit(
    frames: UInt8[np.ndarray, 't h w 3'], size: tuple[int, int], min_size: int = 1
) -> UInt8[np.ndarray, 't h2 w2 3']:
    """Centre crop to the aspect of `size`, then antialiased bilinear resize.

    Args:
        frames: uint8 [T, H, W, 3].
        size: (height, width) in pixels.
        min_size: height and width of the given frames below this many pixels are an error.

    Returns:
        uint8 [T, height, width, 3]; the very same array where it has that size already.
    """
    _check_size('frames', frames[0], min_size)
    if min(size) < 1:
        raise UserError(f'size={tuple(size)}: expected a positive height and width')
    return windows.resize(frames, windows.centre_box(*frames.shape[1:3], size), size)


def _existing(path) -> pathlib.Path:
    if re.match(r'https?:/', str(path)):
        raise UserError(f'{path}: is an address; fetch the video, and give its file')
    path = pathlib.Path(path)
    if not (path.is_file() or path.is_dir()):
        what = 'no such file or folder'
        if path.is_fifo():
            what = 'is a pipe, which cannot be searched; write what comes out of it to a file'
        elif path.exists():
            what = 'is a device or a socket'
        elif path.is_symlink():
            what = f'is a link to {os.readlink(path)}, where nothing is'
        raise UserError(f'{path}: {what}; expected a video file or a folder of images')
    return path


def _size(frame) -> str:
    return f'{frame.shape[0]}x{frame.shape[1]}'


def _check_size(name, frame, least: int) -> None:
    if min(frame.shape[:2]) < least:
        raise UserError(
            f'{name}: frames of {_size(frame)} pixels, expected a height and width of at least '
            f'{least}'
        )


def check_start(start: float) -> None:
    """Checks that `start` is a time in seconds that a video can have.

    Raises:
        UserError: it is no number, negative, or above a million, which no file is long.
    """
    if not isinstance(start, numbers.Real):
        raise UserError(f'start={start!r}: expected seconds from the beginning of the video')
    if start < 0:
        raise UserError(f'start={start}: must not be negative')
    if not start <= 1e6:
        raise UserError(
            f'start={start}: expected seconds from the beginning of the video, at most a million'
        )


def fast_enough(fps: float, rate: float) -> bool:
    """Whether frames at `rate` a second give `fps` of them; 29.97 may pass for 30."""
    return fps <= rate * 1.01


def _check_rate(path, fps, rate: float) -> None:
    if fps is not None and not fast_enough(fps, rate):
        taken = ' (folder_fps)' if path.is_dir() else ''
        raise UserError(
            f'{path}: has {rate:g} frames per second{taken}, expected at least the {fps:.4g} that '
            'are asked for; give a faster video'
        )
