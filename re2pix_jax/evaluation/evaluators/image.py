"""PSNR and SSIM of 8-bit frames, one number a frame."""

import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans
from re2pix_jax.nn.sums import total

CEILING = 100.0
"""PSNR in dB that equal frames are given, so that a mean over frames stays finite. [O]"""

WINDOW = 11
SIGMA = 1.5
_K1, _K2, _PEAK = 0.01, 0.03, 255.0


def _check(prediction, truth):
    if prediction.shape != truth.shape or prediction.shape[-1] != 3 or prediction.ndim < 3:
        raise ValueError(
            f'expected two arrays [..., H, W, 3] of one shape, got {prediction.shape} and '
            f'{truth.shape}'
        )
    if prediction.dtype != np.uint8 or truth.dtype != np.uint8:
        raise ValueError(f'expected uint8 frames, got {prediction.dtype} and {truth.dtype}')


@jax.jit
def _psnr(prediction, truth):
    # Squares are summed without losing digits: a mean of millions would be off in the third.
    squares = jnp.square(prediction.astype(jnp.float32) - truth.astype(jnp.float32))
    high, low = total(squares, (-3 % squares.ndim, -2 % squares.ndim, -1 % squares.ndim))
    error = (high + low) / math.prod(squares.shape[-3:])
    return 10 * jnp.log10(_PEAK**2 / jnp.maximum(error, _PEAK**2 / 10 ** (CEILING / 10)))


def psnr(prediction, truth):
    """Peak signal-to-noise ratio in dB, peak 255, the squared error averaged over a frame's pixels
    and RGB channels.

    A set's PSNR is the mean of its frames' PSNRs, not the PSNR of their mean error.

    Args:
        prediction, truth: uint8 [..., H, W, 3].

    Returns:
        float32 [...], at most `CEILING`, which equal frames get.
    """
    _check(prediction, truth)
    return _psnr(jnp.asarray(prediction), jnp.asarray(truth))


def _window():
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (distance / SIGMA) ** 2)
    return weights / weights.sum()


def _blur(image):
    """Gaussian mean of [..., H, W, C] at the places where the whole window lies inside: [..., H-10,
    W-10, C].
    """
    for axis in (-3, -2):
        length = image.shape[axis] - WINDOW + 1
        image = sum(
            float(weight) * jax.lax.slice_in_dim(image, k, k + length, axis=image.ndim + axis)
            for k, weight in enumerate(_window())
        )
    return image


@jax.jit
def _ssim(prediction, truth):
    # Second moments are taken about mid-grey: in float32 about zero, a bright flat region would
    # lose its variance.
    centre = 127.5
    x, y = (jnp.asarray(frames, jnp.float32) - centre for frames in (prediction, truth))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + centre, mean_y + centre
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.mean(axis=(-3, -2, -1))


def ssim(prediction, truth):
    """Structural similarity (Wang et al., 2004): Gaussian window 11 x 11 with sigma 1.5, K1 0.01,
    K2 0.03, range 255.

    Taken on each RGB channel and averaged over channels and over the places where the whole window
    lies inside the frame, with population covariances: what scikit-image gives for
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.

    Args:
        prediction, truth: uint8 [..., H, W, 3], H and W at least 11.

    Returns:
        float32 [...], 1 for equal frames.
    """
    _check(prediction, truth)
    if min(prediction.shape[-3:-1]) < WINDOW:
        raise ValueError(
            f'SSIM needs frames of at least {WINDOW}x{WINDOW} pixels, got {prediction.shape[-3:-1]}'
        )
    return _ssim(prediction, truth)


@flax.struct.dataclass
class ImageErrors(FrameMeans):
    """PSNR and SSIM so far."""

    NAMES: ClassVar = ('psnr', 'ssim')

    def update(self, truth, prediction, known):
        """Adds frames uint8 [B, H, W, 3], those that are `known` [B]."""
        values = {'psnr': psnr(prediction, truth), 'ssim': ssim(prediction, truth)}
        return self.add(values, known.astype(jnp.int32))


class Image(Evaluator):
    """Frames against the true ones, pixel by pixel."""

    COLUMNS = (
        Column('psnr', 'PSNR dB', higher=True, digits=2),
        Column('ssim', 'SSIM', higher=True),
    )

    def measure(self, parts, view, views, batch):
        truth = views['truth'].frames
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        return by_step(ImageErrors.empty().update, truth, view.frames, known)
