"""The vision transformers of DINOv2 (Oquab et al. 2023; with registers: Darcet et al. 2023) and
DINOv3 (Siméoni et al. 2025).

They are one architecture that differs in sizes and in its positions: DINOv2 adds a learned table to
the patches, DINOv3 has none and turns the queries and keys of the patches instead. Module names
follow DINOv2's published state dict, so that the table that reads it is one to one.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float

from re2pix_jax.nn import rotary
from re2pix_jax.nn.attention import SelfAttention
from re2pix_jax.nn.dense import Dense
from re2pix_jax.nn.feedforward import FusedSwiGLU, Mlp, swiglu_width
from re2pix_jax.nn.layers import Layers
from re2pix_jax.nn.positions import resize_table

# Over which devices a parameter's last axes may be cut; the first that is found in its path. The
# borders of q, k and v lie within the last axis, as does that of gate and value.
SHARDING = (
    (r'(qkv|w12)/kernel$', P(('tensor', 'fsdp'), None)),
    (r'fc1/kernel$', P('fsdp', 'tensor')),
    (r'(attn/proj|fc2|w3)/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)
# Which kernels muon takes.
MUON = (r'^blocks/.*/kernel$',)


class LayerScale(nn.Module):
    """A learned factor per channel. Starts at 1 [O]: the published 1e-5 suits deep networks and
    long schedules only.
    """

    @nn.compact
    def __call__(self, x):
        return x * self.param('gamma', nn.initializers.ones, (x.shape[-1],)).astype(x.dtype)


class Block(nn.Module):
    """x + ls1(attn(norm1 x)), then x + ls2(mlp(norm2 x)): [B, N, D] -> [B, N, D]. Fields as in
    `VisionTransformer`.
    """

    heads: int
    ffn: str
    mlp_ratio: float
    biased: str
    norm_eps: float
    dtype: str

    @nn.compact
    def __call__(self, x, code):
        """`code`: the rotary code of the N tokens, or None."""
        dtype, width = jnp.dtype(self.dtype), x.shape[-1]
        if self.ffn == 'swiglu':
            mlp = FusedSwiGLU(swiglu_width(width, self.mlp_ratio), self.dtype, name='mlp')
        else:
            mlp = Mlp(int(width * self.mlp_ratio), dtype=self.dtype, name='mlp')
        attn = SelfAttention(self.heads, biased=self.biased, dtype=self.dtype, name='attn')
        x = x + LayerScale(name='ls1')(
            attn(nn.LayerNorm(self.norm_eps, dtype=dtype, name='norm1')(x), code=code)
        )
        x = x + LayerScale(name='ls2')(
            mlp(nn.LayerNorm(self.norm_eps, dtype=dtype, name='norm2')(x))
        )
        return x, None


class VisionTransformer(nn.Module):
    """Images to a grid of features.

    Attributes:
        patch_size: pixels a side of one patch.
        width, depth, heads: of the transformer. DINOv2: S 384/12/6, B 768/12/12, L 1024/24/16, g
            1536/40/24; DINOv3: S, S+, B, L the same, H+ 1280/32/20, 7B 4096/40/32.
        registers: extra tokens that take part in attention and are dropped at the end (4 in
            DINOv2's *_reg models and in DINOv3, or 0).
        layers: zero-based blocks whose outputs are the features, each through the final norm.
        position_grid: (rows, columns) of the learned position table, other grids are interpolated;
            or None: there is no table, and queries and keys of the patches are turned by rotary
            codes.
        ffn: 'mlp', or 'swiglu' as in ViT-g, S+, H+ and 7B.
        mlp_ratio: hidden width over width (before the two thirds of SwiGLU).
        antialias, offset: convention of that interpolation. Published models with registers: True,
            0.0; without: False, 0.1.
        theta: of the rotary codes, where there is no table.
        biased: which of query, key and value have a bias: 'qkv' in DINOv2, 'qv' in DINOv3, '' in
            its 7B.
        norm_eps: of every LayerNorm: 1e-6 in DINOv2, 1e-5 in DINOv3.
        dtype: compute dtype; parameters are float32.
        unroll: compile every block by itself: faster to train, not to encode with.
    """

    patch_size: int
    width: int
    depth: int
    heads: int
    registers: int
    layers: tuple[int, ...]
    position_grid: tuple[int, int] | None
    ffn: str = 'mlp'
    mlp_ratio: float = 4.0
    antialias: bool = True
    offset: float = 0.0
    theta: float = 100.0
    biased: str = 'qkv'
    norm_eps: float = 1e-6
    dtype: str = 'float32'
    unroll: bool = False

    def setup(self):
        if not self.layers or min(self.layers) < 0 or max(self.layers) >= self.depth:
            raise ValueError(
                f'layers {list(self.layers)} of an encoder of {self.depth} blocks: expected '
                f'numbers from 0 to {self.depth - 1}, at least one; choose others'
            )
        if self.width % (self.heads * (1 if self.position_grid else 4)):
            raise ValueError(
                f'an encoder of width {self.width} cannot have {self.heads} heads: expected heads '
                'of the same '
                f'size{"" if self.position_grid else ", a multiple of 4 for rotary positions"}; '
                'give another number'
            )
        small = nn.initializers.normal(0.02)
        self.cls_token = self.param('cls_token', small, (1, 1, self.width))
        self.mask_token = self.param('mask_token', nn.initializers.zeros, (1, self.width))
        if self.position_grid:
            rows, columns = self.position_grid
            self.pos_embed = self.param('pos_embed', small, (1, 1 + rows * columns, self.width))
        if self.registers:
            self.register_tokens = self.param(
                'register_tokens', small, (1, self.registers, self.width)
            )
        # A convolution whose stride is its size is a matrix product over patches, and faster as
        # one.
        self.patch_embed = Dense(self.width, dtype=jnp.dtype(self.dtype))
        block = functools.partial(
            Block, self.heads, self.ffn, self.mlp_ratio, self.biased, self.norm_eps, self.dtype
        )
        self.blocks = Layers(block, self.depth, unroll=self.unroll)
        self.norm = nn.LayerNorm(self.norm_eps, dtype=jnp.dtype(self.dtype))

    def __call__(self, images: Float[Array, 'B H W 3']) -> Float[Array, 'B h w C']:
        """Normalised images float [B, H, W, 3] -> features [B, H/patch, W/patch, len(layers) *
        width].
        """
        x, grid = self._embed(images, None)
        _, kept = self.blocks(x, self._code(grid), taps=self.layers)
        return jnp.concatenate([self._patches(self.norm(x), grid) for x in kept], axis=-1)

    def tokens(
        self, images: Float[Array, 'B H W 3'], mask: Bool[Array, 'B h w'] | None = None
    ) -> tuple[Float[Array, 'B D'], Float[Array, 'B h w D']]:
        """The last block's tokens after the final norm, for self-distillation.

        Args:
            images: normalised, float [B, H, W, 3].
            mask: bool [B, h, w]; where true, the patch embedding is replaced by the mask token.
                None for no mask.

        Returns:
            (class token [B, width], patch tokens [B, h, w, width]).
        """
        x, grid = self._embed(images, mask)
        x = self.norm(self.blocks(x, self._code(grid))[0])
        return x[:, 0], self._patches(x, grid)

    def _embed(self, images, mask):
        batch, height, width, channels = images.shape
        size = self.patch_size
        if height % size or width % size:
            raise ValueError(
                f'images of {height}x{width} pixels do not divide into patches of {size}: resize '
                f'or crop them to multiples of {size}'
            )
        grid = (height // size, width // size)
        patches = images.reshape(batch, grid[0], size, grid[1], size, channels).swapaxes(2, 3)
        x = self.patch_embed(patches.reshape(batch, grid[0] * grid[1], size * size * channels))
        if mask is not None:
            x = jnp.where(mask.reshape(batch, -1, 1), self.mask_token.astype(x.dtype), x)
        cls = self.cls_token
        if self.position_grid:
            table = self.pos_embed[0, 1:].reshape(*self.position_grid, self.width)
            x = x + resize_table(table, grid, self.antialias, self.offset).reshape(
                1, -1, self.width
            ).astype(x.dtype)
            cls = cls + self.pos_embed[:, :1]
        front = jnp.concatenate([cls, self.register_tokens], axis=1) if self.registers else cls
        front = jnp.broadcast_to(front, (batch, *front.shape[1:])).astype(x.dtype)
        return jnp.concatenate([front, x], axis=1), grid

    def _code(self, grid):
        """The rotary code of all tokens, or None where a table holds the positions."""
        if self.position_grid:
            return None
        return rotary.centred_space_code(
            *grid, self.width // self.heads, self.theta, still=1 + self.registers
        )

    def _patches(self, x, grid):
        return x[:, 1 + self.registers :].reshape(x.shape[0], *grid, self.width)
