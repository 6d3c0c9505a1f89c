"""The space-time diffusion transformer that denoises the latents of future frames, given context
frames and features.

Blocks are temporal attention → spatial attention → SwiGLU, with RMSNorm, parameter-free QK-norm,
rotary positions, and an adaLN-zero modulation computed once and shared by all layers, after the
authors' later flow model [R].

Two streams share every weight. The *context* stream holds the M frames, clean at t = 1 or each at
its own t; it never sees the future, so its temporal keys and values (the cache) are computed once
and serve every sampler step. The *future* stream holds the noised frames at their t and attends in
time to [cache; itself] [O]. Context frames attend to each other in both directions [O]. Spatial
attention stays within a frame.

With attention='joint' one attention over all tokens of all frames of a stream (and of the cache)
takes the place of the two. [O]
"""

import functools
import math

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from re2pix_jax.generator.fusion import EarlyFusion
from re2pix_jax.generator.interface import Backbone
from re2pix_jax.nn import layers, rotary
from re2pix_jax.nn.attention import attend, split_heads
from re2pix_jax.nn.dense import Dense
from re2pix_jax.nn.feedforward import FusedSwiGLU
from re2pix_jax.nn.layers import Layers, operand

# Over which devices a parameter's last axes may be cut; the first that is found in its path. The
# borders of q, k and v lie within the last axis, as do those of gate and value and of a
# modulation's chunks: that axis is never cut. What reads heads or a hidden width is cut over these.
SHARDING = (
    (r'(qkv|w12)/kernel$', P(('tensor', 'fsdp'), None)),
    (r'layers/.*(out|w3)/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)
# Which kernels muon takes.
MUON = (r'^layers/.*/kernel$',)

EPSILON = 1e-5
FREQUENCIES = 256
# The usual sizes of diffusion transformers (arXiv 2212.09748); which one the paper uses is not
# known [O].
SIZES = {
    'S': dict(width=384, depth=12, heads=6),
    'B': dict(width=768, depth=12, heads=12),
    'L': dict(width=1024, depth=24, heads=16),
    'XL': dict(width=1152, depth=28, heads=16),
}
ATTENTION = {
    'factorised': 9,
    'joint': 6,
}  # chunks of modulation: shift, scale and gate for each part of a block


def patchify(latents: Float[Array, 'B T H W c'], patch_size: int) -> Float[Array, 'B T h w d']:
    """[B, T, H, W, c] → [B, T, H/p, W/p, p p c], the channels of a patch ordered (row, column,
    c).
    """
    return einops.rearrange(
        latents, 'b t (h p) (w q) c -> b t h w (p q c)', p=patch_size, q=patch_size
    )


def unpatchify(patches: Float[Array, 'B T h w d'], patch_size: int) -> Float[Array, 'B T H W c']:
    """The inverse of `patchify`."""
    return einops.rearrange(
        patches, 'b t h w (p q c) -> b t (h p) (w q) c', p=patch_size, q=patch_size
    )


def unit_rms(x, code):
    """x [..., N, heads, d] turned by the rotary `code` and divided by its root mean square: QK-norm
    without parameters.

    Turning does not change the length. In this order nothing comes between the two but a number for
    each head.
    """
    length = jnp.sqrt(jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True) + EPSILON)
    return (rotary.rotate(x, code) / length).astype(x.dtype)


class TimeEmbedding(nn.Module):
    """t [...] in [0, 1] → [..., width]: 256 sinusoids of 1000 t (the factor is ours [O]), then
    Dense → SiLU → Dense.
    """

    width: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, t):
        rates = jnp.exp(-math.log(10_000.0) * jnp.arange(FREQUENCIES // 2) / (FREQUENCIES // 2))
        angles = 1000.0 * t.astype(jnp.float32)[..., None] * rates
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        dense = functools.partial(
            Dense, self.width, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02)
        )
        return dense(name='outer')(nn.silu(dense(name='inner')(x)))


class Modulation(nn.Module):
    """adaLN: time embedding [B, D], or [B, T, D] of each frame's time → `chunks` arrays [B, 1 or T,
    1, D], all zero at the start of training.
    """

    chunks: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, embedding):
        zeros = nn.initializers.zeros
        x = Dense(
            self.chunks * embedding.shape[-1],
            dtype=self.dtype,
            kernel_init=zeros,
            bias_init=zeros,
            name='linear',
        )(nn.silu(embedding))
        return jnp.split(x.reshape(len(x), -1, 1, x.shape[-1]), self.chunks, axis=-1)


