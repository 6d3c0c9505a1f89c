"""The space-time diffusion transformer that denoises the latents of future frames, given context frames and features.

Blocks are temporal attention → spatial attention → SwiGLU, with RMSNorm, parameter-free QK-norm, rotary positions, and an
adaLN-zero modulation computed once and shared by all layers, after the authors' later flow model [R].

Two streams share every weight. The *context* stream holds the M clean frames at t = 1; it never sees the future, so its
temporal keys and values (the cache) are computed once and serve every sampler step. The *future* stream holds the noised
frames at their t and attends in time to [cache; itself]. Context frames attend to each other in both directions. Spatial
attention stays within a frame.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.errors import UserError
from re2pix_jax.generator.fusion import EarlyFusion
from re2pix_jax.nn import rotary

EPSILON = 1e-5
FREQUENCIES = 256


def patchify(latents, patch_size):
    """[B, T, H, W, c] → [B, T, H/p, W/p, p p c], channels of a patch ordered (row, column, c)."""
    batch, frames, height, width, channels = latents.shape
    h, w, p = height // patch_size, width // patch_size, patch_size
    return latents.reshape(batch, frames, h, p, w, p, channels).swapaxes(3, 4).reshape(batch, frames, h, w, -1)


def unpatchify(patches, patch_size):
    """The inverse of `patchify`."""
    batch, frames, h, w, _ = patches.shape
    p = patch_size
    return patches.reshape(batch, frames, h, w, p, p, -1).swapaxes(3, 4).reshape(batch, frames, h * p, w * p, -1)


def modulate(x, shift, scale):
    """x [B, T, N, D]; shift and scale [B or 1, D]."""
    return x * (1 + scale[:, None, None]) + shift[:, None, None]


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] → float [B, width]: 256 sinusoids of 1000 t [O: the factor], then Dense → SiLU → Dense."""

    width: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, t):
        rates = jnp.exp(-math.log(10_000.0) * jnp.arange(FREQUENCIES // 2) / (FREQUENCIES // 2))
        angles = 1000.0 * t.astype(jnp.float32)[:, None] * rates
        x = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        dense = functools.partial(nn.Dense, self.width, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))
        return dense(name='out')(nn.silu(dense(name='in')(x)))


class Attention(nn.Module):
    """Multi-head attention over one axis, in two halves so that keys and values can be kept."""

    heads: int
    dtype: str = 'float32'

    def setup(self):
        self.dense = functools.partial(nn.Dense, use_bias=False, dtype=self.dtype)

    @nn.compact
    def __call__(self, x, code, cache=None):
        """x [S, N, D], cache of earlier (keys, values) [S, M, heads, d] each or None → output [S, N, D], (keys, values)."""
        features = x.shape[-1]
        qkv = nn.Dense(3 * features, use_bias=False, dtype=self.dtype, name='qkv')(x)
        qkv = qkv.reshape(*x.shape[:2], 3 * self.heads, features // self.heads)
        q, k, v = jnp.split(qkv, 3, axis=2)
        q, k = (rotary.rotate(_unit_rms(a), code) for a in (q, k))
        own = (k, v)
        if cache is not None:
            k, v = (jnp.concatenate(pair, axis=1) for pair in zip(cache, own))
        y = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return nn.Dense(features, use_bias=False, dtype=self.dtype, name='out')(y), own
