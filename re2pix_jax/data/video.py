"""Video files and image folders: read at a wanted frame rate, write as H.264 mp4.

Reading is streamed: only the frames that are asked for are kept (and fitted to the wanted size one
at a time), so memory grows with the result and not with the file.
"""

import fractions
import io
import itertools
import os
import pathlib
from typing import NamedTuple

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from re2pix_jax import files
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError

IMAGE_ENDINGS = ('.png', '.jpg', '.jpeg')
VIDEO_ENDINGS = ('.mp4', '.mov', '.mkv', '.avi', '.webm', '.m4v')


class Probe(NamedTuple):
    """What a video says of itself: Hz, frames, pixels."""

    fps: float
    frames: int
    height: int
    width: int


def images(path: str | os.PathLike) -> list[pathlib.Path]:
    """The png and jpg files of a folder, sorted by name (hidden files left out)."""
    found = sorted(
        p
        for p in pathlib.Path(path).iterdir()
        if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith('.')
    )
    if not found:
        raise UserError(
            f'{path}: the folder holds no images, expected .png or .jpg frames, their names in '
            'order'
        )
    return found


def probe(path: str | os.PathLike, folder_fps: float = windows.BASE_FPS) -> Probe:
    """Frame rate (Hz), number of frames, height and width (pixels) of a video file or a folder of
    images (taken to run at `folder_fps`).

    Raises:
        UserError: no such file, not a video, no frame rate in the file, a folder without images.
    """
    path = _existing(path)
    if path.is_dir():
        found = images(path)
        width, height = _open_image(found[0]).size
        return Probe(float(folder_fps), len(found), height, width)
    with _open_video(path) as container:
        stream = container.streams.video[0]
        fps = _rate(path, stream)
        # Some containers do not say how many frames they hold: count packets, which needs no
        # decoding.
        frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        return Probe(fps, frames, stream.height, stream.width)


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
) -> UInt8[np.ndarray, 't h w 3']:
    """Frames of a video file or of a folder of images.

    Args:
        path: a video file, or a folder of .png/.jpg frames in the order of their sorted names.
        fps: wanted frame rate in Hz: for every wanted time the frame nearest to it is taken. None:
            every frame.
        start: time of the first frame in seconds from the beginning.
        max_frames: stop after so many frames. None: read to the end.
        size: (height, width): each frame is fitted to it (see `fit`) as it is read.
        min_frames: fewer frames than this are an error.
        min_size: height and width below this many pixels are an error.
        folder_fps: the rate at which a folder of images was taken.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        UserError: no such file, not a video, no frame rate in the file, a folder without images, a
            source slower than `fps`, fewer than `min_frames` frames, or frames that are too small.
    """
    path = _existing(path)
    if fps is not None and fps <= 0:
        raise UserError(f'fps={fps}: the frame rate must be positive')
    check_start(start)
    if max_frames is not None and max_frames < 1:
        raise UserError(f'max_frames={max_frames}: must be at least 1')
    frames = []
    for frame in _wanted(path, fps, start, max_frames, folder_fps):
        if frames and size is None and frame.shape != frames[0].shape:
            raise UserError(
                f'{path}: the frames have different sizes ({_size(frames[0])} and {_size(frame)}); '
                'expected one size throughout, or ask for a size to fit them to'
            )
        _check_size(path, frame, min_size)
        frames.append(frame if size is None else fit(frame[None], size)[0])
    if len(frames) < max(min_frames, 1):
        rate = '' if fps is None else f' at {fps:g} frames per second'
        after = f' from {start:g} s on' if start else ''
        raise UserError(
            f'{path}: {len(frames)} frames{rate}{after}, expected at least {max(min_frames, 1)}; '
            'give a longer clip'
        )
    return np.stack(frames)