class ModulatedNorm(nn.Module):
    """RMSNorm with a learned scale, and shift and scale from outside: x [B, T, N, D], those [B or
    1, T or 1, 1, D] → like x.

    The scales are multiplied before they meet x. So their gradients come from one sum over tokens,
    and nothing is rounded between.
    """

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, shift, scale):
        own = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        wide, shift, scale = (array.astype(jnp.float32) for array in (x, shift, scale))
        unit = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + EPSILON)
        return (unit * (own * (1 + scale)) + shift).astype(self.dtype)


class RotaryAttention(nn.Module):
    """Self-attention over the second-last axis, x [..., N, D], with QK-norm and rotary positions.

    `cache` is None or earlier (keys, values), [..., M, heads, d] each, which are attended to as
    well. Returns the output [..., N, D] and x's own (keys, values).
    """

    heads: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, code, cache=None):
        width = x.shape[-1]
        dense = functools.partial(Dense, use_bias=False, dtype=self.dtype)
        fused = dense(3 * width, parts=3, tensor='out', name='qkv')
        query, key, value = (split_heads(part, self.heads) for part in fused(x))
        query, key = (operand(unit_rms(x, code)) for x in (query, key))
        own = key, value
        keys, values = ([part] for part in own) if cache is None else zip(cache, own)
        mixed = attend(query, keys, values).reshape(x.shape)
        return dense(width, tensor='in', name='out')(mixed), own


class Block(nn.Module):
    """One layer; x [B, T, N, D]. Returns x and this layer's (keys, values): [B, N, T, heads, d]
    each, or [B, T N, heads, d] if joint.
    """

    heads: int
    hidden: int
    attention: str = 'factorised'
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, modulation, codes, cache=None):
        def normed(x, name, shift, scale):
            return ModulatedNorm(self.dtype, name=f'{name}_norm')(x, shift, scale)

        attend_over = functools.partial(RotaryAttention, self.heads, self.dtype)
        *parts, (shift, scale, gate) = zip(modulation[::3], modulation[1::3], modulation[2::3])
        if self.attention == 'joint':
            (joint,), (code,) = parts, codes
            y = normed(x, 'joint', *joint[:2]).reshape(x.shape[0], -1, x.shape[-1])
            y, own = attend_over(name='joint')(y, code, cache)
            x = x + joint[2] * y.reshape(x.shape)
        else:
            (time, space), (time_code, space_code) = parts, codes
            y, own = attend_over(name='time')(
                normed(x, 'time', *time[:2]).swapaxes(1, 2), time_code, cache
            )
            x = x + time[2] * y.swapaxes(1, 2)
            x = (
                x
                + space[2]
                * attend_over(name='space')(normed(x, 'space', *space[:2]), space_code)[0]
            )
        return x + gate * FusedSwiGLU(self.hidden, self.dtype, name='ff')(
            normed(x, 'ff', shift, scale)
        ), own


