"""The Stable Diffusion family's variational autoencoder, and `Autoencoder`, the part that turns frames into latents.

Structure and semantics are those of diffusers' `AutoencoderKL`, and so are the module names: its
`down_blocks.0.resnets.1.conv1` is `down_blocks_0/resnets_1/conv1` here, so published weights of the family map one to
one. Which VAE Re2Pix uses is not known; this family is what the same group uses in related work [R], its tiny sizes
are ours [O].
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.errors import UserError

EPSILON = 1e-6


class GroupNorm(nn.Module):
    """Group normalisation over (H, W, channels of a group), statistics in float32.

    Written as per-channel sums followed by one multiply-add per pixel: on CPUs the obvious reshape to
    [B, H, W, groups, channels / groups] makes XLA reduce over a short minor axis, which is several times slower.
    """

    groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        if channels % self.groups:
            raise UserError(f'norm_groups {self.groups} does not divide {channels} channels; choose a common divisor')
        scale = self.param('scale', nn.initializers.ones, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))

        def group_mean(statistic):  # [B, C] per-channel means → the mean of each channel's group, [B, C]
            grouped = statistic.reshape(statistic.shape[0], self.groups, -1)
            return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(statistic.shape)

        wide = x.astype(jnp.float32)
        mean = group_mean(wide.mean((1, 2)))
        variance = group_mean(jnp.square(wide - mean[:, None, None]).mean((1, 2)))
        multiply = scale * jax.lax.rsqrt(variance + EPSILON)
        add = bias - mean * multiply
        return (wide * multiply[:, None, None] + add[:, None, None]).astype(self.dtype)


def conv(features, size, dtype, stride=1, padding=None, name=None):
    padding = size // 2 if padding is None else padding
    return nn.Conv(features, (size, size), (stride, stride), padding, dtype=dtype, name=name)


class ResnetBlock(nn.Module):
    """GroupNorm → SiLU → conv, twice, plus the input (through a 1x1 convolution where the width changes)."""

    features: int
    norm_groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(GroupNorm, self.norm_groups, self.dtype)
        y = conv(self.features, 3, self.dtype, name='conv1')(nn.silu(norm(name='norm1')(x)))
        y = conv(self.features, 3, self.dtype, name='conv2')(nn.silu(norm(name='norm2')(y)))
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, name='conv_shortcut')(x)
        return x + y


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of the feature map, with the input added."""

    norm_groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        batch, height, width, features = x.shape
        dense = functools.partial(nn.Dense, features, dtype=self.dtype)
        y = GroupNorm(self.norm_groups, self.dtype, name='group_norm')(x).reshape(batch, height * width, 1, features)
        y = jax.nn.dot_product_attention(dense(name='to_q')(y), dense(name='to_k')(y), dense(name='to_v')(y))
        return x + dense(name='to_out_0')(y).reshape(x.shape)


class MidBlock(nn.Module):
    """Resnet, attention (optional), resnet at the narrowest map."""

    norm_groups: int
    attention: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        x = ResnetBlock(x.shape[-1], self.norm_groups, self.dtype, name='resnets_0')(x)
        if self.attention:
            x = AttentionBlock(self.norm_groups, self.dtype, name='attentions_0')(x)
        return ResnetBlock(x.shape[-1], self.norm_groups, self.dtype, name='resnets_1')(x)


class Downsample(nn.Module):
    """3x3 convolution of stride 2, padded by one row below and one column to the right only, as in the original."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        return conv(x.shape[-1], 3, self.dtype, stride=2, padding=((0, 1), (0, 1)), name='conv')(x)


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution."""

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        batch, height, width, features = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, features))
        return conv(features, 3, self.dtype, name='conv')(x.reshape(batch, 2 * height, 2 * width, features))


class Stage(nn.Module):
    """The resnets of one resolution and the change to the next; the fields `down` and `up` say which change, if any."""

    features: int
    layers: int
    norm_groups: int
    down: bool = False
    up: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        for layer in range(self.layers):
            x = ResnetBlock(self.features, self.norm_groups, self.dtype, name=f'resnets_{layer}')(x)
        if self.down:
            x = Downsample(self.dtype, name='downsamplers_0')(x)
        if self.up:
            x = Upsample(self.dtype, name='upsamplers_0')(x)
        return x


class FrameEncoder(nn.Module):
    """Images [B, H, W, 3] → moments [B, H/f, W/f, 2 * latent_channels]."""

    block_out_channels: tuple
    layers_per_block: int
    latent_channels: int
    norm_groups: int
    mid_attention: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        x = conv(self.block_out_channels[0], 3, self.dtype, name='conv_in')(x)
        last = len(self.block_out_channels) - 1
        for index, features in enumerate(self.block_out_channels):
            x = Stage(features, self.layers_per_block, self.norm_groups, down=index < last, dtype=self.dtype,
                      name=f'down_blocks_{index}')(x)
        x = MidBlock(self.norm_groups, self.mid_attention, self.dtype, name='mid_block')(x)
        x = nn.silu(GroupNorm(self.norm_groups, self.dtype, name='conv_norm_out')(x))
        return conv(2 * self.latent_channels, 3, self.dtype, name='conv_out')(x)


