"""Position-wise feed-forward layers."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.nn.dense import Dense
from re2pix_jax.nn.dropout import Dropout
from re2pix_jax.nn.layers import operand
from re2pix_jax.nn.layout import TENSOR, hold


def gelu(x):
    """The exact GELU by erf, as torch has it; jax's own takes erfc, several times the work on a
    CPU.
    """
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


class Mlp(nn.Module):
    """Linear -> exact (erf) GELU -> dropout -> Linear -> dropout: [..., width] -> [..., width]."""

    hidden: int
    dropout: float = 0.0
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x, deterministic: bool = True):
        dtype = jnp.dtype(self.dtype)
        hidden = gelu(hold(Dense(self.hidden, tensor='out', dtype=dtype, name='fc1')(x), TENSOR))
        hidden = Dropout(self.dropout)(hidden, deterministic)
        return Dropout(self.dropout)(
            Dense(x.shape[-1], tensor='in', dtype=dtype, name='fc2')(hidden), deterministic
        )


class FusedSwiGLU(nn.Module):
    """w3(silu(a) * b) with (a, b) = w12(x), as DINOv2's ViT-g has it: [..., width] -> [..., width].

    `hidden` is the width of a and b each.
    """

    hidden: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        dtype = jnp.dtype(self.dtype)
        gate, value = (
            hold(part, TENSOR)
            for part in Dense(2 * self.hidden, parts=2, tensor='out', dtype=dtype, name='w12')(x)
        )
        hidden = operand(nn.silu(gate) * value)
        return Dense(x.shape[-1], tensor='in', dtype=dtype, name='w3')(hidden)


def swiglu_width(width: int, mlp_ratio: float) -> int:
    """The hidden width of DINOv2's SwiGLU: two thirds of mlp_ratio * width, rounded up to a
    multiple of 8.
    """
    return (int(int(width * mlp_ratio) * 2 / 3) + 7) // 8 * 8
