"""Stage 1: the masked feature transformer of DINO-Foresight (arXiv 2412.11673).

To T - 1 frames of features (principal components) a last frame of nothing but a learned vector is
appended, and filled in.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Real

from re2pix_jax.nn.attention import SelfAttention
from re2pix_jax.nn.dense import Dense
from re2pix_jax.nn.feedforward import Mlp
from re2pix_jax.nn.layers import Layers
from re2pix_jax.nn.positions import resize_matrix

# Over which devices a parameter's last axes may be cut; the first that is found in its path. The
# borders of q, k and v lie within the last axis.
SHARDING = (
    (r'qkv/kernel$', P(('tensor', 'fsdp'), None)),
    (r'fc1/kernel$', P('fsdp', 'tensor')),
    (r'(proj|fc2)/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)
# Which kernels muon takes.
MUON = (r'^layers/.*/kernel$',)


class Layer(nn.Module):
    """Attention over time at each place, attention over space in each frame, feed-forward;
    pre-norm, each with residual.

    [B, T, N, D] -> [B, frames, N, D]: after attention over time only the last `frames` go on (None:
    all T). The last layer needs but the one frame that is read out, two fifths of the work of
    the others.
    """

    heads: int
    mlp_ratio: float
    dropout: float
    dtype: str
    frames: int | None = None

    @nn.compact
    def __call__(self, x, deterministic: bool):
        def norm(name):
            return nn.LayerNorm(1e-5, dtype=jnp.dtype(self.dtype), name=name)

        temporal = SelfAttention(self.heads, self.dropout, self.dtype, name='temporal')
        spatial = SelfAttention(self.heads, self.dropout, self.dtype, name='spatial')
        feed_forward = Mlp(
            int(x.shape[-1] * self.mlp_ratio), self.dropout, self.dtype, name='feed_forward'
        )
        by_place = norm('temporal_norm')(x).swapaxes(1, 2)
        x = x + temporal(by_place, deterministic).swapaxes(1, 2)
        x = x if self.frames is None else x[:, -self.frames :]
        x = x + spatial(norm('spatial_norm')(x), deterministic)
        return x + feed_forward(norm('feed_forward_norm')(x), deterministic), None


class MaskedFeatureTransformer(nn.Module):
    """Predicts the next frame's components from those of the frames before it.

    Attributes:
        components: principal components in and out (published: 1152).
        width, depth, heads: of the transformer (published: 1152, 12, 8); width must be a multiple
            of 3 and of heads.
        frames: T, context frames + 1 (published: 5).
        grid: (rows, columns) of the feature grid.
        mlp_ratio, dropout: published 4 and 0.1.
        dtype: compute dtype; parameters are float32.
        remat: recompute each layer in the backward pass instead of keeping its activations.
        unroll: compile every layer by itself: a training step takes a tenth less, and longer to
            compile; not done for TPUs.
    """

    components: int
    width: int
    depth: int
    heads: int
    frames: int
    grid: tuple[int, int]
    mlp_ratio: float = 4
    dropout: float = 0.1
    dtype: str = 'float32'
    remat: bool = False
    unroll: bool = True

    @nn.compact
    def __call__(self, components, deterministic: bool = True):
        """Context components [B, T - 1, h, w, P] -> those of the next frame [B, h, w, P], float32.

        With `deterministic=False` dropout acts and the random stream 'dropout' is needed.
        """
        batch, time, rows, columns, channels = components.shape
        if (time, rows, columns, channels) != (self.frames - 1, *self.grid, self.components):
            raise ValueError(
                f'the forecaster was given {time} frames of {rows}x{columns} with {channels} '
                f'components; it takes {self.frames - 1} frames of {self.grid[0]}x{self.grid[1]} '
                f'with {self.components}'
            )
        if self.width % 3 or self.width % self.heads:
            raise ValueError(
                f'a forecaster of width {self.width} with {self.heads} heads: the width must be a '
                'multiple of 3 (time, row and column codes) and of the heads'
            )
        dtype = jnp.dtype(self.dtype)
        context = Dense(self.width, dtype=dtype, name='embed')(components)
        mask = self.param('replace_vector', nn.initializers.normal(0.02), (self.width,)).astype(
            dtype
        )
        x = jnp.concatenate(
            [context, jnp.broadcast_to(mask, (batch, 1, rows, columns, self.width))], axis=1
        )
        x = x + self._positions().astype(dtype)
        x = x.reshape(batch, self.frames, rows * columns, self.width)
        layers = Layers(
            functools.partial(Layer, self.heads, self.mlp_ratio, self.dropout, self.dtype),
            self.depth,
            keep='nothing' if self.remat else 'everything',
            unroll=self.unroll,
            name='layers',
        )
        x, _ = layers(x, deterministic, last={'frames': 1})
        out = Dense(self.components, dtype=dtype, kernel_init=nn.initializers.zeros, name='fc_out')(
            x
        )
        return out.reshape(batch, rows, columns, channels).astype(jnp.float32)

    def _positions(self):
        """Learned codes of time, row and column, a third of the channels each: [T, h, w, width]."""
        sizes = (self.frames, *self.grid)
        codes = []
        for axis, size in enumerate(sizes):
            table = self.param(f'd_{axis}', nn.initializers.normal(0.01), (size, self.width // 3))
            shape = [1, 1, 1, self.width // 3]
            shape[axis] = size
            codes.append(jnp.broadcast_to(table.reshape(shape), (*sizes, self.width // 3)))
        return jnp.concatenate(codes, axis=-1)


def adapt_grid(params, grid: tuple[int, int]):
    """Parameters for another feature grid: the row and column codes are interpolated linearly
    (align_corners False).

    This is how the published model goes from 16x32 to 32x64 before it is fine-tuned; give the
    network the same `grid`.
    """
    tables = {
        name: resize_matrix(params['params'][name].shape[0], size, 'linear')
        @ params['params'][name]
        for name, size in zip(('d_1', 'd_2'), grid)
    }
    return {**params, 'params': {**params['params'], **tables}}


def smooth_l1(
    prediction: Real[Array | np.ndarray, '...'],
    target: Real[Array | np.ndarray, '...'],
    beta: float = 0.1,
) -> Float[Array, '...']:
    """0.5 d^2 / beta where |d| < beta, |d| - beta / 2 elsewhere, as torch's SmoothL1Loss; float32,
    per element.
    """
    distance = jnp.abs(prediction.astype(jnp.float32) - target.astype(jnp.float32))
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)
