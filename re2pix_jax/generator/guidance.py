"""Representation guidance, exploratory in the paper [P]: push away from what coarse semantics alone
would give.

    z = z(full) + w (z(full) - z(first c components)),    w = 0.4 in the paper

Both predictions are made in one pass over a batch twice as long, so context, noise and time are
shared exactly. The two of a sample lie next to each other, and so on the device that holds the
sample.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from re2pix_jax.generator.conditioning import keep_first


def double(x: Float[Array, 'B ...']) -> Float[Array, '2*B ...']:
    """Repeat [B, ...] to [2B, ...], every sample twice in a row."""
    return jnp.repeat(x, 2, axis=0)


def full_and_coarse(
    components: Float[Array, 'B *grid P'], channels: int | Int[Array, '']
) -> Float[Array, '2*B *grid P']:
    """Components [B, ..., P] → [2B, ..., P]: of every sample whole, then with only the first
    `channels` kept, from 0 to P.
    """
    pairs = jnp.stack([components, keep_first(components, channels)], axis=1)
    return pairs.reshape(-1, *components.shape[1:])


def check_coarse(channels: int, components: int) -> None:
    """ValueError unless from 0 to all `components` are kept in what guidance leads away from."""
    if not 0 <= channels <= components:
        raise ValueError(
            f'representation guidance keeps {channels} of {components} components; keep from 0 to '
            'all of them'
        )


def combine(
    predictions: Float[Array, 'BB ...'], weight: float | Float[Array, '']
) -> Float[Array, 'B ...']:
    """Predictions [2B, ...] in the order of `full_and_coarse` → guided predictions [B, ...]."""
    pairs = predictions.reshape(-1, 2, *predictions.shape[1:])
    full, coarse = pairs[:, 0], pairs[:, 1]
    return full + weight * (full - coarse)
