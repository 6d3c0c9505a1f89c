"""The linear layer of all token networks, and parameters in the precision that layers compute
in.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from re2pix_jax.nn import layout

OVER = {'': (None, None), 'in': (layout.TENSOR, None), 'out': (None, layout.TENSOR)}
"""Over which axis of the mesh the last two axes of a kernel lie while it is used."""


class Dense(nn.Module):
    """flax's `Dense`, [..., width] -> [..., features], computed over one flat axis of tokens.

    The result is the same. But where several axes lead, the gradient of the kernel sums over all of
    them, for which XLA may first make a transposed copy of what comes in from above; over one axis
    it does not. On CPUs a training step then takes a tenth less.

    The kernel is rounded to `dtype` where it is kept and gathered after that, one layer's at a
    time. Its gradient is a product in `dtype` over a device's own clips, accumulated in float32
    and rounded once; that is what devices sum. From there on it is float32.

    Attributes:
        features: of the result.
        parts: how many results stand side by side in the kernel, as query, key and value do; with
            more than one, a list of them is returned.
        tensor: what of the kernel lies over the devices that share a layer: 'out', the features of
            each part, 'in', the width (the result is then a sum over these devices), or '', none.
        use_bias, dtype, kernel_init, bias_init: as flax's.
    """

    features: int
    parts: int = 1
    tensor: str = ''
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param('bias', self.bias_init, (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return product(x, kernel, bias, self.parts, self.tensor)


def product(x, kernel, bias=None, parts: int = 1, tensor: str = ''):
    """x [..., width] times a kernel [width, features], plus a bias [features]: as `Dense`, whose
    fields `parts` and `tensor` are.
    """
    width, features = kernel.shape
    over = OVER[tensor]
    apart = parts > 1 and layout.devices(layout.TENSOR) > 1
    if apart:  # an axis of its own: devices share each part, not all of them side by side
        # From where it is kept, rows over the same devices, the way to columns is an all-to-all.
        kernel = layout.whole(kernel, layout.TENSOR, None)
        kernel = kernel.reshape(width, parts, features // parts)
        over = over[0], None, over[1]
    y = jax.lax.dot_general(
        x.reshape(-1, width), layout.whole(kernel, *over), (((1,), (0,)), ((), ()))
    )
    if bias is not None:
        y = y + bias.reshape(y.shape[1:])
    y = y.reshape(*x.shape[:-1], *y.shape[1:])
    if parts == 1:
        return y
    # Of a split the gradient is one concatenation, of slices a sum of padded arrays.
    found = jnp.split(y, parts, axis=-2 if apart else -1)
    return [part[..., 0, :] for part in found] if apart else found


def in_compute_dtype(params, dtype):
    """The nested dicts `params` with kernels, and the biases beside them, as layers that compute in
    `dtype` round them at every call; not for layers that take their kernel otherwise.
    """
    if not isinstance(params, dict):
        return params
    if 'kernel' in params:
        return {name: leaf.astype(dtype) for name, leaf in params.items()}
    return {name: in_compute_dtype(part, dtype) for name, part in params.items()}
