"""The DINOv2 family of vision transformers (Oquab et al. 2023; with registers: Darcet et al. 2023).

Module names follow the published state dict, so that the table that reads it is one to one.
"""

import flax.linen as nn
import jax.numpy as jnp

from re2pix_jax.errors import UserError
from re2pix_jax.nn.attention import SelfAttention
from re2pix_jax.nn.feedforward import FusedSwiGLU, Mlp, swiglu_width
from re2pix_jax.nn.positions import resize_table


class LayerScale(nn.Module):
    """A learned factor per channel. Starts at 1 [O]: the published 1e-5 suits deep networks and long schedules only."""

    @nn.compact
    def __call__(self, x):
        return x * self.param('gamma', nn.initializers.ones, (x.shape[-1],)).astype(x.dtype)


class Block(nn.Module):
    """x + ls1(attn(norm1 x)), then x + ls2(mlp(norm2 x)): [B, N, D] -> [B, N, D]."""

    heads: int
    ffn: str
    mlp_ratio: float
    dtype: str

    @nn.compact
    def __call__(self, x):
        dtype, width = jnp.dtype(self.dtype), x.shape[-1]
        if self.ffn == 'swiglu':
            mlp = FusedSwiGLU(swiglu_width(width, self.mlp_ratio), self.dtype, name='mlp')
        else:
            mlp = Mlp(int(width * self.mlp_ratio), dtype=self.dtype, name='mlp')
        attn = SelfAttention(self.heads, dtype=self.dtype, name='attn')
        x = x + LayerScale(name='ls1')(attn(nn.LayerNorm(1e-6, dtype=dtype, name='norm1')(x)))
        return x + LayerScale(name='ls2')(mlp(nn.LayerNorm(1e-6, dtype=dtype, name='norm2')(x)))


class VisionTransformer(nn.Module):
    """Images to a grid of features.

    Attributes:
        patch_size: pixels a side of one patch.
        width, depth, heads: of the transformer. DINOv2: S 384/12/6, B 768/12/12, L 1024/24/16, g 1536/40/24.
        registers: extra tokens that take part in attention and are dropped at the end (4 in the *_reg models, or 0).
        layers: zero-based blocks whose outputs are the features, each through the final norm.
        position_grid: (rows, columns) of the learned position table; other grids are interpolated.
        ffn: 'mlp', or 'swiglu' as in ViT-g.
        mlp_ratio: hidden width over width (before the two thirds of SwiGLU).
        antialias, offset: convention of that interpolation. Published models with registers: True, 0.0; without: False, 0.1.
        dtype: compute dtype; parameters are float32.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    registers: int
    layers: tuple[int, ...]
    position_grid: tuple[int, int]
    ffn: str = 'mlp'
    mlp_ratio: float = 4.0
    antialias: bool = True
    offset: float = 0.0
    dtype: str = 'float32'

    def setup(self):
        small = nn.initializers.normal(0.02)
        rows, columns = self.position_grid
        self.cls_token = self.param('cls_token', small, (1, 1, self.width))
        self.mask_token = self.param('mask_token', nn.initializers.zeros, (1, self.width))
        self.pos_embed = self.param('pos_embed', small, (1, 1 + rows * columns, self.width))
        if self.registers:
            self.register_tokens = self.param('register_tokens', small, (1, self.registers, self.width))
        # A convolution whose stride is its size is a matrix product over patches, and faster as one.
        self.patch_embed = nn.Dense(self.width, dtype=jnp.dtype(self.dtype))
        self.blocks = [Block(self.heads, self.ffn, self.mlp_ratio, self.dtype) for _ in range(self.depth)]
        self.norm = nn.LayerNorm(1e-6, dtype=jnp.dtype(self.dtype))

    def __call__(self, images):
        """Normalised images float [B, H, W, 3] -> features [B, H/patch, W/patch, len(layers) * width]."""
        x, grid = self._embed(images, None)
        kept = {}
        for index, block in enumerate(self.blocks):
            if index > max(self.layers) and not self.is_initializing():
                break
            x = block(x)
            if index in self.layers:
                kept[index] = self._patches(self.norm(x), grid)
        return jnp.concatenate([kept[index] for index in self.layers], axis=-1)

    def tokens(self, images, mask=None):
        """The last block's tokens after the final norm, for self-distillation.

        Args:
            images: normalised, float [B, H, W, 3].
            mask: bool [B, h, w]; where true, the patch embedding is replaced by the mask token. None for no mask.

        Returns:
            (class token [B, width], patch tokens [B, h, w, width]).
        """
        x, grid = self._embed(images, mask)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x[:, 0], self._patches(x, grid)

    def _embed(self, images, mask):
        batch, height, width, channels = images.shape
        size = self.patch_size
        if height % size or width % size:
            raise UserError(f'images of {height}x{width} pixels do not divide into patches of {size}: '
                            f'resize or crop them to multiples of {size}')
        grid = (height // size, width // size)
        patches = images.reshape(batch, grid[0], size, grid[1], size, channels).swapaxes(2, 3)
        x = self.patch_embed(patches.reshape(batch, grid[0] * grid[1], size * size * channels))
        if mask is not None:
            x = jnp.where(mask.reshape(batch, -1, 1), self.mask_token.astype(x.dtype), x)
        table = self.pos_embed[0, 1:].reshape(*self.position_grid, self.width)
        x = x + resize_table(table, grid, self.antialias, self.offset).reshape(1, -1, self.width).astype(x.dtype)
        cls = jnp.broadcast_to(self.cls_token + self.pos_embed[:, :1], (batch, 1, self.width)).astype(x.dtype)
        if not self.registers:
            return jnp.concatenate([cls, x], axis=1), grid
        registers = jnp.broadcast_to(self.register_tokens, (batch, self.registers, self.width)).astype(x.dtype)
        return jnp.concatenate([cls, registers, x], axis=1), grid

    def _patches(self, x, grid):
        return x[:, 1 + self.registers:].reshape(x.shape[0], *grid, self.width)
