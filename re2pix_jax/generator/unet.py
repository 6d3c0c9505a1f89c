"""A video U-Net in the place of the transformer: convolutions in each frame, attention over time,
the same fusion and objective. [O]

The image U-Net of diffusion models (arXiv 2006.11239, 2105.05233), made one of video by attention
over time after every residual block (arXiv 2204.03458). As in the transformer, a *context*
stream, clean at t = 1 or each frame at its own t, and a noised *future* stream share every weight
and meet in time alone: the future attends to [keys and values of the context; its own], which are
computed once. Convolutions, norms and spatial attention stay within a frame.
"""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from re2pix_jax.generator.dit import RotaryAttention, TimeEmbedding
from re2pix_jax.generator.fusion import EarlyFusion
from re2pix_jax.generator.interface import Backbone
from re2pix_jax.nn import rotary
from re2pix_jax.nn.convolution import Downsample, GroupNorm, Upsample, conv
from re2pix_jax.nn.dense import Dense
from re2pix_jax.nn.layout import TENSOR, hold

# As in `dit`; a block's hidden channels are those between its two convolutions.
SHARDING = (
    (r'qkv/kernel$', P(('tensor', 'fsdp'), None)),
    (r'time_shift_scale/kernel$', P('fsdp', None)),
    (r'conv1/kernel$', P('fsdp', 'tensor')),
    (r'(conv2|(space|time)/out)/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)
# The matrices of its layers; convolutions have four axes.
MUON = (r'^(down|middle|up)_.*/(qkv|out|time_shift_scale|shortcut)/kernel$',)


def by_frame(module, x):
    """Applies a module over feature maps [B, H, W, C] to clips [B, T, H, W, C]."""
    y = module(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


class Layer(nn.Module):
    """Residual block at a time, then attention: x [B, T, H, W, C] → [B, T, H, W, features] and its
    (keys, values) over time.

    Fields:
        features: channels out.
        head: channels of a head, a multiple of 4 that divides `features`.
        spatial: whether each frame's positions attend to each other.
        groups: of the normalisation.
    """

    features: int
    head: int
    spatial: bool
    groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, embedding, time_code, cache):
        """embedding [B or 1, E] of t, or [B, T, E]; `time_code` rotates this stream's frames; cache
        as in `RotaryAttention`, or None.
        """
        norm = lambda x, name: by_frame(GroupNorm(self.groups, name=name), x)
        widen = conv(self.features, 3, self.dtype, name='conv1', tensor='out')
        y = hold(by_frame(widen, nn.silu(norm(x, 'norm1'))), TENSOR)
        shift, scale = jnp.split(
            Dense(2 * self.features, dtype=self.dtype, name='time_shift_scale')(
                nn.silu(embedding.reshape(len(embedding), -1, 1, 1, embedding.shape[-1]))
            ),
            2,
            axis=-1,
        )
        y = norm(y, 'norm2') * (1 + scale) + shift
        y = by_frame(conv(self.features, 3, self.dtype, name='conv2', tensor='in'), nn.silu(y))
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=self.dtype, name='shortcut')(x)
        x = x + hold(y)
        batch, frames, height, width, channels = x.shape
        attention = functools.partial(RotaryAttention, channels // self.head, self.dtype)
        if self.spatial:
            code = rotary.space_code(height, width, self.head)
            y = (
                norm(x, 'space_norm')
                .astype(self.dtype)
                .reshape(batch, frames, height * width, channels)
            )
            x = x + attention(name='space')(y, code)[0].reshape(x.shape)
        y = (
            norm(x, 'time_norm')
            .astype(self.dtype)
            .reshape(batch, frames, height * width, channels)
            .swapaxes(1, 2)
        )
        y, own = attention(name='time')(y, time_code, cache)
        return x + y.swapaxes(1, 2).reshape(x.shape), own


class VideoUNet(Backbone):
    """The network; its interface and the meaning of its output are those of `SpaceTimeDiT`.

    Fields:
        latent_channels, latent_grid: c and (H, W) of the latents, H and W multiples of 2 to the
            number of halvings.
        components: channels P of the features; 0 is the baseline without features, which ignores
            any it is given. They join at the latent grid, resampled where their grid is another.
        width: channels of the finest level.
        multiples: channels of each level in units of `width`; each level after the first has half
            the sides of the one before.
        blocks: residual blocks of a level on the way down; one more on the way up.
        spatial_levels: levels (0 is the finest) whose blocks attend over space; those in the middle
            always do.
        head: channels of an attention head.
        groups: of the normalisation.
        context_frames, future_frames: M and F.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    latent_channels: int
    latent_grid: tuple
    components: int
    width: int
    context_frames: int
    future_frames: int
    multiples: tuple = (1, 2, 4)
    blocks: int = 2
    spatial_levels: tuple = (1, 2)
    head: int = 32
    groups: int = 16
    remat: bool = False
    dtype: str = 'float32'

    def setup(self):
        halvings = 2 ** (len(self.multiples) - 1)
        if any(side % halvings for side in self.latent_grid):
            raise ValueError(
                f'the latent grid {tuple(self.latent_grid)} must be a multiple of {halvings}: the '
                f'U-Net halves it {len(self.multiples) - 1} times'
            )
        if self.head % 4 or self.width % math.lcm(self.head, self.groups):
            raise ValueError(
                f'the U-Net width {self.width} must be a multiple of head = {self.head} (itself '
                f'one of 4) and of groups = {self.groups}'
            )
        make = nn.remat(Layer) if self.remat else Layer
        layer = lambda level, spatial: make(
            self.width * self.multiples[level], self.head, spatial, self.groups, self.dtype
        )
        levels = range(len(self.multiples))
        self.conv_in = conv(self.width, 3, self.dtype)
        if self.components:
            self.fusion = EarlyFusion(self.components, self.dtype)
        self.time_embedding = TimeEmbedding(4 * self.width, self.dtype)
        self.down = [
            [layer(level, level in self.spatial_levels) for _ in range(self.blocks)]
            for level in levels
        ]
        self.halve = [Downsample(self.dtype) for _ in levels[1:]]
        self.middle = [layer(levels[-1], True) for _ in range(2)]
        self.up = [
            [layer(level, level in self.spatial_levels) for _ in range(self.blocks + 1)]
            for level in levels
        ]
        self.double = [Upsample(self.dtype) for _ in levels[1:]]
        self.norm_out = GroupNorm(self.groups)
        self.conv_out = nn.Conv(
            self.latent_channels, (3, 3), padding=1, kernel_init=nn.initializers.zeros
        )

    @nn.nowrap
    def for_sampling(self, params):
        """But for layers that do not round their kernel as it is: a doubling adds taps in float32
        first, and the last convolution is in float32.
        """
        own = params['params']
        exact = {k: v for k, v in own.items() if k.startswith('double') or k == 'conv_out'}
        return {**params, 'params': {**super().for_sampling(params)['params'], **exact}}

    def _stream(self, latents, components, t, start, cache=None):
        """Frames from number `start` on at times t → features at the latent grid and the (keys,
        values) of all layers, a list.
        """
        frames, head = latents.shape[1], self.head
        embedding, time_code = self.time_embedding(t), rotary.time_code(start, frames, head)
        earlier, own = iter(cache or ()), []

        def run(layer, x):
            x, pair = layer(hold(x), embedding, time_code, next(earlier, None))
            own.append(pair)
            return hold(x)

        x = by_frame(self.conv_in, latents.astype(self.dtype))
        if self.components:
            x = self.fusion(x, components)
        skips = [x]
        for level, layers in enumerate(self.down):
            if level:
                x = by_frame(self.halve[level - 1], x)
                skips.append(x)
            for layer in layers:
                x = run(layer, x)
                skips.append(x)
        for layer in self.middle:
            x = run(layer, x)
        for level in reversed(range(len(self.up))):
            for layer in self.up[level]:
                x = run(layer, jnp.concatenate([x, skips.pop()], axis=-1))
            if level:
                x = by_frame(self.double[level - 1], x)
        return x, own

    def context(self, latents, components=None, t=None):
        """Context latents [B, M, H, W, c] at times t [B, M] (None: clean, at 1) and components [B,
        M, h, w, P] (None for the baseline) → the cache.

        The cache is a list of (keys, values), one a layer, [B, positions, M, heads, head] each.
        Raises ValueError where shapes do not fit.
        """
        self.check_latents(latents, self.context_frames, 'context')
        return self._stream(latents, components, jnp.ones(1) if t is None else t, 0)[1]

    def denoise(self, cache, latents, t, components=None):
        """Noised future latents [B, F, H, W, c] at times t [B] → prediction of the clean ones,
        float32 [B, F, H, W, c].

        components [B, F, h, w, P] (None for the baseline). Raises ValueError where shapes do not
        fit.
        """
        self.check_latents(latents, self.future_frames, 'future')
        x = self._stream(latents, components, t, self.context_frames, cache)[0]
        return by_frame(self.conv_out, nn.silu(by_frame(self.norm_out, x))).astype(jnp.float32)
