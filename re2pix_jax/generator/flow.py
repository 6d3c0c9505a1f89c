"""Diffusion in parts: the path between noise and data, what the network predicts, at which times,
and the loss.

Time runs from noise (t = 0) to data (t = 1), one scalar per sample. A point z of the path mixes
data x with noise eps, and its velocity v points to the data:

    z = a x + s eps,    v = p x + q eps,    p s - q a = 1,    so x = s v - q z,  eps = p z - a v

    path   a                         s              p, q    dz/dt
    flow   t                         1 - t          1, -1   v
    ddpm   from 0 to 1 by schedule   sqrt(1 - a^2)  s, -a   rate v

flow is rectified flow, the authors' later model [R]; ddpm preserves the variance, its v is minus
that of Salimans and Ho (2022).

Whatever the network predicts is turned into v at once; samplers and losses know nothing else. The
default is rectified flow whose network predicts x and is trained on the velocity this implies [R];
the rest are options [O].
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

CLAMP = 0.05  # of what flow's velocity is divided by [R]
TINY = 1e-4  # ddpm's schedules stay away from both ends; this is for rounding

# sigmoid(N(-2, 1.5^2)): the time distribution of the authors' later flow model [R]
TIME_MEAN, TIME_STD = -2.0, 1.5


class Coefficients(NamedTuple):
    """a, s, p, q and rate (see above) at given times; numbers, or arrays shaped like the times."""

    a: Any
    s: Any
    p: Any
    q: Any
    rate: Any


def straight(t):
    """The path of rectified flow."""
    return Coefficients(a=t, s=1.0 - t, p=1.0, q=-1.0, rate=1.0)


def linear(t):
    """DDPM's 1000 steps of noise, variances from 1e-4 to 0.02 (Ho et al., 2020), in continuous
    time: a = 0.007 at t = 0.
    """
    first, last = 0.1, 20.0
    growth = last + (first - last) * t  # of the noise: -2 d log a / d(1 - t)
    log_a = -0.25 * (1.0 - t) * (first + growth)
    a, s = jnp.exp(log_a), jnp.sqrt(-jnp.expm1(2.0 * log_a))
    return Coefficients(a, s, p=s, q=-a, rate=0.5 * growth * a / jnp.maximum(s, TINY))


def cosine(t):
    """The cosine schedule (Nichol and Dhariwal, 2021): a quarter turn at an even rate, less 0.02,
    so that a = 0.02 at t = 0 [O].
    """
    rate = math.pi / 2 - 0.02
    a, s = jnp.cos((1.0 - t) * rate), jnp.sin((1.0 - t) * rate)
    return Coefficients(a, s, p=s, q=-a, rate=rate)


SCHEDULES = {'linear': linear, 'cosine': cosine}
TIMES = ('logit_normal', 'uniform')
CHOICES = {'path': ('flow', 'ddpm'), 'target': ('x', 'v', 'epsilon'), 'schedule': tuple(SCHEDULES)}


class Diffusion(NamedTuple):
    """How a generator was trained; static.

    path: 'flow' or 'ddpm'. target: what the network predicts, 'x', 'v' or 'epsilon'. schedule:
        'linear' or 'cosine', of ddpm alone.
    """

    path: str = 'flow'
    target: str = 'x'
    schedule: str = 'linear'

    def check(self):
        """Raises ValueError for an unknown name."""
        for field, known in CHOICES.items():
            if getattr(self, field) not in known:
                raise ValueError(
                    f"diffusion {field} '{getattr(self, field)}' is unknown; choose one of "
                    f'{", ".join(known)}'
                )

    def at(self, t, like):
        """Coefficients at times t [B] or [B, T], shaped to go with `like` [B, ...]."""
        t = t.reshape(t.shape + (1,) * (like.ndim - t.ndim))
        return straight(t) if self.path == 'flow' else SCHEDULES[self.schedule](t)


FLOW = Diffusion()


def check_times(distribution: str) -> None:
    """Raises ValueError for a distribution of times that `sample_time` does not know."""
    if distribution not in TIMES:
        raise ValueError(
            f"time distribution '{distribution}' is unknown; choose one of {', '.join(TIMES)}"
        )


def sample_time(
    key: Key[Array, ''],
    shape: tuple[int, ...],
    mean: float = TIME_MEAN,
    std: float = TIME_STD,
    distribution: str = 'logit_normal',
) -> Float[Array, '...']:
    """Times in (0, 1), float32 of `shape`: sigmoid(N(mean, std^2)), or 'uniform' ones, which need
    neither mean nor std.
    """
    check_times(distribution)
    if distribution == 'uniform':
        return jax.random.uniform(key, shape)
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def interpolate(
    x: Float[Array, '...'],
    eps: Float[Array, 'B ...'],
    t: Float[Array, 'B ...'],
    diffusion: Diffusion = FLOW,
) -> Float[Array, 'B ...']:
    """The point z of the path at times t [B], or [B, T] of frames; x and eps [B, ...]."""
    path = diffusion.at(t, x)
    return path.a * x + path.s * eps


def velocity(
    prediction: Float[Array, 'B ...'],
    z: Float[Array, 'B ...'],
    t: Float[Array, ' B'],
    diffusion: Diffusion = FLOW,
) -> Float[Array, 'B ...']:
    """The velocity v that a prediction [B, ...] of x, v or epsilon implies at the point z [B, ...]
    and times t [B].

    For flow, what it is divided by is kept from falling below 0.05.
    """
    path, clamp = diffusion.at(t, z), CLAMP if diffusion.path == 'flow' else TINY
    if diffusion.target == 'x':
        return (prediction + path.q * z) / jnp.maximum(path.s, clamp)
    if diffusion.target == 'epsilon':
        return (path.p * z - prediction) / jnp.maximum(path.a, clamp)
    return prediction


def ends(
    v: Float[Array, 'B ...'],
    z: Float[Array, 'B ...'],
    t: Float[Array, ' B'],
    diffusion: Diffusion = FLOW,
) -> tuple[Float[Array, 'B ...'], Float[Array, 'B ...']]:
    """The data and the noise (x, eps), [B, ...] each, between which z moves with velocity v at
    times t [B].
    """
    path = diffusion.at(t, z)
    return path.s * v - path.q * z, path.p * z - path.a * v


def loss(
    prediction: Float[Array, 'B ...'],
    x: Float[Array, '...'],
    eps: Float[Array, 'B ...'],
    z: Float[Array, 'B ...'],
    t: Float[Array, ' B'],
    diffusion: Diffusion = FLOW,
) -> Float[Array, '']:
    """Mean squared error, a float32 scalar: of the implied velocity for flow [R], of what is
    predicted for ddpm.

    Of flow only the implied velocity is clamped: it is what the sampler integrates, so it is what
    must come out as x - eps, also in the last 5 % of the path, where a prediction of x is then not
    x itself but a little beyond it (and one of epsilon in the first 5 %).
    """
    prediction, path = prediction.astype(jnp.float32), diffusion.at(t, x)
    v = path.p * x + path.q * eps
    if diffusion.path == 'flow':
        return jnp.mean(jnp.square(velocity(prediction, z, t, diffusion) - v))
    return jnp.mean(jnp.square(prediction - {'x': x, 'v': v, 'epsilon': eps}[diffusion.target]))
