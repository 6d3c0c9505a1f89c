"""Norms and gated units, ours as the networks have them and tokamax's, as functions of arrays."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.benchmarks.attention_candidates import HAS_TOKAMAX
from re2pix_jax.generator.dit import EPSILON, ModulatedNorm


def modulated_norm(x, own, shift, scale):
    """Ours: x [B, T, N, D], its own scale [D], shift and scale [B, 1, 1, D] from outside."""
    return ModulatedNorm(str(x.dtype)).apply({'params': {'scale': own}}, x, shift, scale)


def tokamax_modulated_norm(x, own, shift, scale):
    """tokamax's norm, which takes one scale for all clips; theirs come after it."""
    import tokamax

    unit = tokamax.layer_norm(x, own, None, epsilon=EPSILON, subtract_mean=False)
    wide, shift, scale = (part.astype(jnp.float32) for part in (unit, shift, scale))
    return (wide * (1 + scale) + shift).astype(x.dtype)


def layer_norm(x, scale, offset):
    """flax's, as the encoders and the forecaster have it."""
    params = {'scale': scale, 'bias': offset}
    return nn.LayerNorm(1e-6, dtype=x.dtype).apply({'params': params}, x)


def tokamax_layer_norm(x, scale, offset):
    import tokamax

    return tokamax.layer_norm(x, scale, offset, epsilon=1e-6)


def gated_unit(x, kernel):
    """silu(a) * b with (a, b) = x [..., width] times the kernel [width, 2 hidden]."""
    gate, value = jnp.split(x @ kernel, 2, axis=-1)
    return nn.silu(gate) * value


def tokamax_gated_unit(x, kernel):
    import tokamax

    weights = kernel.reshape(len(kernel), 2, -1)
    return tokamax.gated_linear_unit(x, weights, activation=jax.nn.silu)


MODULATED_NORMS = {'ours': modulated_norm}
NORMS = {'ours': layer_norm}
GATED_UNITS = {'ours': gated_unit}
if HAS_TOKAMAX:
    MODULATED_NORMS['tokamax'] = tokamax_modulated_norm
    NORMS['tokamax'] = tokamax_layer_norm
    GATED_UNITS['tokamax'] = tokamax_gated_unit
