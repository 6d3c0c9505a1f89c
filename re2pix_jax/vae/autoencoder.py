"""The Stable Diffusion family's variational autoencoder, and `Autoencoder`, the part that turns
frames into latents.

Structure and semantics are those of diffusers' `AutoencoderKL`, and so are the module names: its
`down_blocks.0.resnets.1.conv1` is `down_blocks_0/resnets_1/conv1` here, so published weights of the
family map one to one. Which VAE Re2Pix uses is not known; this family is what the same group uses
in related work [R], its tiny sizes are ours [O].
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Shaped, UInt8

from re2pix_jax.nn.convolution import Downsample, GroupNorm, Upsample, conv
from re2pix_jax.nn.frames import check_frames
from re2pix_jax.nn.layout import TENSOR, hold
from re2pix_jax.nn.summary import summary
from re2pix_jax.vae import tiling

# Over which devices a parameter's last axes may be cut; a block's hidden channels are those between
# its two convolutions.
SHARDING = (
    (r'conv1/kernel$', P('fsdp', 'tensor')),
    (r'conv2/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)
DECODER = ('decoder', 'post_quant_conv')  # the parameters that `decode` reads


class ResnetBlock(nn.Module):
    """GroupNorm → SiLU → conv, twice, plus the input (through a 1x1 convolution where the width
    changes).
    """

    features: int
    norm_groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(GroupNorm, self.norm_groups)
        x, layer = hold(x), functools.partial(conv, self.features, 3, self.dtype)
        y = layer(name='conv1', tensor='out')(nn.silu(norm(name='norm1')(x)))
        y = hold(y, TENSOR)
        y = layer(name='conv2', tensor='in')(nn.silu(norm(name='norm2')(y)))
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, name='conv_shortcut')(x)
        return hold(x.astype(jnp.float32) + y)


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of the feature map, with the input added."""

    norm_groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        batch, height, width, features = x.shape
        dense = functools.partial(nn.Dense, features, dtype=self.dtype)
        y = GroupNorm(self.norm_groups, name='group_norm')(x).reshape(
            batch, height * width, 1, features
        )
        y = jax.nn.dot_product_attention(
            dense(name='to_q')(y), dense(name='to_k')(y), dense(name='to_v')(y)
        )
        return x.astype(jnp.float32) + dense(name='to_out_0')(y).reshape(x.shape)


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


class Stage(nn.Module):
    """The resnets of one resolution and the change to the next; the fields `down` and `up` say
    which change, if any.
    """

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
            x = Stage(
                features,
                self.layers_per_block,
                self.norm_groups,
                down=index < last,
                dtype=self.dtype,
                name=f'down_blocks_{index}',
            )(x)
        x = MidBlock(self.norm_groups, self.mid_attention, self.dtype, name='mid_block')(x)
        x = nn.silu(GroupNorm(self.norm_groups, name='conv_norm_out')(x))
        return conv(2 * self.latent_channels, 3, 'float32', name='conv_out')(x)


class FrameDecoder(nn.Module):
    """Latents [B, H/f, W/f, latent_channels] → images [B, H, W, 3]; one resnet more per resolution
    than the encoder.
    """

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
            x = Stage(
                features,
                self.layers_per_block + 1,
                self.norm_groups,
                up=index < last,
                dtype=self.dtype,
                name=f'up_blocks_{index}',
            )(x)
        x = nn.silu(GroupNorm(self.norm_groups, name='conv_norm_out')(x))
        return conv(3, 3, 'float32', name='conv_out')(x)


