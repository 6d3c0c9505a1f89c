"""From a long clip to a training window: stride, start, crop, flip. numpy only.

Strides count frames at 17 Hz, the rate of Cityscapes, whatever the rate of the video: stride 3 is
3/17 s. A video of another rate gets the native stride nearest to that, so that the frames of a
window stay evenly spaced [O]. Where `fps` is None they count native frames, as published [R]:
stride 3 is a quarter of a second of nuScenes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped, UInt8
from PIL import Image

from re2pix_jax.errors import UserError

BASE_FPS = 17.0
STRIDE = 3  # of evaluation: 0.18 s a step [R]
TERMS = {'short': 1, 'mid': 3, 'long': 6}
"""Steps from the last context frame to the evaluated one. [R]"""

Frames = UInt8[np.ndarray, 't h w 3'] | list[Image.Image]
"""Of one clip; as Pillow's images what a crop cuts away is never copied."""
Indices = Int64[np.ndarray, ' t']
Size = tuple[int, int]


class Box(NamedTuple):
    """A rectangle of pixels inside a frame."""

    top: int
    left: int
    height: int
    width: int


def generator(seed: int, epoch: int, record: int) -> np.random.Generator:
    """The random numbers of a record in an epoch: the same on every host, in every worker, after a
    restart.
    """
    return np.random.default_rng([seed, epoch, record])


def native_stride(stride: int, fps: float | None) -> int:
    """Frames to step in a video of `fps` for `stride` frames at 17 Hz, rounded to the nearest; for
    None `stride` itself.

    Raises:
        UserError: the video is too slow: even neighbouring frames are more than a third further
            apart than the stride asks.
    """
    if fps is None:
        return stride
    wanted = stride * fps / BASE_FPS
    if wanted < 0.75:
        raise UserError(
            f"{fps:g} frames per second is a frame rate that the stride can't be made from: "
            f'stride {stride} means {BASE_FPS / stride:.3g}; give a larger stride or a faster video'
        )
    return max(1, int(np.floor(wanted + 0.5)))


def span(frames: int, stride: int, fps: float | None) -> int:
    """Native frames from the first to the last of a window, both counted."""
    return (frames - 1) * native_stride(stride, fps) + 1


def fitting(
    num_frames: int, fps: float | None, frames: int, strides: Sequence[int]
) -> tuple[int, ...]:
    """Those of `strides` at which a window of `frames` fits into `num_frames` native frames."""
    return tuple(stride for stride in strides if span(frames, stride, fps) <= num_frames)


def window(
    rng: np.random.Generator,
    num_frames: int,
    fps: float | None,
    frames: int,
    strides: Sequence[int],
) -> Indices:
    """A random window: the stride uniform over those of `strides` that fit, the start uniform. [R:
    stride of {2, 3, 4}]

    Returns:
        Indices of native frames.

    Raises:
        UserError: no stride fits.
    """
    choice = fitting(num_frames, fps, frames, strides)
    if not choice:
        raise UserError(_too_short(num_frames, fps, frames, min(strides)))
    stride = choice[rng.integers(len(choice))]
    start = rng.integers(num_frames - span(frames, stride, fps) + 1)
    return start + native_stride(stride, fps) * np.arange(frames)


def evaluation_window(
    num_frames: int, fps: float | None, frames: int, stride: int, start: int = 0
) -> Indices:
    """The fixed window for evaluation, from native frame `start` on.

    Raises:
        UserError: the window does not fit.
    """
    if start + span(frames, stride, fps) > num_frames:
        raise UserError(_too_short(num_frames, fps, frames, stride, start))
    return start + native_stride(stride, fps) * np.arange(frames)


def target_window(target: int, frames: int, stride: int) -> Indices:
    """The window of the evaluation protocol, which ends at the native frame `target`.

    The stride counts native frames, whatever their rate: 3 for Cityscapes, nuScenes and CoVLA
    alike. [R]

    Raises:
        UserError: the window would begin before the clip.
    """
    window = target + stride * np.arange(1 - frames, 1)
    if window[0] < 0:
        raise UserError(
            f'{frames} frames at stride {stride} that end at frame {target} would begin at '
            f'{window[0]}; ask for fewer frames (a shorter term)'
        )
    return window


def random_target_window(
    rng: np.random.Generator, target: int, frames: int, strides: Sequence[int]
) -> Indices:
    """`target_window` with a stride drawn uniformly from those of `strides` that fit."""
    choice = fitting(target + 1, None, frames, strides)
    return target_window(
        target, frames, choice[rng.integers(len(choice))] if choice else min(strides)
    )


