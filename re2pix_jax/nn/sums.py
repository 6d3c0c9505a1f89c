"""Sums that keep what float32 rounds away: 64-bit floats are off by default, and slow on
accelerators.
"""

import jax
import jax.numpy as jnp
import numpy as np


def two_sum(one, other):
    """The sum of two unevaluated sums (high, low) of float32 numbers, by Knuth's two-sum."""
    (high, low), (value, rest) = one, other
    result = high + value
    added = result - high
    return result, low + rest + ((high - (result - added)) + (value - added))


def total(values, axes):
    """Sums float32 values over `axes` as an unevaluated sum of two float32 numbers, (high, low).

    A frame has millions of pixels, of which a plain float32 sum may lose the last two or three
    digits; the sum of a million is exact to 1e-9 here.
    """
    zero = np.float32(0)
    return jax.lax.reduce((values, jnp.zeros_like(values)), (zero, zero), two_sum, tuple(axes))
