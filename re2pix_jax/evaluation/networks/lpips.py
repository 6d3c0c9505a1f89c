"""LPIPS (Zhang et al., 2018), version 0.1 on AlexNet: how different two frames look to a network
that people's judgements weighted. [R]
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.nn.summary import summary

CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
"""AlexNet's: (features, kernel, stride, padding); the first two are followed by a 3x3 maximum of
stride 2.
"""
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
LEAST_SIDE = 31
"""Of a frame, in pixels: less is nothing after the strides."""


class AlexLPIPS(nn.Module):
    """Two sets of images [N, H, W, 3] in [-1, 1] → their distance, [N]."""

    @nn.compact
    def __call__(self, one, other):
        x = (jnp.concatenate([one, other]) - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        total = 0.0
        for index, (features, kernel, stride, padding) in enumerate(CONVOLUTIONS):
            if index in (1, 2):
                x = nn.max_pool(x, (3, 3), (2, 2))
            x = nn.relu(
                nn.Conv(
                    features,
                    (kernel, kernel),
                    stride,
                    padding,
                    precision='highest',
                    name=f'conv_{index}',
                )(x)
            )
            unit = x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)
            squared = jnp.square(jnp.subtract(*jnp.split(unit, 2)))
            weighted = nn.Conv(
                1, (1, 1), use_bias=False, precision='highest', name=f'linear_{index}'
            )(squared)
            total += weighted.mean((1, 2, 3))
        return total


class LPIPS(flax.struct.PyTreeNode):
    """LPIPS with its weights."""

    params: Any
    net: AlexLPIPS = flax.struct.field(pytree_node=False)

    __repr__ = summary

    @jax.jit
    def distance(self, prediction, truth):
        """Frames uint8 [B, T, H, W, 3], at their own size, → float32 [B, T]; 0 for equal frames.

        A step in time after the other, all clips together: clips may lie on several devices.
        """
        if min(prediction.shape[2:4]) < LEAST_SIDE:
            raise ValueError(
                f'LPIPS takes frames of at least {LEAST_SIDE}x{LEAST_SIDE} pixels, got '
                f'{prediction.shape[2:4]}'
            )

        def of_step(pair):
            one, other = (frames.astype(np.float32) / 127.5 - 1 for frames in pair)
            return self.net.apply(self.params, one, other)

        return jax.lax.map(of_step, (prediction.swapaxes(0, 1), truth.swapaxes(0, 1))).swapaxes(
            0, 1
        )
