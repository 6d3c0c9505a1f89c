"""Integrators of dz/dt = velocity(z, t) from noise at t = 0 to data at t = 1, on an even grid of times.

`velocity_fn(z [B, ...], t [B]) -> [B, ...]`. The loops are `lax.scan`s, so compile time does not grow with the steps.
"""

import jax
import jax.numpy as jnp

from re2pix_jax.errors import UserError


def _times(z, index, steps):
    return jnp.full(z.shape[:1], index / steps, jnp.float32)


def _check(steps):
    if steps < 1:
        raise UserError(f'sampler steps is {steps}; at least 1 is needed, 15 to 50 are usual')


def euler(velocity_fn, noise, steps):
    """Euler's method, one evaluation a step [R]. Returns z at t = 1, shaped as `noise`; UserError when steps < 1."""
    _check(steps)

    def step(z, index):
        return z + velocity_fn(z, _times(z, index, steps)) / steps, None

    return jax.lax.scan(step, noise, jnp.arange(steps))[0]


def heun(velocity_fn, noise, steps):
    """Heun's second-order method, two evaluations a step [O]. Returns z at t = 1; UserError when steps < 1.

    The last step is Euler's, because a predicted x implies no velocity at t = 1.
    """
    _check(steps)

    def step(z, index):
        here = velocity_fn(z, _times(z, index, steps))
        there = velocity_fn(z + here / steps, _times(z, index + 1, steps))
        return z + (here + there) / (2 * steps), None

    z = jax.lax.scan(step, noise, jnp.arange(steps - 1))[0]
    return z + velocity_fn(z, _times(z, steps - 1, steps)) / steps


SAMPLERS = {'euler': euler, 'heun': heun}
