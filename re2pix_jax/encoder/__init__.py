"""The frozen encoder: driving frames in, semantic features (and their principal components) out.

DINOv2 and DINOv3 are one module, `VisionTransformer`. The two other encoders that DINO-Foresight
offers are left out, because either would be a second network behind flags of this one. SAM's
ViT-B/16 attends within windows, adds relative positions to the scores and has neither class token
nor final norm; EVA-02-CLIP's B/14 norms inside its feed-forward, has a table and rotary positions
at once, and no LayerScale.
"""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real, Shaped

from re2pix_jax.encoder.principal import Principal
from re2pix_jax.encoder.vit import VisionTransformer
from re2pix_jax.nn.frames import check_frames
from re2pix_jax.nn.summary import summary

IMAGE_MEAN = (
    0.485,
    0.456,
    0.406,
)  # of ImageNet in RGB, [0, 1]: what DINOv2 and DINOv3 (web images) were trained with
IMAGE_STD = (0.229, 0.224, 0.225)
MOST = 10.0  # normalised frames lie within 3; no frames from 0 to 255 but black ones within this


def standardise(images: Float[Array, '... 3']) -> Float[Array, '... 3']:
    """RGB from 0 to 1 [..., 3] with ImageNet's mean and deviation removed."""
    return (images - jnp.asarray(IMAGE_MEAN)) / jnp.asarray(IMAGE_STD)


def normalise(frames: Real[Array, '... 3']) -> Float[Array, '... 3']:
    """RGB as whole numbers to 255 [..., 3] -> float32, standardised; floating frames pass
    unchanged.
    """
    if jnp.issubdtype(frames.dtype, jnp.floating):
        return frames
    return standardise(frames.astype(jnp.float32) / 255.0)


@flax.struct.dataclass
class Encoder:
    """A vision transformer with its weights.

    Attributes:
        params: the variables of `net`.
        net: a `VisionTransformer`.
        image_size: (height, width) that frames are resized to first, or None to take them as they
            are.
    """

    params: Any
    net: nn.Module = flax.struct.field(pytree_node=False)
    image_size: tuple[int, int] | None = flax.struct.field(pytree_node=False, default=None)

    __repr__ = summary

    def of_any_size(self) -> 'Encoder':
        """Itself, but for frames as they are: the grid is theirs, where it was last used at another
        size, too.
        """
        return self.replace(image_size=None)

    def encode(self, frames: Shaped[Array | np.ndarray, '...']) -> Float[Array, 'B T h w C']:
        """Frames [B, T, H, W, 3] -> features [B, T, h, w, C], float.

        Whole numbers are RGB from 0 to 255 and get normalised, floating frames are taken as
        normalised already. Where `image_size` is set, frames of another size are resized to it
        (bilinear, antialiased). ValueError for what is neither.
        """
        return self._encode(check_frames(frames, MOST, 'floats that `normalise` made', unit=False))

    @jax.jit
    def _encode(self, frames):
        batch, time = frames.shape[:2]
        images = frames.reshape(batch * time, *frames.shape[2:])
        if self.image_size is not None and images.shape[1:3] != tuple(self.image_size):
            was_integer = not jnp.issubdtype(images.dtype, jnp.floating)
            shape = (images.shape[0], *self.image_size, 3)
            images = jax.image.resize(images.astype(jnp.float32), shape, 'linear', antialias=True)
            if was_integer:
                images = standardise(images / 255.0)
        features = self.net.apply(self.params, normalise(images))
        return features.reshape(batch, time, *features.shape[1:])


__all__ = [
    'IMAGE_MEAN',
    'IMAGE_STD',
    'Encoder',
    'Principal',
    'VisionTransformer',
    'normalise',
    'standardise',
]