class FrameDecoder(nn.Module):
    """Latents [B, H/f, W/f, latent_channels] → images [B, H, W, 3]; one resnet more per resolution than the encoder."""

    block_out_channels: tuple
    layers_per_block: int
    norm_groups: int
    mid_attention: bool
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        x = conv(self.block_out_channels[-1], 3, self.dtype, name='conv_in')(x)
        x = MidBlock(self.norm_groups, self.mid_attention, self.dtype, name='mid_block')(x)
        last = len(self.block_out_channels) - 1
        for index, features in enumerate(reversed(self.block_out_channels)):
            x = Stage(features, self.layers_per_block + 1, self.norm_groups, up=index < last, dtype=self.dtype,
                      name=f'up_blocks_{index}')(x)
        x = nn.silu(GroupNorm(self.norm_groups, self.dtype, name='conv_norm_out')(x))
        return conv(3, 3, self.dtype, name='conv_out')(x)


class AutoencoderKL(nn.Module):
    """The network. Defaults are Stable Diffusion's (f = 8, 83,653,863 parameters).

    `norm_groups` must divide every entry of `block_out_channels`; f = 2 ** (len(block_out_channels) - 1).
    Methods: `encode(images) -> (mean, logvar)` and `decode(latents) -> images`; images are float [B, H, W, 3] in
    [-1, 1], latents unscaled.
    """

    block_out_channels: tuple = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    quant_conv: bool = True
    mid_attention: bool = True
    dtype: str = 'float32'

    @property
    def factor(self):
        """Pixels per latent position along each side, f."""
        return 2 ** (len(self.block_out_channels) - 1)

    def setup(self):
        self.encoder = FrameEncoder(self.block_out_channels, self.layers_per_block, self.latent_channels,
                                    self.norm_groups, self.mid_attention, self.dtype)
        self.decoder = FrameDecoder(self.block_out_channels, self.layers_per_block, self.norm_groups,
                                    self.mid_attention, self.dtype)
        if self.quant_conv:
            self.quantise = conv(2 * self.latent_channels, 1, self.dtype, name='quant_conv')
            self.dequantise = conv(self.latent_channels, 1, self.dtype, name='post_quant_conv')

    def encode(self, images):
        """Images float [B, H, W, 3] in [-1, 1] → posterior mean and log-variance, float32 [B, H/f, W/f, c] each."""
        height, width = images.shape[-3:-1]
        if height % self.factor or width % self.factor:
            raise UserError(f'the autoencoder was given {height}x{width} frames; both sides must be multiples of '
                            f'{self.factor}: crop or resize them first')
        moments = self.encoder(images.astype(self.dtype))
        if self.quant_conv:
            moments = self.quantise(moments)
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents):
        """Latents [B, h, w, c] → images float32 [B, f h, f w, 3], nominally in [-1, 1] but not clipped."""
        latents = latents.astype(self.dtype)
        if self.quant_conv:
            latents = self.dequantise(latents)
        return self.decoder(latents).astype(jnp.float32)

    def __call__(self, images):
        """Encode, then decode the posterior mean; its use is to initialise every parameter."""
        mean, logvar = self.encode(images)
        return self.decode(mean), mean, logvar


class Autoencoder(flax.struct.PyTreeNode):
    """A trained autoencoder: frames to normalised latents and back.

    Latents are (posterior mean - shift_factor) * scaling_factor, about unit variance, as the generator wants them.
    """

    params: dict
    net: AutoencoderKL = flax.struct.field(pytree_node=False)
    scaling_factor: float = flax.struct.field(pytree_node=False, default=1.0)
    shift_factor: float = flax.struct.field(pytree_node=False, default=0.0)

    @jax.jit
    def moments(self, frames):
        """Frames [B, T, H, W, 3], uint8 or float in [-1, 1] → unscaled mean and log-variance.

        Both are float32 [B, T, H/f, W/f, c]. Raises UserError when H or W is not a multiple of f.
        """
        if frames.dtype == jnp.uint8:
            frames = frames.astype(jnp.float32) / 127.5 - 1.0
        mean, logvar = self.net.apply(self.params, frames.reshape(-1, *frames.shape[2:]), method='encode')
        return mean.reshape(*frames.shape[:2], *mean.shape[1:]), logvar.reshape(*frames.shape[:2], *logvar.shape[1:])

    @jax.jit
    def encode(self, frames):
        """Frames [B, T, H, W, 3], uint8 or float in [-1, 1] → latents float32 [B, T, H/f, W/f, c]; no randomness."""
        return (self.moments(frames)[0] - self.shift_factor) * self.scaling_factor

    @jax.jit
    def decode_float(self, latents):
        """Latents [B, T, h, w, c] → frames float32 [B, T, f h, f w, 3], clipped to [-1, 1]."""
        unscaled = latents / self.scaling_factor + self.shift_factor
        images = self.net.apply(self.params, unscaled.reshape(-1, *unscaled.shape[2:]), method='decode')
        return jnp.clip(images, -1.0, 1.0).reshape(*latents.shape[:2], *images.shape[1:])

    @jax.jit
    def decode(self, latents):
        """Latents [B, T, h, w, c] → frames uint8 [B, T, f h, f w, 3]."""
        return jnp.round((self.decode_float(latents) + 1.0) * 127.5).astype(jnp.uint8)
