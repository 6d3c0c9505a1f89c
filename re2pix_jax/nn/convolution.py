"""What networks over feature maps [B, H, W, C] share: normalisation, and convolutions that keep,
halve or double the map.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.nn import layout
from re2pix_jax.nn.dense import OVER

EPSILON = 1e-6


class GroupNorm(nn.Module):
    """Group normalisation over (H, W, channels of a group), in float32 whatever the input; the next
    layer casts its input.

    Written as per-channel sums followed by one multiply-add per pixel: on CPUs the obvious reshape
    to [B, H, W, groups, channels / groups] makes XLA reduce over a short minor axis, which is
    several times slower.
    """

    groups: int

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(
                f'norm_groups {self.groups} does not divide {channels} channels; choose a common '
                'divisor'
            )
        scale = self.param('scale', nn.initializers.ones, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))

        def group_mean(
            statistic,
        ):  # [B, C] per-channel means → the mean of each channel's group, [B, C]
            grouped = statistic.reshape(statistic.shape[0], self.groups, -1)
            return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(
                statistic.shape
            )

        wide = x.astype(jnp.float32)
        mean = group_mean(wide.mean((1, 2)))
        variance = group_mean(jnp.square(wide - mean[:, None, None]).mean((1, 2)))
        multiply = scale * jax.lax.rsqrt(variance + EPSILON)
        add = bias - mean * multiply
        return wide * multiply[:, None, None] + add[:, None, None]


def conv(features, size, dtype, stride=1, padding=None, name=None, tensor=''):
    """A convolution over [B, H, W, C]; `tensor` as in `dense.Dense`."""
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        size // 2 if padding is None else padding,
        dtype=dtype,
        name=name,
        conv_general_dilated=functools.partial(_convolve, OVER[tensor]),
    )


def _convolve(over, x, kernel, *settings, **more):
    return jax.lax.conv_general_dilated(x, layout.whole(kernel, *over), *settings, **more)


def beside_in_time(x):
    """[B, T, ..., C] → [B, T, ..., 3C]: each frame's channels between those of its neighbours in
    time, zeros beyond the ends.

    A product or a 2-D convolution of this is one over three frames too, on CPUs several times
    faster than a 3-D convolution.
    """
    padded = jnp.pad(x, [(0, 0), (1, 1)] + [(0, 0)] * (x.ndim - 2))
    return jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=-1)


class Downsample(nn.Module):
    """3x3 convolution of stride 2, padded by one row below and one column to the right only, as in
    the original.
    """

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        return conv(x.shape[-1], 3, self.dtype, stride=2, padding=((0, 1), (0, 1)), name='conv')(x)


class DoublingConv(nn.Module):
    """What a 3x3 convolution of the map repeated twice along both sides would give: [B, H, W, C] →
    [B, 2H, 2W, C].

    The repeated map is never made. A 3x3 window over it sees 2x2 different pixels, and which taps
    fall on the same pixel depends only on whether row and column are even or odd. So the four kinds
    of output pixel are four 2x2 convolutions of the small map, computed as one: 4/9 of the
    multiplications.
    """

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        batch, height, width, features = x.shape
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (3, 3, features, features))
        bias = self.param('bias', nn.initializers.zeros, (features,))

        def merged(taps):  # [3, ...] → [parity of the output, 2 taps, ...]
            first, middle, last = taps
            return jnp.stack([jnp.stack([first, middle + last]), jnp.stack([first + middle, last])])

        by_column = merged(
            jnp.moveaxis(merged(kernel), 2, 0)
        )  # [column parity, column tap, row parity, row tap, C, C]
        kernel = by_column.transpose(3, 1, 4, 2, 0, 5).reshape(2, 2, features, 4 * features)
        # Padded before: XLA's gradient of a kernel that pads by itself is 20 times slower on CPUs.
        y = jax.lax.conv_general_dilated(
            jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0))),
            layout.whole(kernel.astype(self.dtype)),
            (1, 1),
            'VALID',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )
        y = y.reshape(batch, height + 1, width + 1, 2, 2, features)
        rows = [
            jnp.stack(
                [
                    y[:, row : row + height, column : column + width, row, column]
                    for column in (0, 1)
                ],
                axis=3,
            )
            for row in (0, 1)
        ]
        return jnp.stack(rows, axis=2).reshape(
            batch, 2 * height, 2 * width, features
        ) + bias.astype(self.dtype)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        return DoublingConv(self.dtype, name='conv')(x)
