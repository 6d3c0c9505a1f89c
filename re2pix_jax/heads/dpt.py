"""The dense prediction transformer's head (Ranftl et al. 2021) on four layers of features, as
DINO-Foresight trains it.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from re2pix_jax.nn.dropout import Dropout
from re2pix_jax.nn.positions import resize

# Over which devices a parameter's last axes may be cut; the last two of a `PatchUp` are within one.
SHARDING = (
    (r'resize_[01]/kernel$', P()),
    (r'conv1/kernel$', P('fsdp', 'tensor')),
    (r'conv2/kernel$', P('tensor', 'fsdp')),
    (r'kernel$', P('fsdp', None)),
    (r'', P()),
)


class PatchUp(nn.Module):
    """A transposed convolution whose stride is its size: every token becomes a patch. [B, h, w, C]
    -> [B, sh, sw, D].
    """

    features: int
    scale: int
    dtype: str

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        scale, dtype = self.scale, jnp.dtype(self.dtype)
        initial = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2, 3))
        kernel = self.param('kernel', initial, (channels, scale, scale, self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        patches = jnp.einsum('bhwc,cyxd->bhywxd', x.astype(dtype), kernel.astype(dtype))
        return patches.reshape(batch, height * scale, width * scale, self.features) + bias.astype(
            dtype
        )


class ResidualUnit(nn.Module):
    """relu, conv, [BN], relu, conv, [BN], + x."""

    batch_norm: bool
    dtype: str

    @nn.compact
    def __call__(self, x, train: bool):
        out = x
        for index in (1, 2):
            out = nn.Conv(
                x.shape[-1], (3, 3), padding=1, dtype=jnp.dtype(self.dtype), name=f'conv{index}'
            )(nn.relu(out))
            if self.batch_norm:
                out = _batch_norm(f'bn{index}', self.dtype)(out, use_running_average=not train)
        return out + x


class Fusion(nn.Module):
    """Joins a coarse path with the skip input of the next finer level, and brings both to
    `size`.
    """

    batch_norm: bool
    dtype: str

    @nn.compact
    def __call__(self, path, skip, size, train: bool):
        if skip is not None:
            path = path + ResidualUnit(self.batch_norm, self.dtype, name='unit1')(skip, train)
        path = ResidualUnit(self.batch_norm, self.dtype, name='unit2')(path, train)
        # A 1x1 convolution and an interpolation commute (the weights of each sample sum to 1):
        # convolve the small map.
        path = nn.Conv(path.shape[-1], (1, 1), dtype=jnp.dtype(self.dtype), name='out_conv')(path)
        return resize(path, size, method='linear', align_corners=True)


def _batch_norm(name, dtype):
    return nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=jnp.dtype(dtype), name=name)


class DPTHead(nn.Module):
    """Four layers of features -> dense logits at 8 times the grid.

    Attributes:
        classes: output channels (published: 19 segmentation, 256 depth, 3 normals).
        features: channels of the fusion path (published: 256).
        channels: channels that the four layers are projected to.
        batch_norm: whether the residual units have batch norm; the output convolution always has.
        dropout: before the last convolution, when training.
        dtype: compute dtype; parameters are float32.
    """

    classes: int
    features: int = 256
    channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    batch_norm: bool = False
    dropout: float = 0.1
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self, features: Float[Array, 'B h w C'], train: bool = False
    ) -> Float[Array, 'B 8*h 8*w K']:
        """Features [B, h, w, 4 D] -> logits [B, 8h, 8w, classes], float32.

        With `train=True` batch norm uses the batch's statistics (make 'batch_stats' mutable) and
        dropout acts (random stream 'dropout').
        """
        if features.shape[-1] % 4:
            raise ValueError(
                f'the head was given features of {features.shape[-1]} channels: it takes four '
                'layers side by side, a multiple of 4'
            )
        dtype = jnp.dtype(self.dtype)
        layers = [
            nn.Conv(channels, (1, 1), dtype=dtype, name=f'projects_{index}')(layer)
            for index, (layer, channels) in enumerate(
                zip(jnp.split(features, 4, axis=-1), self.channels)
            )
        ]
        layers[0] = PatchUp(self.channels[0], 4, self.dtype, name='resize_0')(layers[0])
        layers[1] = PatchUp(self.channels[1], 2, self.dtype, name='resize_1')(layers[1])
        layers[3] = nn.Conv(
            self.channels[3], (3, 3), strides=2, padding=1, dtype=dtype, name='resize_3'
        )(layers[3])
        skips = [
            nn.Conv(
                self.features,
                (3, 3),
                padding=1,
                use_bias=False,
                dtype=dtype,
                name=f'layer{index + 1}_rn',
            )(layer)
            for index, layer in enumerate(layers)
        ]

        finest = skips[0].shape[1:3]
        sizes = [(2 * finest[0], 2 * finest[1])] + [skip.shape[1:3] for skip in skips[:3]]
        path = skips[3]
        for level in (3, 2, 1, 0):
            fusion = Fusion(self.batch_norm, self.dtype, name=f'refinenet{level + 1}')
            path = fusion(path, None if level == 3 else skips[level], sizes[level], train)

        path = nn.Conv(
            self.features, (3, 3), padding=1, use_bias=False, dtype=dtype, name='output_conv'
        )(path)
        path = nn.relu(_batch_norm('output_bn', self.dtype)(path, use_running_average=not train))
        path = Dropout(self.dropout)(path, deterministic=not train)
        return nn.Conv(self.classes, (1, 1), dtype=dtype, name='output')(path).astype(jnp.float32)
