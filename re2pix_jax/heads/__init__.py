"""Heads that read features: segmentation, depth, normals. They judge predictions; nothing is
generated with them.
"""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, UInt8

from re2pix_jax.heads import ordinal
from re2pix_jax.heads.dpt import DPTHead
from re2pix_jax.nn.positions import resize_matrix
from re2pix_jax.nn.summary import summary

VERBS = {'segmentation': 'labels', 'depth': 'depth', 'normals': 'normals'}
"""What a head may read, and the method of `Head` that gives it."""
ROWS = 64  # of the output that are resized at once, of all clips together


@flax.struct.dataclass
class Head:
    """A dense-prediction head with its weights.

    Attributes:
        params: the variables of `net`, running statistics included.
        net: a `DPTHead`.
        reads: 'segmentation' | 'depth' | 'normals': what its output means.
        depth_range: of a depth head whose classes are metres, the (nearest, farthest) depth, see
            `ordinal` [O]; None where the class itself is the depth [R].
        encoder: `bundles.identity` of the encoder whose features it was trained on, None where
            that is not known.

    Raises:
        ValueError: `reads`, `depth_range` and the network's outputs contradict each other.
    """

    params: Any
    net: nn.Module = flax.struct.field(pytree_node=False)
    reads: str = flax.struct.field(pytree_node=False, default='segmentation')
    depth_range: tuple[float, float] | None = flax.struct.field(pytree_node=False, default=None)
    encoder: str | None = flax.struct.field(pytree_node=False, default=None)

    __repr__ = summary

    def __post_init__(self):
        if self.reads not in VERBS:
            raise ValueError(
                f'a head that reads {self.reads!r}: expected one of {", ".join(VERBS)}'
            )
        least, most = {'segmentation': (1, 256), 'depth': (2, 1 << 16), 'normals': (3, 3)}[
            self.reads
        ]
        if not least <= self.net.classes <= most:
            expected = least if least == most else f'{least} to {most}'
            raise ValueError(
                f'a head that reads {self.reads} has {self.net.classes} classes: expected '
                f'{expected}'
            )
        if self.depth_range is not None and (
            self.reads != 'depth'
            or len(self.depth_range) != 2
            or not 0 < self.depth_range[0] < self.depth_range[1]
        ):
            raise ValueError(
                f'a head that reads {self.reads} has depth_range {self.depth_range}: expected '
                'None, or for depth the nearest and the farthest in metres'
            )

    @property
    def channels(self) -> int:
        """How many channels the features have that it takes."""
        return 4 * self.params['params']['projects_0']['kernel'].shape[-2]

    def logits(self, features: Float[Array | np.ndarray, '...']) -> Float[Array, 'B T H W K']:
        """Features [B, T, h, w, C] -> the network's output [B, T, 8h, 8w, K], float32."""
        if features.ndim != 5:
            raise ValueError(
                f'the head takes features [B, T, h, w, {self.channels}] and was given '
                f'{list(features.shape)}'
            )
        if features.shape[-1] != self.channels:
            raise ValueError(
                f'the head takes features of {self.channels} channels and was given features of '
                f'{features.shape[-1]} channels: use it with the encoder that it was trained on, '
                'or train one for this encoder'
            )
        return self._logits(features)

    @jax.jit
    def _logits(self, features):
        batch, time = features.shape[:2]
        logits = self.net.apply(self.params, features.reshape(batch * time, *features.shape[2:]))
        return logits.reshape(batch, time, *logits.shape[1:])

    def labels(
        self, features: Float[Array | np.ndarray, '...'], size: tuple[int, int] | None = None
    ) -> UInt8[Array, 'B T H W']:
        """Features [B, T, h, w, C] -> most likely class, uint8 [B, T, *size] (the logits' size if
        None).

        Logits are resized bicubically (align_corners False, no antialiasing) before the decision,
        as the reference evaluates. [R]
        """
        return self._only('segmentation', features, size)

    def depth(
        self, features: Float[Array | np.ndarray, '...'], size: tuple[int, int] | None = None
    ) -> Float[Array, 'B T H W']:
        """Features [B, T, h, w, C] -> depth, float32 [B, T, *size] (the logits' size if None),
        never 0.

        Metres with a `depth_range`, else ordinal classes. Of the resized logits, as for `labels`,
        the most likely class but 0 decides: 0 is no answer, and no head is trained to give it. [O:
        the reference lets it compete]
        """
        return self._only('depth', features, size)

    def normals(
        self, features: Float[Array | np.ndarray, '...'], size: tuple[int, int] | None = None
    ) -> Float[Array, 'B T H W 3']:
        """Features [B, T, h, w, C] -> surface normals of length 1, float32 [B, T, *size, 3] (the
        logits' size if None).

        Resized as for `labels`, then brought to length 1. [R]
        """
        return self._only('normals', features, size)

    def _only(self, reads, features, size):
        if self.reads != reads:
            raise ValueError(
                f'this head reads {self.reads} and was asked for {VERBS[reads]}: ask for '
                f'{VERBS[self.reads]}, or load a head that reads {reads}'
            )
        return self.read(self.logits(features), size)

    @functools.partial(jax.jit, static_argnames='size')
    def read(
        self, logits: Float[Array, 'B T H W K'], size: tuple[int, int] | None = None
    ) -> Num[Array, 'B T ...']:
        """What the head says by its logits [B, T, H, W, K]: as `labels`, `depth` or `normals`,
        whichever it reads.

        Step by step in time and some rows at once: at full resolution the 256 logits of one frame
        alone take 2 GB. Never clip by clip, for clips may lie on several devices.
        """
        height, width = logits.shape[2:4]
        if size is None or tuple(size) == (height, width):
            return self._decide(logits)
        down, across = (
            jnp.asarray(resize_matrix(*sides, 'cubic')) for sides in zip((height, width), size)
        )

        def read_row(frames, weights):
            rows = jnp.einsum('h,bhwk->bwk', weights, frames, precision='highest')
            return self._decide(jnp.einsum('ow,bwk->bok', across, rows, precision='highest'))

        at_once = min(max(8, ROWS // logits.shape[0]), size[0])
        read_time = lambda frames: jax.lax.map(
            functools.partial(read_row, frames), down, batch_size=at_once
        )
        read = jax.lax.map(read_time, logits.swapaxes(0, 1))  # [T, H, B, W, ...]
        return jnp.moveaxis(read, 2, 0)

    def _decide(self, logits):
        if self.reads == 'normals':
            return logits / jnp.maximum(jnp.linalg.norm(logits, axis=-1, keepdims=True), 1e-12)
        if self.reads == 'depth':
            return ordinal.to_depth(
                1 + jnp.argmax(logits[..., 1:], -1), self.net.classes, self.depth_range
            )
        return jnp.argmax(logits, -1).astype(jnp.uint8)


__all__ = ['VERBS', 'DPTHead', 'Head']
