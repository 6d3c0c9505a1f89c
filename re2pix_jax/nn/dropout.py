"""Dropout, every clip's from a key of its own: a device draws what it holds, and no more."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.nn.layout import hold


def drop(x, rate: float, rng):
    """x [B, ...] with zeros in about a share `rate` of its places, and the rest over 1 - rate.

    One draw for all clips is not cut over devices where its places are more than 32 bits count:
    attention weights of 64 clips at 32x64 tokens are 10^10.
    """
    keys = hold(jax.random.split(rng, x.shape[0]))
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


class Dropout(nn.Module):
    """`drop` with a key of the random stream 'dropout', where it is not `deterministic`."""

    rate: float

    def __call__(self, x, deterministic: bool):
        if deterministic or self.rate == 0.0:
            return x
        return drop(x, self.rate, self.make_rng('dropout'))
