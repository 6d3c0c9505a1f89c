"""PatchGAN's discriminator: which patches of an image are real. Only training needs it."""

import flax.linen as nn
from jaxtyping import Array, Float

from re2pix_jax.nn.convolution import conv


class PatchDiscriminator(nn.Module):
    """4x4 convolutions, each but the last halving the map (pix2pix) [R]; without their norms, which
    would hide how strong an image's edges are [O].

    Attributes:
        widths: channels after each halving.
    """

    widths: tuple = (64, 128, 256)
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, images: Float[Array, 'B H W 3']) -> Float[Array, 'B h w']:
        """Images in [-1, 1] → a score for each patch, the higher the more real."""
        x = images
        for index, features in enumerate(self.widths):
            x = conv(features, 4, self.dtype, stride=2, padding=1, name=f'conv_{index}')(x)
            x = nn.leaky_relu(x, 0.2)
        return conv(1, 4, 'float32', padding=1, name='conv_out')(x)[..., 0]