class SpaceTimeDiT(Backbone):
    """The network; its output is a prediction of the clean future latents (x-prediction).

    Fields:
        latent_channels, latent_grid: c and (H, W) of the latents, H and W multiples of
            `patch_size`.
        components: channels P of the features; 0 is the baseline without features, which ignores
            any it is given.
        width, depth, heads: width a multiple of 4 * heads (rotary positions turn quarters of a
            head); `SIZES` has the usual ones.
        context_frames, future_frames: M and F.
        attention: 'factorised', over time at each place and over space in each frame, or 'joint',
            over all tokens at once.
        ffn_multiple: SwiGLU's hidden width is 2/3 * 4 * width rounded up to a multiple of this.
        remat: keep nothing of a layer but its input for the backward pass; otherwise the results of
            products and attention are kept, and what lies between them is computed again: norms,
            rotations and gates take less time than their results take to be read.
        unroll: compile every layer by itself rather than one for all: a training step takes a fifth
            less on an H100 (B, 8 clips), a tenth on a CPU (tiny); longer to compile, and not done
            for TPUs. [O]
    """

    latent_channels: int
    latent_grid: tuple
    patch_size: int
    components: int
    width: int
    depth: int
    heads: int
    context_frames: int
    future_frames: int
    attention: str = 'factorised'
    ffn_multiple: int = 256
    remat: bool = False
    unroll: bool = False
    dtype: str = 'float32'

    def setup(self):
        if self.width % (4 * self.heads):
            raise ValueError(
                f'the generator width {self.width} must be a multiple of 4 * heads = '
                f'{4 * self.heads}'
            )
        if self.attention not in ATTENTION:
            raise ValueError(
                f"the generator's attention is '{self.attention}'; choose one of "
                f'{", ".join(ATTENTION)}'
            )
        if any(side % self.patch_size for side in self.latent_grid):
            raise ValueError(
                f'the latent grid {tuple(self.latent_grid)} must be a multiple of patch_size '
                f'{self.patch_size}'
            )
        zeros = nn.initializers.zeros
        self.embed = Dense(self.width, dtype=self.dtype)
        if self.components:
            self.fusion = EarlyFusion(self.components, self.dtype)
        self.time_embedding = TimeEmbedding(self.width, self.dtype)
        self.modulation = Modulation(ATTENTION[self.attention], self.dtype)
        hidden = math.ceil(8 * self.width / 3 / self.ffn_multiple) * self.ffn_multiple
        self.layers = Layers(
            functools.partial(Block, self.heads, hidden, self.attention, self.dtype),
            self.depth,
            keep='nothing' if self.remat else 'products',
            unroll=self.unroll,
        )
        self.final_norm = ModulatedNorm(self.dtype)
        self.final_modulation = Modulation(2, self.dtype)
        self.out = Dense(
            self.patch_size**2 * self.latent_channels, dtype=self.dtype, kernel_init=zeros
        )

    @property
    def token_grid(self):
        return tuple(side // self.patch_size for side in self.latent_grid)

    def _tokens(self, latents, components, frames, name):
        self.check_latents(latents, frames, name)
        x = self.embed(patchify(latents.astype(self.dtype), self.patch_size))
        if self.components:
            x = self.fusion(x, components)
        return x.reshape(*x.shape[:2], -1, x.shape[-1])

    def _codes(self, start, frames):
        head = self.width // self.heads
        if self.attention == 'joint':
            return (rotary.space_time_code(start, frames, *self.token_grid, head),)
        return rotary.time_code(start, frames, head), rotary.space_code(*self.token_grid, head)

    def context(self, latents, components=None, t=None):
        """Context latents [B, M, H, W, c] at times t [B, M] (None: clean, at 1) and components [B,
        M, h, w, P] (None for the baseline) → the cache.

        The cache is what the layers gave: (keys, values), [B, N, M, heads, d] each, or [B, M N,
        heads, d] if joint. ValueError where shapes do not fit.
        """
        x = self._tokens(latents, components, self.context_frames, 'context')
        modulation = self.modulation(self.time_embedding(jnp.ones(1) if t is None else t))
        codes = self._codes(0, self.context_frames)
        # The last layer ends with its keys and values: to run it to its end would take 3 % of a
        # training step with 12 layers, 14 % with 3.
        return self.layers(x, modulation, codes, last={})[1]

    @nn.nowrap
    def for_sampling(self, params):
        params = super().for_sampling(params)
        stack = layers.for_sampling(params['params']['layers'], self.unroll)
        return {**params, 'params': {**params['params'], 'layers': stack}}

    def denoise(self, cache, latents, t, components=None):
        """Noised future latents [B, F, H, W, c] at times t [B] → prediction of the clean ones,
        float32 [B, F, H, W, c].

        components [B, F, h, w, P] (None for the baseline). Raises ValueError where shapes do not
        fit.
        """
        x = self._tokens(latents, components, self.future_frames, 'future')
        embedding = self.time_embedding(t)
        codes = self._codes(self.context_frames, self.future_frames)
        x, _ = self.layers(x, self.modulation(embedding), codes, own=cache)
        x = self.out(self.final_norm(x, *self.final_modulation(embedding)))
        return unpatchify(x.reshape(*x.shape[:2], *self.token_grid, -1), self.patch_size).astype(
            jnp.float32
        )