def write(path: str | os.PathLike, frames: np.ndarray, fps: float) -> None:
    """Writes frames uint8 [T, H, W, 3] as an H.264 mp4 (yuv420p, plays everywhere).

    That pixel format needs even sizes: an odd height or width is extended by repeating the last row
    or column. The file is there complete or not at all.

    Args:
        path: of the file; folders above are made.
        frames: uint8 [T, H, W, 3], RGB.
        fps: frames a second.

    Raises:
        UserError: not uint8 [T, H, W, 3] with at least one frame, a rate that is not positive, or a
            file that can't be written (a full disk, for one).
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise UserError(
            f'{path}: frames are {frames.dtype} {list(frames.shape)}, expected uint8 [T, H, W, '
            '3], T > 0'
        )
    if not fps > 0:
        raise UserError(f'{path}: fps={fps}, the frame rate must be positive')
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
        for frame in frames:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))
    # Encoded in memory first, where it is far smaller than the frames.
    files.write_bytes(path, encoded.getbuffer())


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
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(
            f'{path}: no such file or folder, expected a video file or a folder of images'
        )
    return path


def _size(frame) -> str:
    return f'{frame.shape[0]}x{frame.shape[1]}'


def _check_size(name, frame, least: int) -> None:
    if min(frame.shape[:2]) < least:
        raise UserError(
            f'{name}: frames of {_size(frame)} pixels, expected a height and width of at least '
            f'{least}'
        )


def _open_image(path) -> Image.Image:
    try:
        return Image.open(path)
    except OSError as error:
        raise UserError(f'{path}: not a readable image ({_reason(error)})') from error


def _open_video(path):
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise UserError(
            f'{path}: not a readable video ({_reason(error)}), expected a file such as mp4'
        ) from error
    if not container.streams.video:
        container.close()
        raise UserError(f'{path}: the file holds no video stream, expected a video such as mp4')
    return container


def _reason(error) -> str:
    return ' '.join(str(getattr(error, 'strerror', None) or error).split())


def _rate(path, stream) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate:
        raise UserError(
            f'{path}: the file states no frame rate; write it again with one, for instance ffmpeg '
            '-r 17'
        )
    return float(rate)


def check_start(start: float) -> None:
    """Checks that `start` is a time in seconds that a video can have.

    Raises:
        UserError: it is negative, or above a million, which no file is long.
    """
    if start < 0:
        raise UserError(f'start={start}: must not be negative')
    if not start <= 1e6:
        raise UserError(
            f'start={start}: expected seconds from the beginning of the video, at most a million'
        )


def _wanted(path, fps, start, max_frames, folder_fps):
    """Yields the wanted frames uint8 [H, W, 3] of a file or folder, converting none but these to
    RGB.
    """
    if path.is_dir():
        found = images(path)
        _check_rate(path, fps, folder_fps)
        timed = ((index / folder_fps, file) for index, file in enumerate(found))
        return (
            np.asarray(_decode_image(file))
            for file in _nearest(timed, folder_fps, fps, start, max_frames)
        )
    return _wanted_of_video(path, fps, start, max_frames)


def _wanted_of_video(path, fps, start, max_frames):
    with _open_video(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = 'AUTO'
        rate = _rate(path, stream)
        _check_rate(path, fps, rate)
        first = (stream.start_time or 0) * stream.time_base
        if start > 0:
            # Goes to the key frame before.
            wanted = first + fractions.Fraction(start)
            container.seek(int(wanted / stream.time_base), stream=stream)
        decoded = _decoded(path, container, stream)
        timed = ((float(frame.time - first), frame) for frame in decoded if frame.time is not None)
        for frame in _nearest(timed, rate, fps, start, max_frames):
            yield frame.to_ndarray(format='rgb24')


def _decoded(path, container, stream):
    try:
        yield from container.decode(stream)
    except av.error.FFmpegError as error:
        raise UserError(f'{path}: the video is damaged ({_reason(error)})') from error


def _decode_image(file) -> Image.Image:
    try:
        return _open_image(file).convert('RGB')
    except OSError as error:
        raise UserError(f'{file}: not a readable image ({_reason(error)})') from error


def _check_rate(path, fps, rate: float) -> None:
    if fps is not None and fps > rate * 1.01:  # 29.97 may pass for 30
        raise UserError(
            f"{path}: has {rate:g} frames per second, a frame rate that the stride can't be made "
            'from: '
            f'expected at least {fps:.4g}; give a faster video or a larger stride'
        )


def _nearest(timed, rate: float, fps, start: float, max_frames):
    """From (time, item) in order, the items nearest to start, start + 1/fps, ... (fps None: all
    from `start` on).
    """
    half = 0.5 / rate
    if fps is None:
        later = (item for time, item in timed if time > start - half)
        yield from itertools.islice(later, max_frames)
        return
    count, before = 0, None
    for time, item in timed:
        while start + count / fps <= time:
            closer = before is not None and start + count / fps - before[0] < time - (
                start + count / fps
            )
            yield before[1] if closer else item
            count += 1
            if count == max_frames:
                return
        before = (time, item)
    if before is not None and start + count / fps - before[0] < half:
        yield before[1]