class AutoencoderKL(nn.Module):
    """The network. Defaults are Stable Diffusion's (f = 8, 83,653,863 parameters).

    `norm_groups` must divide every entry of `block_out_channels`; f = 2 ** (len(block_out_channels)
    - 1). `dtype` is what convolutions and attention are computed in. Norms, the sums of residual
    blocks, the last convolution and the quant convolutions stay in float32, where rounding would be
    seen in the result, and so do latents and images.

    Methods: `encode(images) -> (mean, logvar)` and `decode(latents) -> images`; images are float
    [B, H, W, 3] in [-1, 1], latents unscaled.
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
        self.encoder = FrameEncoder(
            self.block_out_channels,
            self.layers_per_block,
            self.latent_channels,
            self.norm_groups,
            self.mid_attention,
            self.dtype,
        )
        self.decoder = FrameDecoder(
            self.block_out_channels,
            self.layers_per_block,
            self.norm_groups,
            self.mid_attention,
            self.dtype,
        )
        if self.quant_conv:
            self.quantise = conv(2 * self.latent_channels, 1, 'float32', name='quant_conv')
            self.dequantise = conv(self.latent_channels, 1, 'float32', name='post_quant_conv')

    @nn.nowrap
    def check(self, height, width):
        """Raises ValueError when frames of this size cannot be encoded."""
        if height % self.factor or width % self.factor:
            raise ValueError(
                f'the autoencoder was given {height}x{width} frames; both sides must be multiples '
                f'of {self.factor}: crop or resize them first'
            )

    def encode(
        self, images: Float[Array, 'B H W 3']
    ) -> tuple[Float[Array, 'B h w c'], Float[Array, 'B h w c']]:
        """Images float [B, H, W, 3] in [-1, 1] → posterior mean and log-variance, float32 [B, H/f,
        W/f, c] each.
        """
        self.check(*images.shape[1:3])
        moments = self.encoder(images)
        if self.quant_conv:
            moments = self.quantise(moments)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: Float[Array, 'B h w c']) -> Float[Array, 'B H W 3']:
        """Latents [B, h, w, c] → images float32 [B, f h, f w, 3], nominally in [-1, 1] but not
        clipped.
        """
        if self.quant_conv:
            latents = self.dequantise(latents)
        return self.decoder(latents)

    def __call__(self, images):
        """Encode, then decode the posterior mean; its use is to initialise every parameter."""
        mean, logvar = self.encode(images)
        return self.decode(mean), mean, logvar


class Autoencoder(flax.struct.PyTreeNode):
    """A trained autoencoder: frames to normalised latents and back.

    Latents are (posterior mean - shift_factor) * scaling_factor, about unit variance, as the
    generator wants them; the two are numbers, as published VAEs have, or one for each channel.

    Memory: `frames_at_once` bounds how many frames are in work together, and changes nothing else.
    `tile` cuts larger frames into overlapping tiles of that many latent positions a side, one in
    work at a time, so that memory no longer grows with the frame; as normalisation and attention
    then see a tile and not the frame, results differ a little. `autoencoder.replace(tile=64,
    frames_at_once=1)` works on frames of any size in the memory of 512x512 pixels (f = 8).
    """

    params: dict
    net: AutoencoderKL = flax.struct.field(pytree_node=False)
    scaling_factor: float | tuple[float, ...] = flax.struct.field(pytree_node=False, default=1.0)
    shift_factor: float | tuple[float, ...] = flax.struct.field(pytree_node=False, default=0.0)
    tile: int | None = flax.struct.field(pytree_node=False, default=None)
    frames_at_once: int | None = flax.struct.field(pytree_node=False, default=None)

    __repr__ = summary

    def __post_init__(self):
        for name in ('scaling_factor', 'shift_factor'):
            value, channels = getattr(self, name), self.net.latent_channels
            if isinstance(value, tuple) and len(value) != channels:
                raise ValueError(f'{name} holds {len(value)} numbers for {channels} channels')

    def _apply(self, function, clips, grid):
        """`function` of images, of every frame of [B, T, a h, a w, C] → [B, T, b h, b w, D], where
        `grid` is (h, w).
        """
        for name, value in (('tile', self.tile), ('frames_at_once', self.frames_at_once)):
            if value is not None and value < 1:
                raise ValueError(
                    f'{name} of the autoencoder is {value}: expected a positive number, or None '
                    'for no limit'
                )

        def of_images(images):
            return (
                function(images)
                if self.tile is None
                else tiling.tiled(function, images, grid, self.tile)
            )

        frames = clips.reshape(-1, *clips.shape[2:])
        if self.frames_at_once is None:
            results = of_images(frames)
        else:
            results = jax.lax.map(
                lambda frame: of_images(frame[None])[0], frames, batch_size=self.frames_at_once
            )
        return results.reshape(*clips.shape[:2], *results.shape[1:])

    def moments(
        self, frames: Shaped[Array | np.ndarray, '...']
    ) -> tuple[Float[Array, 'B T h w c'], Float[Array, 'B T h w c']]:
        """Frames [B, T, H, W, 3], RGB whole numbers to 255 or floats in [-1, 1] → unscaled mean
        and log-variance.

        Both are float32 [B, T, H/f, W/f, c]. Raises ValueError for what are no such frames, and
        when H or W is not a multiple of f.
        """
        frames = check_frames(frames, 1.0, 'floats from -1 to 1', unit=True)
        self.net.check(*frames.shape[2:4])
        return self._moments(frames)

    @jax.jit
    def _moments(self, frames):
        def encode(images):
            if jnp.issubdtype(images.dtype, jnp.integer):
                images = images.astype(jnp.float32) / 127.5 - 1.0
            return jnp.concatenate(self.net.apply(self.params, images, method='encode'), axis=-1)

        grid = tuple(side // self.net.factor for side in frames.shape[2:4])
        mean, logvar = jnp.split(self._apply(encode, frames, grid), 2, axis=-1)
        return mean, logvar

    def encode(self, frames: Shaped[Array | np.ndarray, '...']) -> Float[Array, 'B T h w c']:
        """Frames as of `moments` → latents float32 [B, T, H/f, W/f, c]; no randomness."""
        return self._latents(self.moments(frames)[0])

    @jax.jit
    def _latents(self, mean):
        return (mean - jnp.asarray(self.shift_factor)) * jnp.asarray(self.scaling_factor)

    @jax.jit
    def decode_float(self, latents: Float[Array | np.ndarray, '...']) -> Float[Array, 'B T H W 3']:
        """Latents [B, T, h, w, c] → frames float32 [B, T, f h, f w, 3], clipped to [-1, 1];
        ValueError for another shape.
        """
        if latents.ndim != 5 or latents.shape[-1] != self.net.latent_channels:
            raise ValueError(
                'latents: expected floats [batch, time, rows, columns, '
                f'{self.net.latent_channels}], got {list(latents.shape)}'
            )
        decode = functools.partial(self.net.apply, self.params, method='decode')
        shift, scale = jnp.asarray(self.shift_factor), jnp.asarray(self.scaling_factor)
        images = self._apply(decode, latents / scale + shift, latents.shape[2:4])
        return jnp.clip(images, -1.0, 1.0)

    @jax.jit
    def decode(self, latents: Float[Array | np.ndarray, '...']) -> UInt8[Array, 'B T H W 3']:
        """Latents [B, T, h, w, c] → frames uint8 [B, T, f h, f w, 3]; errors as `decode_float`."""
        return jnp.round((self.decode_float(latents) + 1.0) * 127.5).astype(jnp.uint8)
