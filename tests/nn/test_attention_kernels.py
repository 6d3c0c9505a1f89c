"""Every kernel that was or is a candidate for attention, interpreted on a CPU, beside the formula
in products; and which of them a TPU gets.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pallas_tpu

from re2pix_jax.benchmarks import attention_candidates as candidates
from re2pix_jax.nn import attention, layout
from re2pix_jax.nn.attention import attend


def _draw(queries, keys, heads=2, d=16, batch=(2,)):
    shapes = (*batch, queries, heads, d), *2 * [(*batch, keys, heads, d)]
    random = np.random.default_rng(0)
    return [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]


def _both(function):
    """The result and the gradients of something of it that no symmetry makes zero."""

    def compute(*arrays):
        result, backward = jax.vjp(function, *arrays)
        return result, backward(jnp.cos(jnp.arange(result.size)).reshape(result.shape))

    return compute


def _close(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.mark.long
@pytest.mark.parametrize('d', [16, 72])
@pytest.mark.parametrize('queries, keys', [(128, 128), (128, 256)])
def test_splash_is_attention(queries, keys, d):
    arrays = _draw(queries, keys, d=d, batch=(1, 2))
    interpreted = lambda *arrays: candidates.splash(*arrays, interpret=True)
    _close(_both(interpreted)(*arrays), _both(candidates.products)(*arrays), rtol=1e-4, atol=1e-5)


def test_flash_is_attention():
    arrays = _draw(128, 128)
    with pallas_tpu.force_tpu_interpret_mode():
        found = _both(candidates.flash)(*arrays)
    _close(found, _both(candidates.products)(*arrays), rtol=1e-4, atol=1e-5)


def test_tokamax_is_attention(monkeypatch):
    pytest.importorskip('tokamax')
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel

    usual = splash_attention_kernel.SplashConfig.get_default()
    interpreted = dataclasses.replace(usual, interpret=True)
    monkeypatch.setattr(
        splash_attention_kernel.SplashConfig, 'get_default', classmethod(lambda _: interpreted)
    )
    monkeypatch.setattr(sys, 'argv', ['tests'])  # which it takes for its own flags
    arrays = _draw(128, 128)
    found = _both(candidates.tokamax_splash)(*arrays)
    _close(found, _both(candidates.products)(*arrays), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', sorted({*candidates.SHORT_ON_GPUS} - {'tokamax'}))
def test_what_needs_no_kernel_is_attention(name):
    arrays = _draw(4, 8)
    found = _both(candidates.SHORT_ON_GPUS[name])(*arrays)
    _close(found, _both(candidates.products)(*arrays), rtol=1e-4, atol=1e-5)


def test_keys_in_parts_are_joined_for_the_kernel():
    query, key, value = _draw(128, 256, batch=(1,))
    parts = [[x[:, :128], x[:, 128:]] for x in (key, value)]
    found = attention._splash(query, *parts, None, interpret=True)
    _close(found, attend(query, key, value), rtol=1e-4, atol=1e-5)


def _lowered(queries, keys, dtype='bfloat16', function=attend, **more):
    shapes = [jax.ShapeDtypeStruct(x.shape, dtype) for x in _draw(queries, keys)]
    return (
        jax.jit(lambda *x: function(*x, **more))
        .trace(*shapes)
        .lower(lowering_platforms=('tpu',))
        .as_text()
    )


def test_a_tpu_gets_the_kernel_where_it_fits_and_small_sums_where_nothing_does(monkeypatch):
    kernel = lambda *arguments, **more: 'tpu_custom_call' in _lowered(*arguments, **more)
    assert not kernel(512, 512)  # compiled for a CPU at hand, of which a TPU is but one platform
    monkeypatch.setattr(layout, 'platform', lambda: 'tpu')
    assert kernel(512, 512) and kernel(256, 512)
    assert kernel(512, 512, function=jax.grad(lambda *x: attend(*x).astype('float32').sum()))
    assert not kernel(517, 517)  # what would be padded
    assert not kernel(512, 512, 'float32')
    assert not kernel(512, 512, dropout=0.3, rng=jax.random.key(0))
    assert not kernel(4, 8) and 'dot_general' not in _lowered(4, 8)
    assert 'dot_general' in _lowered(32, 32)


@pytest.mark.parametrize(
    'shape, part', [((8, 3, 128, 4, 16), (2, 3, 128, 2, 16)), ((3, 128, 5, 16), (3, 128, 5, 16))]
)
def test_each_device_computes_its_own_clips_and_heads(shape, part):
    """As far as they divide."""
    kinds = 3 * (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=kinds)
    seen = []

    def kernel(one, other):
        seen.extend([one.shape, other.shape])
        return one

    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    with jax.sharding.use_abstract_mesh(mesh):
        result = jax.eval_shape(layout.by_device(kernel, layout.TENSOR, None), x, x)
    assert seen == [part, part] and result.shape == shape
