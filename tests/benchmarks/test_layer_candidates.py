"""tokamax's norms and gated unit give what ours give; skipped where it is not installed."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.benchmarks import attention, attention_candidates, layer_candidates

CASES = {
    'modulated norm': (
        layer_candidates.modulated_norm,
        layer_candidates.tokamax_modulated_norm,
        [(2, 3, 5, 64), (64,), (2, 1, 1, 64), (2, 1, 1, 64)],
    ),
    'norm': (
        layer_candidates.layer_norm,
        layer_candidates.tokamax_layer_norm,
        [(2, 3, 64), (64,), (64,)],
    ),
    'gated unit': (
        layer_candidates.gated_unit,
        layer_candidates.tokamax_gated_unit,
        [(2, 5, 64), (64, 96)],
    ),
    'attention': (
        attention_candidates.products,
        attention_candidates.tokamax,
        [(2, 4, 2, 16), (2, 8, 2, 16), (2, 8, 2, 16)],
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_tokamax_computes_the_same(name, monkeypatch):
    pytest.importorskip('tokamax')
    monkeypatch.setattr(sys, 'argv', ['tests'])  # which it takes for its own flags
    ours, theirs, shapes = CASES[name]
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes]
    given = jnp.cos(jnp.arange(ours(*arrays).size)).reshape(ours(*arrays).shape)
    (mine, my_gradients), (other, other_gradients) = (
        attention.with_gradients(function)(given, *arrays) for function in (ours, theirs)
    )
    np.testing.assert_allclose(other, mine, rtol=1e-4, atol=1e-5)
    for a, b in zip(other_gradients, my_gradients):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
