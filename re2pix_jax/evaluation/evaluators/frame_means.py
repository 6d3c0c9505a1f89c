"""Means over the frames of a set, gathered batch by batch on the device without losing digits."""

import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


def total(values, axes):
    """Sums float32 values over `axes` as an unevaluated sum of two float32 numbers, (high, low).

    A frame has millions of pixels, of which a plain float32 sum may lose the last two or three
    digits; 64-bit floats are off by default and slow on accelerators. Each addition keeps what it
    rounds away (Knuth's two-sum) in the second number: the sum of a million is exact to 1e-9.
    """
    zero = np.float32(0)
    return jax.lax.reduce((values, jnp.zeros_like(values)), (zero, zero), _two_sum, tuple(axes))


def _two_sum(one, other):
    (high, low), (value, rest) = one, other
    result = high + value
    added = result - high
    return result, low + rest + ((high - (result - added)) + (value - added))


def mean(values, known, count):
    """Mean of values [N, H, W] over the pixels `known` [N, H, W] of each frame, `count` [N] of them
    -> float32 [N].
    """
    high, low = total(jnp.where(known, values, 0), (1, 2))
    return (high + low) / jnp.maximum(count, 1)


def share(hits, known, count):
    """Share of the pixels `known` [N, H, W] of each frame, `count` [N] of them, that are `hits` ->
    float32 [N].
    """
    return (hits & known).sum((1, 2)) / jnp.maximum(count, 1)


class FrameMeans(flax.struct.PyTreeNode):
    """Means over frames of numbers that each frame has, NAMES in a subclass; frames without a known
    pixel are left out.

    Sums over frames are float32 pairs (see `total`), pixels are counted in 64 bits as two uint32.

    Attributes:
        high, low: float32 [M], sums over frames.
        frames: uint32, how many had a known pixel.
        pixels: uint32 [2], how many pixels were known, lower half first.
    """

    high: jax.Array
    low: jax.Array
    frames: jax.Array
    pixels: jax.Array
    NAMES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def create(cls):
        """Nothing seen yet."""
        zeros = jnp.zeros(len(cls.NAMES), jnp.float32)
        return cls(zeros, zeros, jnp.zeros((), jnp.uint32), jnp.zeros(2, jnp.uint32))

    def merge(self, other):
        """The sum of two, e.g. of two shares of a set."""
        high, low = _two_sum((self.high, self.low), (other.high, other.low))
        pixels = self.pixels + other.pixels
        carry = (pixels[0] < other.pixels[0]).astype(jnp.uint32)
        return self.replace(
            high=high, low=low, frames=self.frames + other.frames, pixels=pixels.at[1].add(carry)
        )

    def add(self, values, count):
        """Adds frames: {name: float32 [N]} and their known pixels, integers [N], fewer than 2^31 in
        all.
        """
        seen = count > 0
        table = jnp.stack([jnp.where(seen, values[name], 0) for name in self.NAMES], axis=-1)
        high, low = total(table, (0,))
        pixels = jnp.stack([count.sum().astype(jnp.uint32), jnp.zeros((), jnp.uint32)])
        return self.merge(
            self.replace(high=high, low=low, frames=seen.sum().astype(jnp.uint32), pixels=pixels)
        )

    def means(self):
        """{name: float64 mean over frames}, NaN where no frame had a known pixel."""
        sums = np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64)
        frames = int(self.frames)
        return {
            name: float(value / frames) if frames else math.nan
            for name, value in zip(self.NAMES, sums)
        }

    def counts(self):
        """{'frames', 'pixels'} that the means are over."""
        low, high = (int(half) for half in np.asarray(self.pixels))
        return {'frames': int(self.frames), 'pixels': (high << 32) + low}


def to_dict(scores):
    """A NamedTuple of scores for JSON: None instead of NaN."""
    return {name: None if math.isnan(value) else value for name, value in scores._asdict().items()}
