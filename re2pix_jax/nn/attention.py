"""Multi-head attention over one axis of tokens.

One function is enough for time, space and both at once: the caller brings the tokens that it wants
mixed to one axis, [..., N, width], and splits off the heads behind it. (Measured on a CPU at 5
frames of 8x16 tokens: that transposition costs less, forward and backward, than any formulation
which keeps the axes in place.)
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from re2pix_jax.nn import layout
from re2pix_jax.nn.dense import Dense, product
from re2pix_jax.nn.dropout import drop
from re2pix_jax.nn.layers import KERNEL
from re2pix_jax.nn.layout import TENSOR, hold
from re2pix_jax.nn.rotary import rotate

# Scores, from which on they are worth keeping in the cache, or out of memory altogether.
LARGE = 256 * 256
SHORT = 16 * 16  # scores, up to which units for matrices stay idle anyway
TILE = 128  # tokens, of which a TPU's kernel takes whole multiples


def attend(query, key, value, dropout: float = 0.0, rng=None):
    """Softmax attention, scaled by 1/sqrt(d).

    Args:
        query: [..., N, heads, d]; leading axes are batch.
        key, value: [..., M, heads, d]; or lists or tuples of such arrays, read as if one followed
            the other.
        dropout: probability with which an attention weight is dropped. Only acts when `rng` is
            given.
        rng: key of the dropout mask, or None for none.

    Returns:
        [..., N, heads, d], in the dtype of `query`.
    """
    rng = rng if dropout > 0.0 else None
    keys, values = (x if isinstance(x, (list, tuple)) else [x] for x in (key, value))
    scores = query.shape[-3] * sum(key.shape[-3] for key in keys)
    mix = functools.partial(_mixed, _mix, dropout)
    choices = {}
    if scores >= LARGE:
        choices['cpu'] = functools.partial(_mixed, _one_by_one, dropout)
        if rng is None and _fits_flash(query):
            choices['cuda'] = _flash
        if rng is None and _fits_splash(query, keys):
            choices['tpu'] = _splash
    elif rng is None and scores <= SHORT:
        choices = dict.fromkeys(('cuda', 'rocm', 'tpu'), _elementwise)
    if not choices:
        return mix(query, keys, values, rng)
    # By the platform that is compiled for, which need not be the one this runs on.
    return jax.lax.platform_dependent(query, keys, values, rng, default=mix, **choices)


@functools.cache
def _has_flash() -> bool:
    """Whether cuDNN has, for the GPUs here, the kernel that never writes its scores: Nvidia's from
    Ampere on. Where there are none it cannot be asked for, not even to compile for them.
    """
    try:
        devices = jax.devices('cuda')
    except RuntimeError:
        return False
    return all(float(device.compute_capability) >= 8 for device in devices)


def _fits_flash(query) -> bool:
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and _has_flash()


def _flash(query, keys, values, _):
    flat = [x.reshape(-1, *x.shape[-3:]) for x in (query, _joined(keys), _joined(values))]
    return jax.nn.dot_product_attention(*flat, implementation='cudnn').reshape(query.shape)


def _fits_splash(query, keys) -> bool:
    """Whether Pallas' kernel for TPUs takes these without padding. Where something else is compiled
    for, it is not even traced: that takes time.
    """
    lengths = query.shape[-3], *(key.shape[-3] for key in keys)
    fits = query.dtype == jnp.bfloat16 and not any(length % TILE for length in lengths)
    return fits and layout.platform() == 'tpu'


def _splash(query, keys, values, _, interpret: bool = False):
    """Pallas' splash attention, which never writes its scores; `interpret` computes it anywhere.

    At 512 tokens and 32 frames it moves half the bytes that products do, 0.37 of them with
    gradients, by the compiler for a v5e (`re2pix benchmark attention`).
    """

    def kernel(query, key, value):
        tokens, heads, d = query.shape[-3:]
        mask = splash_attention_mask.FullMask((tokens, key.shape[-3]))
        block_q, block_kv = (_block(x.shape[-3]) for x in (query, key))
        attention = splash_attention_kernel.make_splash_mha_single_device(
            splash_attention_mask.MultiHeadMask(heads * [mask]),
            block_sizes=splash_attention_kernel.BlockSizes(
                block_q=block_q,
                block_kv=block_kv,
                block_q_dkv=block_q,
                block_kv_dkv=block_kv,
                block_kv_dkv_compute=block_kv,
                use_fused_bwd_kernel=True,
            ),
            residual_checkpoint_name=KERNEL,
            interpret=interpret,
        )
        flat = (x.reshape(-1, *x.shape[-3:]).swapaxes(1, 2) for x in (query * d**-0.5, key, value))
        return jax.vmap(attention)(*flat).swapaxes(1, 2).reshape(query.shape)

    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    # Nothing but a program written out by device is cut around a kernel.
    return layout.by_device(kernel, TENSOR, None)(query, _joined(keys), _joined(values))


def _block(tokens: int) -> int:
    return max(size for size in range(TILE, 4 * TILE + 1, TILE) if tokens % size == 0)


def _joined(parts):
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-3)


def _elementwise(query, keys, values, _):
    """`attend` by multiplications and sums that XLA fuses; of tiny matrix products every one would
    go through memory, and on TPUs be padded to units of 128.

    At 4 queries and 8 keys this takes a third of their time on an H100, half with gradients; by the
    compiler for a v5e a fifth of their cycles, a quarter with gradients (`re2pix benchmark
    attention`).
    """
    query = query[..., :, None, :, :].astype(jnp.float32) * query.shape[-1] ** -0.5
    scores = jnp.concatenate(
        [(query * key[..., None, :, :, :]).sum(-1) for key in keys], axis=-2
    )  # [..., N, M, heads]
    ends = np.cumsum([key.shape[-3] for key in keys])[:-1]
    weights = jnp.split(jax.nn.softmax(scores, axis=-2), ends, axis=-2)
    mixed = sum(
        (part[..., None] * value[..., None, :, :, :]).sum(-3)
        for part, value in zip(weights, values)
    )
    return mixed.astype(values[0].dtype)


def _mixed(mix, dropout, query, keys, values, rng):
    """Heads before tokens: batched products over the last two axes, which every backend does
    without strided reads.
    """
    heads_first = (x.swapaxes(-3, -2) for x in (query, _joined(keys), _joined(values)))
    return mix(*heads_first, dropout, rng).swapaxes(-3, -2)


def _mix(query, key, value, dropout, rng):
    """`attend` with heads before tokens: [..., heads, N, d]."""
    scale = query.shape[-1] ** -0.5
    scores = jnp.einsum(
        '...qd,...kd->...qk', query * scale, key, preferred_element_type=jnp.float32
    )
    weights = jax.nn.softmax(scores).astype(query.dtype)
    if rng is not None:
        weights = drop(weights, dropout, rng)
    return jnp.einsum('...qk,...kd->...qd', weights, value)


def _one_by_one(query, key, value, dropout, rng):
    """`_mix`, one matrix of scores after the other, and again in the backward pass: scores stay in
    a CPU's cache and are never kept.

    At 512 tokens this halves the time, forward and backward. The first axis, which devices share,
    is not taken apart.
    """

    def in_front(x):  # [B, ..., N, d] -> [what is taken one by one, B, N, d]
        return jnp.moveaxis(x.reshape(batch, -1, *x.shape[-2:]), 1, 0)

    batch, shape = (query.shape[0] if query.ndim > 3 else 1), query.shape
    parts = [in_front(x) for x in (query, key, value)]
    keys = None if rng is None else jax.random.split(rng, len(parts[0]))
    mixed = jax.lax.map(
        jax.checkpoint(lambda part: _mix(*part[:3], dropout, part[3])), (*parts, keys)
    )
    return jnp.moveaxis(mixed, 0, 1).reshape(shape)


def split_heads(x: Float[Array, '*batch N D'], heads: int) -> Float[Array, '*batch N h d']:
    """Query, key or value [..., N, width] -> [..., N, heads, d], heads over the devices that share
    a layer.
    """
    return hold(x.reshape(*x.shape[:-1], heads, -1), TENSOR, None)


class QueryKeyValue(nn.Module):
    """One fused projection: [..., N, width] -> query, key and value, a list of [..., N, width].

    Attributes:
        biased: which of 'q', 'k' and 'v' have a bias, in that order; the bias is as long as those
            together.
        dtype: compute dtype.
    """

    biased: str = 'qkv'
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x):
        width, dtype = x.shape[-1], jnp.dtype(self.dtype)
        kernel = self.param('kernel', nn.initializers.xavier_uniform(), (width, 3 * width))
        y = product(x.astype(dtype), kernel.astype(dtype), parts=3, tensor='out')
        if not self.biased:
            return y
        bias = self.param('bias', nn.initializers.zeros, (len(self.biased) * width,)).astype(dtype)
        pieces = dict(zip(self.biased, jnp.split(bias, len(self.biased))))
        return [one + pieces[name] if name in pieces else one for name, one in zip('qkv', y)]


class SelfAttention(nn.Module):
    """Self-attention with one fused projection to query, key and value: [..., N, width] -> [..., N,
    width].

    Used by the encoders' blocks and, the same thing under other names, by torch's
    `MultiheadAttention`.

    Attributes:
        heads: of them.
        dropout: probability with which an attention weight is dropped.
        dtype: compute dtype.
        biased: as in `QueryKeyValue`.
    """

    heads: int
    dropout: float = 0.0
    dtype: str = 'float32'
    biased: str = 'qkv'

    @nn.compact
    def __call__(self, x, deterministic: bool = True, code=None):
        """`code` is a rotary code of the N tokens, by which queries and keys are turned; None for
        no positions.
        """
        query, key, value = (
            split_heads(part, self.heads)
            for part in QueryKeyValue(self.biased, self.dtype, name='qkv')(x)
        )
        if code is not None:
            query, key = rotate(query, code), rotate(key, code)
        rng = None if deterministic or self.dropout == 0.0 else self.make_rng('dropout')
        mixed = attend(query, key, value, self.dropout, rng)
        initial = nn.initializers.xavier_uniform()
        return Dense(
            x.shape[-1],
            tensor='in',
            dtype=jnp.dtype(self.dtype),
            kernel_init=initial,
            name='proj',
        )(mixed.reshape(x.shape))
