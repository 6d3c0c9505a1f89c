"""The stack of layers: the same numbers in every form, and what is kept and known of it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from re2pix_jax.nn import layers
from re2pix_jax.nn.layers import Layers

DEPTH = 4


class Layer(nn.Module):
    """Mixes tokens with what is shared and the layer's own; `cut`: keeps so many tokens."""

    dropout: float = 0.0
    cut: int | None = None

    @nn.compact
    def __call__(self, x, shared, own=0.0):
        given = nn.Dense(x.shape[-1], name='inner')(x + shared) + own
        x = x + nn.Dropout(self.dropout)(jnp.tanh(given), deterministic=self.dropout == 0)
        return x if self.cut is None else x[:, : self.cut], given


X = jax.random.normal(jax.random.key(0), (2, 3, 5))
SHARED = jax.random.normal(jax.random.key(1), (5,))


@functools.cache
def variables():
    return Layers(Layer, DEPTH).init(jax.random.key(2), X, SHARED)


def one_by_one(variables, x, shared, own=None):
    """[x after each layer], [what each gave], without the module."""
    after, given = [], []
    for index in range(DEPTH):
        params = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
        x, beside = Layer().apply(params, x, shared, *(() if own is None else (own[index],)))
        after.append(x)
        given.append(beside)
    return after, given


def test_every_layer_draws_parameters_of_its_own():
    kernel = variables()['params']['inner']['kernel']
    assert kernel.shape == (DEPTH, 5, 5)
    assert np.abs(kernel).std(axis=(1, 2)).min() > 0.05
    assert len(np.unique(kernel)) == kernel.size


@pytest.mark.parametrize('unroll', [False, True])
@pytest.mark.parametrize('keep', layers.KEPT)
def test_a_loop_and_one_after_the_other_are_the_same(unroll, keep):
    net = Layers(Layer, DEPTH, keep=keep, unroll=unroll)

    def loss(apply, variables, shared):
        x, given = apply(variables, X, shared)
        own = given if isinstance(given, list) else list(given)
        y, _ = apply(variables, X, shared, own=given)
        return jnp.sin(x).sum() + jnp.sin(y).sum() + jnp.cos(jnp.stack(own)).sum()

    def plain(variables, x, shared, own=None):
        after, given = one_by_one(variables, x, shared, own)
        return after[-1], given

    found = jax.value_and_grad(functools.partial(loss, net.apply), (0, 1))(variables(), SHARED)
    expected = jax.value_and_grad(functools.partial(loss, plain), (0, 1))(variables(), SHARED)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected
    )


@pytest.mark.parametrize('unroll', [False, True])
def test_taps_are_the_outputs_after_their_layers_and_later_layers_do_not_run(unroll):
    net, after = Layers(Layer, DEPTH, unroll=unroll), one_by_one(variables(), X, SHARED)[0]
    for taps in ((3,), (2, 0), (1, 1, 2)):
        x, tapped = net.apply(variables(), X, SHARED, taps=taps)
        np.testing.assert_allclose(x, after[max(taps)], rtol=1e-5, atol=1e-6)
        for index, output in zip(taps, tapped, strict=True):
            np.testing.assert_allclose(output, after[index], rtol=1e-5, atol=1e-6)
    broken = jax.tree.map(lambda leaf: leaf.at[2:].set(np.nan), variables())
    assert np.isfinite(net.apply(broken, X, SHARED, taps=(1,))[0]).all()


@pytest.mark.parametrize('unroll', [False, True])
def test_the_last_layer_may_differ_in_fields(unroll):
    net, after = Layers(Layer, DEPTH, unroll=unroll), one_by_one(variables(), X, SHARED)[0]
    x, _ = net.apply(variables(), X, SHARED, last={'cut': 1})
    np.testing.assert_allclose(x, after[-1][:, :1], rtol=1e-5, atol=1e-6)
    drawn = net.init(jax.random.key(2), X, SHARED, last={'cut': 1})
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, variables())


@pytest.mark.parametrize('unroll', [False, True])
def test_what_nobody_reads_of_the_last_layer_is_not_computed(unroll):
    net = Layers(Layer, 1, keep='products', unroll=unroll)
    one = jax.tree.map(lambda leaf: leaf[:1], variables())

    def loss(variables, last):
        return jax.tree.leaves(net.apply(variables, X, SHARED, last=last)[1])[0].sum()

    step = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    assert 'tanh' not in step.lower(one, FrozenDict()).compile().as_text()


@pytest.mark.parametrize('unroll', [False, True])
def test_every_layer_draws_a_dropout_of_its_own(unroll):
    net = Layers(functools.partial(Layer, dropout=0.5), DEPTH, unroll=unroll)
    still = jax.tree.map(jnp.zeros_like, variables())
    still['params']['inner']['bias'] += 1
    taps = tuple(range(DEPTH))
    x, after = net.apply(still, X, SHARED, taps=taps, rngs={'dropout': jax.random.key(0)})
    steps = np.diff(np.stack([X, *after]), axis=0) != 0
    assert 0.2 < steps.mean() < 0.8
    assert all((steps[a] != steps[b]).any() for a in taps for b in range(a))
    again = net.apply(still, X, SHARED, rngs={'dropout': jax.random.key(0)})[0]
    np.testing.assert_allclose(again, x, rtol=1e-6)


def test_for_tpus_layers_are_a_loop_whatever_is_asked(monkeypatch):
    net = Layers(Layer, DEPTH, unroll=True)
    loops = lambda: 'scan' in str(jax.make_jaxpr(net.apply)(variables(), X, SHARED))
    assert not loops()
    monkeypatch.setattr(layers, 'platform', lambda: 'tpu')
    assert loops()
    stack = variables()['params']
    assert layers.for_sampling(stack, unroll=True) is stack


@pytest.mark.parametrize('unroll', [False, True])
def test_barriers_stand_where_work_could_be_merged_with_the_forward_pass(unroll):
    def lowered(keep):
        net = Layers(Layer, DEPTH, keep=keep, unroll=unroll)
        loss = lambda variables: net.apply(variables, X, SHARED)[0].sum()
        return jax.jit(jax.grad(loss)).lower(variables()).as_text()

    assert ('optimization_barrier' in lowered('nothing')) == unroll
    assert 'optimization_barrier' not in lowered('everything')


def test_parameters_for_sampling_are_arrays_of_their_own_where_layers_are_compiled_so():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Layers(Layer, DEPTH, unroll=True, name='layers')(x, SHARED)[0]

    stack = variables()['params']
    assert layers.for_sampling(stack, unroll=False) is stack
    apart = {'params': {'layers': layers.for_sampling(stack, unroll=True)}}
    assert len(apart['params']['layers']) == DEPTH
    assert 'split' not in str(jax.make_jaxpr(Net().apply)(apart, X))
    found = Net().apply(apart, X)
    np.testing.assert_allclose(found, Net().apply({'params': {'layers': stack}}, X), rtol=1e-6)