def crop(
    rng: np.random.Generator, height: int, width: int, size: Size, scale: tuple[float, float]
) -> Box:
    """A random box of the aspect of `size`, anywhere in the frame. [R]

    Args:
        rng: draws the factor and the place.
        height, width: of the frame.
        size: (height, width) that the box will be resized to.
        scale: (lo, hi); the sides are those of the largest such box times a factor drawn uniformly
            from there.
    """
    largest = centre_box(height, width, size)
    factor, down, right = rng.uniform(*scale), rng.random(), rng.random()
    tall, wide = max(1, round(largest.height * factor)), max(1, round(largest.width * factor))
    return Box(int(down * (height - tall + 1)), int(right * (width - wide + 1)), tall, wide)


def centre_box(height: int, width: int, size: Size) -> Box:
    """The largest box of the aspect of `size` (height, width), in the middle of a frame."""
    scale = min(height / size[0], width / size[1])
    tall = min(height, max(1, round(size[0] * scale)))
    wide = min(width, max(1, round(size[1] * scale)))
    return Box((height - tall) // 2, (width - wide) // 2, tall, wide)


def resize(frames: Frames, box: Box, size: Size) -> UInt8[np.ndarray, 't h2 w2 3']:
    """Cuts `box` out of frames; bilinear with antialias to `size`, (height, width)."""
    same = (box.height, box.width) == tuple(size)  # no resampling: the pixels themselves
    if same and isinstance(frames, np.ndarray):
        return _cut(frames, box)
    resized = np.empty((len(frames), *size, 3), np.uint8)
    for place, frame in zip(resized, frames):
        image = (
            frame
            if isinstance(frame, Image.Image)
            else Image.fromarray(np.ascontiguousarray(frame))
        )
        # Cut first: the `box` of Image.resize lets pixels from outside of it into its margin.
        image = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        place[:] = np.asarray(
            image if same else image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
    return resized


def sides(frames: Frames) -> Size:
    """(height, width) of frames as `resize` takes them."""
    return frames.shape[1:3] if isinstance(frames, np.ndarray) else frames[0].size[::-1]


def pick(
    values: Shaped[np.ndarray, 't h w'], box: Box, size: Size
) -> Shaped[np.ndarray, 't h2 w2']:
    """Like `resize` but nearest, for what must not be blended: labels and depth."""
    if (box.height, box.width) == tuple(size):
        return _cut(values, box)
    rows = box.top + ((np.arange(size[0]) + 0.5) * box.height / size[0]).astype(np.int64)
    columns = box.left + ((np.arange(size[1]) + 0.5) * box.width / size[1]).astype(np.int64)
    return values[:, rows[:, None], columns]


def apply(
    clip: dict, box: Box, size: Size, flip: bool = False, label_size: Size | None = None
) -> dict[str, np.ndarray]:
    """The same box and flip for all of a clip.

    Args:
        clip: 'frames', and 'labels' and 'depth' where there are any. These may have more pixels:
            the box is scaled to theirs.
        box: in pixels of the frames.
        size: (height, width) that frames come at.
        flip: from left to right.
        label_size: (height, width) that labels and depth come at; `size` without it.
    """
    height, width = sides(clip['frames'])
    changed = {}
    for name, values in clip.items():
        if name == 'frames':
            changed[name] = resize(values, box, size)
        else:
            down, right = values.shape[1] / height, values.shape[2] / width
            scaled = Box(
                *(round(side * scale) for side, scale in zip(box, (down, right, down, right)))
            )
            changed[name] = pick(values, scaled, label_size or size)
    return {name: values[:, :, ::-1] for name, values in changed.items()} if flip else changed


def cover(frame: UInt8[np.ndarray, 'h w 3'], size: Size) -> UInt8[np.ndarray, 'h2 w2 3']:
    """Scales a frame down, keeping its aspect, until it just covers `size`; never
    up.
    """
    scale = max(size[0] / frame.shape[0], size[1] / frame.shape[1])
    if scale >= 1:
        return frame
    wanted = (
        max(size[0], round(frame.shape[0] * scale)),
        max(size[1], round(frame.shape[1] * scale)),
    )
    return resize(frame[None], Box(0, 0, *frame.shape[:2]), wanted)[0]


def _cut(values, box):
    if values.shape[1:3] == (box.height, box.width):
        return values
    return values[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _too_short(num_frames, fps, frames, stride, start=0):
    rate = f' at {fps:g} frames per second' if fps else ''
    return (
        f'{num_frames} frames{rate} are too few: {frames} frames at stride {stride} need '
        f'{start + span(frames, stride, fps)}; ask for fewer frames, a smaller stride or longer '
        'clips'
    )
