"""Ways to compute attention, ours and others' kernels, as functions of query [B, ..., N, heads, d]
and key and value [B, ..., M, heads, d] that give what `nn.attention.attend` gives.
"""

import importlib.util

import jax

from re2pix_jax.nn import attention

BLOCK = 512  # tokens that a kernel takes at a time where there are as many


def products(query, key, value):
    """Two batched products, with the scores between them."""
    return attention._mixed(attention._mix, 0.0, query, [key], [value], None)


def elementwise(query, key, value):
    """Multiplications and sums."""
    return attention._elementwise(query, [key], [value], None)


def splash(query, key, value, interpret: bool = False):
    """Pallas' splash attention for TPUs."""
    return attention._splash(query, [key], [value], None, interpret)


def flash(query, key, value):
    """Pallas' older flash attention for TPUs."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    queries, keys = (min(BLOCK, x.shape[-3]) for x in (query, key))
    sizes = pallas.BlockSizes(
        block_q=queries,
        block_k_major=keys,
        block_k=keys,
        block_b=1,
        block_q_major_dkv=queries,
        block_k_major_dkv=keys,
        block_k_dkv=keys,
        block_q_dkv=queries,
        block_k_major_dq=keys,
        block_k_dq=keys,
        block_q_dq=queries,
    )
    heads_first = (x.swapaxes(1, 2) for x in map(_flat, (query, key, value)))
    mixed = pallas.flash_attention(
        *heads_first, sm_scale=query.shape[-1] ** -0.5, block_sizes=sizes
    )
    return mixed.swapaxes(1, 2).reshape(query.shape)


def by_jax(implementation: str):
    """jax's own function, by one of its implementations."""

    def compute(query, key, value):
        flat = map(_flat, (query, key, value))
        return jax.nn.dot_product_attention(*flat, implementation=implementation).reshape(
            query.shape
        )

    return compute


def tokamax(query, key, value):
    """tokamax's function, by what it takes on this device."""
    import tokamax

    return tokamax.dot_product_attention(*map(_flat, (query, key, value))).reshape(query.shape)


def tokamax_splash(query, key, value):
    """tokamax's kernel for TPUs in blocks as large as splash's here; by its own choice they have
    128 tokens. Its public function would ask for a TPU at hand.
    """
    from tokamax._src.ops.attention import pallas_mosaic_tpu as forward
    from tokamax._src.ops.attention import pallas_mosaic_tpu_vjp as backward

    class Forward(forward.PallasMosaicTpuFlashAttention):
        supported_on = lambda self, device: True

    class Backward(backward.PallasMosaicTpuFlashAttentionVjp):
        supported_on = lambda self, device: True

    queries, keys = (min(BLOCK, x.shape[-3]) for x in (query, key))
    by_head = forward.splash.QKVLayout.HEAD_DIM_MINOR
    compute = Forward(
        config=forward.Config(
            block_q=queries,
            block_kv=keys,
            block_kv_compute=keys,
            q_layout=by_head,
            k_layout=by_head,
            v_layout=by_head,
            use_experimental_scheduler=True,
        ),
        vjp=Backward(
            config=backward.Config(
                block_q_dkv=queries, block_kv_dkv=keys, block_kv_dkv_compute=keys
            )
        ),
    )
    return compute(*map(_flat, (query, key, value)), logits_scale=query.shape[-1] ** -0.5).reshape(
        query.shape
    )


def _flat(x):
    return x.reshape(-1, *x.shape[-3:])


HAS_TOKAMAX = importlib.util.find_spec('tokamax') is not None
ON_TPUS = {'products': products, 'flash': flash, 'splash': splash}
SHORT_ON_TPUS = {'products': products, 'elementwise': elementwise}
ON_GPUS = {'products': products, 'xla': by_jax('xla'), 'cudnn': by_jax('cudnn')}
SHORT_ON_GPUS = {'products': products, 'elementwise': elementwise, 'xla': by_jax('xla')}
if HAS_TOKAMAX:
    ON_TPUS['tokamax'] = tokamax_splash
    ON_GPUS['tokamax'] = SHORT_ON_GPUS['tokamax'] = tokamax
