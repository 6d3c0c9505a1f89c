"""Heads that read features: segmentation, depth, normals. They judge predictions; nothing is generated with them."""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.heads.dpt import DPTHead
from re2pix_jax.nn.positions import resize


@flax.struct.dataclass
class Head:
    """A dense-prediction head with its weights.

    Attributes:
        params: the variables of `net`, running statistics included.
        net: a `DPTHead`.
    """

    params: Any
    net: nn.Module = flax.struct.field(pytree_node=False)

    @jax.jit
    def logits(self, features):
        """Features [B, T, h, w, C] -> logits [B, T, 8h, 8w, K], float32."""
        batch, time = features.shape[:2]
        logits = self.net.apply(self.params, features.reshape(batch * time, *features.shape[2:]))
        return logits.reshape(batch, time, *logits.shape[1:])

    @functools.partial(jax.jit, static_argnames='size')
    def labels(self, features, size: tuple[int, int] | None = None):
        """Features [B, T, h, w, C] -> most likely class, uint8 [B, T, *size] (the logits' size if None).

        Logits are resized bicubically (align_corners False, no antialiasing) before the decision, as the reference
        evaluates. One frame at a time: at full resolution the logits of a clip would fill memory.
        """
        logits = self.logits(features)
        size = logits.shape[2:4] if size is None else tuple(size)
        flat = logits.reshape(-1, *logits.shape[2:])
        labels = jax.lax.map(lambda frame: jnp.argmax(resize(frame, size, method='cubic'), -1).astype(jnp.uint8), flat)
        return labels.reshape(*logits.shape[:2], *size)


__all__ = ['DPTHead', 'Head']
