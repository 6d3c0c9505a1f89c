"""Means over the frames of a set, gathered batch by batch on the device without losing digits."""

import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from re2pix_jax.nn.sums import total, two_sum


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


@flax.struct.dataclass
class FrameMeans(metrics.Metric):
    """Means over frames of numbers that each frame has, NAMES in a subclass; frames without a known
    pixel are left out.

    Sums over frames are float32 pairs (see `total`), pixels are counted in 64 bits as two uint32.
    Leading axes, of steps in time, may be before all of them.

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
    def empty(cls):
        """Nothing seen yet."""
        zeros = jnp.zeros(len(cls.NAMES), jnp.float32)
        return cls(zeros, zeros, jnp.zeros((), jnp.uint32), jnp.zeros(2, jnp.uint32))

    def merge(self, other):
        """The sum of two, e.g. of two shares of a set."""
        high, low = two_sum((self.high, self.low), (other.high, other.low))
        pixels = self.pixels + other.pixels
        carry = (pixels[..., 0] < other.pixels[..., 0]).astype(jnp.uint32)
        return self.replace(
            high=high,
            low=low,
            frames=self.frames + other.frames,
            pixels=pixels.at[..., 1].add(carry),
        )

    def add(self, values, count):
        """Adds frames: {name: float32 [N]} and their known pixels, integers [N], fewer than 2^31 in
        all.
        """
        there = count > 0
        table = jnp.stack([jnp.where(there, values[name], 0) for name in self.NAMES], axis=-1)
        high, low = total(table, (0,))
        pixels = jnp.stack([count.sum().astype(jnp.uint32), jnp.zeros((), jnp.uint32)])
        return self.merge(
            self.replace(high=high, low=low, frames=there.sum().astype(jnp.uint32), pixels=pixels)
        )

    def means(self):
        """{name: float64 mean over frames}, NaN where no frame had a known pixel."""
        sums = np.asarray(self.high, np.float64) + np.asarray(self.low, np.float64)
        frames = int(self.frames)
        return {
            name: float(value / frames) if frames else math.nan
            for name, value in zip(self.NAMES, sums)
        }

    def compute(self) -> dict[str, float]:
        """The means, and the 'frames' and 'pixels' that they are over."""
        return self.means() | self.counts()

    def counts(self):
        """{'frames', 'pixels'} that the means are over."""
        low, high = (int(half) for half in np.asarray(self.pixels))
        return {'frames': int(self.frames), 'pixels': (high << 32) + low}
