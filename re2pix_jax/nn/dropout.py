"""Dropout that devices draw of what they hold, of however many clips."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.nn.layout import hold

COUNTED = 2**32
"""Places that one draw numbers with 32 bits. One of more is not cut over devices by a TPU's
compiler: of attention weights at 32x64 tokens, 10^10 for 64 clips, each would draw all, 87 GiB.
"""


def check(rate: float) -> None:
    """Raises ValueError for a rate outside [0, 1)."""
    if not 0 <= rate < 1:  # true of nan too
        raise ValueError(f'dropout is {rate}; it must lie in [0, 1)')


def drop(x, rate: float, rng):
    """x [B, ...] with zeros in about a share `rate` of its places, and the rest over 1 - rate."""
    check(rate)
    if x.size < COUNTED:
        keep = jax.random.bernoulli(rng, 1.0 - rate, x.shape)
    else:
        keys = hold(jax.random.split(rng, x.shape[0]))
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


class Dropout(nn.Module):
    """`drop` with a key of the random stream 'dropout', where it is not `deterministic`; ValueError
    for a rate outside [0, 1) in any case.
    """

    rate: float

    def __call__(self, x, deterministic: bool):
        check(self.rate)
        if deterministic or self.rate == 0.0:
            return x
        return drop(x, self.rate, self.make_rng('dropout'))
