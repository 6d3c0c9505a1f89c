"""What the frozen encoder says of a frame and of a short video, in few numbers: between these a
Fréchet distance is always to be had.

A covariance of D dimensions takes more than D samples, and an evaluation has some hundred clips. So
descriptors are small: 64 numbers a frame, 128 a window of four frames. [O]
"""

import jax.numpy as jnp

FRAME_COMPONENTS = 32
WINDOW = 4
VIDEO_COMPONENTS = 8
VIDEO_CELLS = 2


def of_frames(components):
    """Mean and deviation over the frame of the 32 leading principal components: what is there, and
    how varied it is. [O]

    A blurred or empty frame has the right means and too small deviations.

    Args:
        components: float [B, T, h, w, P].

    Returns:
        float32 [B, T, D], D = 64 (less where P is below 32).
    """
    leading = components[..., :FRAME_COMPONENTS].astype(jnp.float32)
    return jnp.concatenate([leading.mean((2, 3)), leading.std((2, 3))], axis=-1)


def of_videos(components):
    """Of every window of four successive frames: each frame, and how much it differs from the one
    before it. [O]

    Of the 8 leading components, on the left and the right half of the frame, two numbers are taken:
    the mean, and the mean of the *absolute* change of every place since the frame before. Four
    frames give 4 x 2 x 8 x 2 = 128 numbers in order of time. Drift moves the means and their
    covariance over time; jitter and flicker enlarge the changes, a frozen or blurred video shrinks
    them: changes that cancel over the frame, as those of small things do, still count, because
    signs are dropped first. Windows follow each other without overlap (the last one overlaps where
    four does not divide the length), so the dimension does not grow with the horizon and longer
    videos give more samples.

    Args:
        components: float [B, 1 + T, h, w, P]: the last context frame, from which the first one
            changes, and T frames.

    Returns:
        float32 [B, windows, D], windows = ceil(T / 4), D = 128 (less where T < 4, P < 8 or w = 1).
    """
    leading = components[..., :VIDEO_COMPONENTS].astype(jnp.float32)
    values = jnp.concatenate(
        [_cells(leading[:, 1:]), _cells(jnp.abs(jnp.diff(leading, axis=1)))], axis=-1
    )
    batch, time = values.shape[:2]
    return jnp.stack(
        [values[:, start:end].reshape(batch, -1) for start, end in windows(time)], axis=1
    )


def by_window(features, clip):
    """What a network of pixels says of the same windows, each with the frame before it.

    Args:
        features: clips [N, 1 + WINDOW, H, W, 3] → [N, D].
        clip: [B, 1 + T, H, W, 3]: the last context frame, and T frames.

    Returns:
        [B, windows, D].
    """
    return jnp.stack(
        [features(clip[:, start : end + 1]) for start, end in windows(clip.shape[1] - 1)], axis=1
    )


def windows(time) -> list[tuple[int, int]]:
    """(first frame, the one after the last) of each window of `of_videos` in `time` frames."""
    length = min(WINDOW, time)
    return [
        (end - length, end)
        for end in (min(start + length, time) for start in range(0, time, length))
    ]


def _cells(maps):
    """[B, T, h, w, C] -> [B, T, cells * C]: means over the left and the right part."""
    width = maps.shape[3]
    bounds = (
        [width * cell // VIDEO_CELLS for cell in range(VIDEO_CELLS + 1)]
        if width >= VIDEO_CELLS
        else [0, width]
    )
    return jnp.concatenate(
        [maps[:, :, :, left:right].mean((2, 3)) for left, right in zip(bounds, bounds[1:])], axis=-1
    )
