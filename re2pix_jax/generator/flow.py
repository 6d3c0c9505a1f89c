"""Rectified flow: the straight path from noise (t = 0) to data (t = 1), x-prediction, velocity loss.

    z_t = t x + (1 - t) eps,    dz/dt = x - eps = (x - z_t) / (1 - t)

The network predicts x; its implied velocity is what is trained and what samplers integrate, both with (1 - t) clamped
from below at 0.05, as in the authors' later flow model [R]. t is one scalar per sample.
"""

import jax
import jax.numpy as jnp

CLAMP = 0.05
# sigmoid(N(-2, 1.5^2)): the time distribution of the authors' later flow model [R]
TIME_MEAN, TIME_STD = -2.0, 1.5


def sample_time(key, shape, mean=TIME_MEAN, std=TIME_STD):
    """Logit-normal times in (0, 1), float32 of `shape`."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def _broadcast(t, like):
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(x, eps, t):
    """The point z_t of the path; x and eps [B, ...], t [B]."""
    t = _broadcast(t, x)
    return t * x + (1.0 - t) * eps


def velocity(prediction, z_t, t, clamp=CLAMP):
    """The velocity that a prediction of x implies at z_t: (prediction - z_t) / max(1 - t, clamp)."""
    return (prediction - z_t) / jnp.maximum(1.0 - _broadcast(t, z_t), clamp)


def loss(prediction, x, eps, z_t, t, clamp=CLAMP):
    """Mean squared error between the implied and the true velocity, a float32 scalar.

    Only the implied velocity is clamped: it is what the sampler integrates, so it is what must come out as x - eps,
    also in the last 5 % of the path, where the prediction is then not x itself but a little beyond it.
    """
    implied = velocity(prediction.astype(jnp.float32), z_t, t, clamp)
    return jnp.mean(jnp.square(implied - (x - eps)))
