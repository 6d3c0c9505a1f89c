"""From noise at t = 0 to data at t = 1 along a path, on an even grid of times.

`velocity_fn(z [B, ...], t [B]) -> v [B, ...]`, the path's velocity (see flow.py). The loops are
`lax.scan`s, so compile time does not grow with the steps. ddpm's paths start not quite at pure
noise; as usual, sampling does [O].
"""

import jax
import jax.numpy as jnp

from re2pix_jax.generator import flow


def _times(z, index, steps):
    # A compiler may multiply by 1 / steps, and 3 times a rounded third is more than 1, where no
    # path is defined.
    return jnp.full(z.shape[:1], jnp.minimum(index / steps, 1.0), jnp.float32)


def _check(steps):
    if steps < 1:
        raise ValueError(f'sampler steps is {steps}; at least 1 is needed, 15 to 50 are usual')


def euler(velocity_fn, noise, steps, diffusion=flow.FLOW):
    """Euler's method, one evaluation a step [R]. Returns z at t = 1, shaped as `noise`; ValueError
    when steps < 1.
    """
    _check(steps)

    def step(z, index):
        t = _times(z, index, steps)
        return z + diffusion.at(t, z).rate * velocity_fn(z, t) / steps, None

    return jax.lax.scan(step, noise, jnp.arange(steps))[0]


def heun(velocity_fn, noise, steps, diffusion=flow.FLOW):
    """Heun's second-order method, two evaluations a step [O]. Returns z at t = 1; ValueError when
    steps < 1.

    The last step is Euler's, because a predicted x implies no velocity at t = 1.
    """
    _check(steps)

    def slope(z, index):
        t = _times(z, index, steps)
        return diffusion.at(t, z).rate * velocity_fn(z, t)

    def step(z, index):
        here = slope(z, index)
        there = slope(z + here / steps, index + 1)
        return z + (here + there) / (2 * steps), None

    z = jax.lax.scan(step, noise, jnp.arange(steps - 1))[0]
    return z + slope(z, steps - 1) / steps


def ddim(velocity_fn, noise, steps, diffusion=flow.FLOW):
    """DDIM without noise (Song et al., 2021), one evaluation a step [O]. Returns z at t = 1;
    ValueError when steps < 1.

    Each step goes to where the data and the noise that it sees would be mixed at the next time. On
    the straight path of rectified flow that is Euler's step.
    """
    _check(steps)

    def step(z, index):
        t, after = _times(z, index, steps), diffusion.at(_times(z, index + 1, steps), z)
        x, eps = flow.ends(velocity_fn(z, t), z, t, diffusion)
        return after.a * x + after.s * eps, None

    return jax.lax.scan(step, noise, jnp.arange(steps))[0]


SAMPLERS = {'euler': euler, 'heun': heun, 'ddim': ddim}


def find(method):
    """The sampler of that name; ValueError for another."""
    if method not in SAMPLERS:
        raise ValueError(f"sampler '{method}' is unknown; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[method]


def evaluations(method, steps, guidance=0.0):
    """How often the network denoises a sample, exactly; guidance doubles it. The context is seen
    once (twice) beside that.
    """
    find(method)
    _check(steps)
    return (2 * steps - 1 if method == 'heun' else steps) * (2 if guidance else 1)
