"""Attention against the formula written out, and dropout on its weights."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.nn import attention
from re2pix_jax.nn.attention import SelfAttention, attend
from re2pix_jax.nn.feedforward import FusedSwiGLU, Mlp, swiglu_width


def _qkv(shape, keys=3):
    return [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), keys)]


def test_attend_is_softmax_attention_over_the_third_last_axis():
    query, key, value = _qkv((2, 3, 5, 4, 6))
    scores = np.einsum('...qhd,...khd->...hqk', query, key) / np.sqrt(6)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.einsum('...hqk,...khd->...qhd', weights, value)
    np.testing.assert_allclose(attend(query, key, value), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(5, 2, 6), (2, 5, 2, 6), (2, 3, 5, 2, 6)])
def test_one_matrix_after_the_other_is_the_same(shape, monkeypatch):
    query, key, value = _qkv(shape)

    def both(query, key, value):
        mixed = attend(query, key, value)
        return mixed, jax.grad(lambda *x: jnp.sin(attend(*x)).sum(), (0, 1, 2))(query, key, value)

    usual = both(query, key, value)
    monkeypatch.setattr(attention, 'LARGE', 1)
    assert 'scan' in str(jax.make_jaxpr(attend)(query, key, value))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        both(query, key, value),
        usual,
    )
    draws = jax.vmap(lambda rng: attend(query, key, value, 0.3, rng))(
        jax.random.split(jax.random.key(2), 3000)
    )
    np.testing.assert_allclose(draws.mean(0), usual[0], atol=0.08)


@pytest.mark.long
def test_what_gpus_compute_for_short_sequences_is_the_same(monkeypatch):
    query, key, value = _qkv((2, 5, 4, 6))

    def both(keys, values):
        mixed = attend(query, keys, values)
        return mixed, jax.grad(lambda *x: jnp.sin(attend(x[0], x[1], x[2])).sum(), (0, 1, 2))(
            query, keys, values
        )

    def close(one, other):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other
        )

    usual = both(key, value)
    taken_apart = [key[:, :2], key[:, 2:]], [value[:, :2], value[:, 2:]]
    in_parts = both(*taken_apart)
    close(in_parts[0], usual[0])
    monkeypatch.setattr(jax.lax, 'platform_dependent', lambda *x, cuda, **_: cuda(*x))
    close(both(key, value), usual)
    close(both(*taken_apart), in_parts)


def _lowered(platform, shape, dtype='float32', function=attend):
    shapes = 3 * [jax.ShapeDtypeStruct(shape, dtype)]
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('function', [attend, jax.grad(lambda *x: attend(*x).sum())])
def test_the_platform_that_is_compiled_for_chooses(function):
    """And not the one that this runs on, a CPU."""
    short, long = (2, 5, 2, 8), (2, 3, 256, 2, 8)
    products = {
        platform: _lowered(platform, short, function=function).count('dot_general')
        for platform in ('cpu', 'tpu', 'cuda', 'rocm')
    }
    assert products.pop('cpu') > 0 and not any(products.values())
    one_by_one = {
        platform: 'stablehlo.while' in _lowered(platform, long, 'bfloat16', function)
        for platform in ('cpu', 'tpu', 'cuda')
    }
    assert one_by_one == {'cpu': True, 'tpu': False, 'cuda': False}


def test_a_cpu_does_not_ask_for_the_kernel_of_gpus():
    assert not attention._has_flash()


@pytest.mark.parametrize(
    'capability, dtype, fits',
    [
        ('9.0', 'bfloat16', True),
        ('8.0', 'float16', True),
        ('9.0', 'float32', False),
        ('7.5', 'bfloat16', False),
        (None, 'bfloat16', False),
    ],
)
def test_long_sequences_go_to_the_kernel_of_a_gpu_that_has_it(capability, dtype, fits, monkeypatch):
    calls, plain = [], jax.nn.dot_product_attention

    def kernel(*arguments, implementation):
        calls.append(implementation)
        return plain(*arguments, implementation='xla')

    def devices(platform):
        if capability is None:
            raise RuntimeError(f'no {platform}')
        return [types.SimpleNamespace(compute_capability=capability)]

    monkeypatch.setattr(attention, 'LARGE', 1)
    monkeypatch.setattr(attention, '_has_flash', attention._has_flash.__wrapped__)
    monkeypatch.setattr(jax, 'devices', devices)
    monkeypatch.setattr(jax.nn, 'dot_product_attention', kernel)
    query, key, value = (x.astype(dtype) for x in _qkv((2, 3, 5, 2, 8)))
    on_gpus = jax.jit(attend).trace(query, key, value)
    assert calls == (['cudnn'] if fits else [])
    assert 'stablehlo.while' not in on_gpus.lower(lowering_platforms=('cuda',)).as_text()
    on_cpus = attend(query, key, value)
    assert on_cpus.dtype == dtype
    np.testing.assert_allclose(
        on_cpus.astype('float32'),
        plain(*(x.reshape(6, 5, 2, 8) for x in (query, key, value))).reshape(on_cpus.shape),
        atol=2e-2,
    )
    jax.jit(attend, static_argnums=3).trace(query, key, value, 0.3, jax.random.key(0))
    assert len(calls) == fits  # the kernel's dropout is not ours


def test_dropout_path_agrees_when_nothing_is_dropped_and_is_unbiased():
    query, key, value = _qkv((2, 5, 4, 6))
    plain = attend(query, key, value)
    kept = attend(query, key, value, 1e-9, jax.random.key(1))
    np.testing.assert_allclose(plain, kept, atol=1e-5)
    draws = jax.vmap(lambda rng: attend(query, key, value, 0.3, rng))(
        jax.random.split(jax.random.key(2), 3000)
    )
    np.testing.assert_allclose(draws.mean(0), plain, atol=0.08)
    assert float(jnp.abs(draws[0] - draws[1]).max()) > 0.1


def test_self_attention_ignores_the_order_of_tokens():
    net = SelfAttention(heads=2)
    (x,) = _qkv((3, 7, 8), 1)
    params = net.init(jax.random.key(0), x)
    order = np.array([3, 1, 0, 2, 6, 5, 4])
    np.testing.assert_allclose(
        net.apply(params, x)[:, order], net.apply(params, x[:, order]), atol=1e-5
    )


def test_feed_forward_widths():
    assert swiglu_width(1536, 4.0) == 4096  # ViT-g
    (x,) = _qkv((2, 3, 12), 1)
    for net in (Mlp(20), FusedSwiGLU(16)):
        assert net.init_with_output(jax.random.key(0), x)[0].shape == x.shape
