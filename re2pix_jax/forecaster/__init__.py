"""Stage 1: forecasts the semantics of the coming frames."""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from re2pix_jax.encoder import Encoder
from re2pix_jax.encoder.principal import Principal
from re2pix_jax.forecaster import rollout
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer, smooth_l1
from re2pix_jax.nn.summary import summary


@flax.struct.dataclass
class Forecaster:
    """A masked feature transformer with its weights, and the encoder and principal components it
    lives on.

    Attributes:
        params: the variables of `net`.
        net: a `MaskedFeatureTransformer`.
        encoder, principal: what turns frames into its input.
    """

    params: Any
    net: nn.Module = flax.struct.field(pytree_node=False)
    encoder: Encoder
    principal: Principal

    __repr__ = summary

    def encode(self, frames: Shaped[Array | np.ndarray, '...']) -> Float[Array, 'B T h w P']:
        """Frames [B, T, H, W, 3] -> components [B, T, h, w, P] (see `Encoder.encode` for dtypes
        and errors).
        """
        return self.principal.project(self.encode_features(frames))

    def encode_features(
        self, frames: Shaped[Array | np.ndarray, '...']
    ) -> Float[Array, 'B T h w C']:
        """Frames [B, T, H, W, 3] -> the encoder's features [B, T, h, w, C].

        Frames of any size are brought to the grid that the forecaster was trained on: the VAE's
        frames (256x512) are larger than the encoder's (224x448).
        """
        patch = self.encoder.net.patch_size
        encoder = self.encoder.replace(image_size=tuple(side * patch for side in self.net.grid))
        return encoder.encode(frames)

    @functools.partial(jax.jit, static_argnames='steps')
    def forecast(
        self, components: Float[Array | np.ndarray, '...'], steps: int
    ) -> Float[Array, 'B {steps} h w P']:
        """Components [B, >= T - 1, h, w, P] -> the next `steps` frames' components [B, steps, h, w,
        P]. ValueError for another grid, too few frames or less than a step.
        """
        return rollout.forecast(self.params, self.net, components, steps)

    @jax.jit
    def features(self, components: Float[Array | np.ndarray, '...']) -> Float[Array, '...']:
        """Components [..., P] -> the encoder's features [..., C], as far as the components hold
        them.
        """
        return self.principal.reconstruct(components)


__all__ = ['Forecaster', 'MaskedFeatureTransformer', 'rollout', 'smooth_l1']
