"""How far predicted features or principal components lie from the true ones, one number a frame."""

import functools

import jax
import jax.numpy as jnp

from re2pix_jax.forecaster import transformer

BETA = 0.1
"""Where SmoothL1 goes from quadratic to linear: stage 1's training loss uses the same. [R]"""


@functools.partial(jax.jit, static_argnames='beta')
def smooth_l1(prediction, truth, beta=BETA):
    """SmoothL1, mean over a frame's grid and channels: 0.5 d^2 / beta below |d| = beta, |d| - beta
    / 2 above.

    Args:
        prediction, truth: float [..., h, w, P].

    Returns:
        float32 [...].
    """
    return transformer.smooth_l1(prediction, truth, beta).mean(axis=(-3, -2, -1))


@jax.jit
def cosine(prediction, truth):
    """Cosine similarity along the channels, mean over a frame's grid.

    Args:
        prediction, truth: float [..., h, w, C]; a vector of zeros has similarity 0 with everything.

    Returns:
        float32 [...] in [-1, 1].
    """
    prediction, truth = prediction.astype(jnp.float32), truth.astype(jnp.float32)
    norms = jnp.linalg.norm(prediction, axis=-1) * jnp.linalg.norm(truth, axis=-1)
    return ((prediction * truth).sum(-1) / jnp.maximum(norms, 1e-12)).mean(axis=(-2, -1))
