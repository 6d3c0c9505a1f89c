"""The masked feature transformer and its roll-out, by their properties; numbers are in
tests/convert/test_published.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer, rollout, smooth_l1
from re2pix_jax.forecaster.transformer import adapt_grid

NET = MaskedFeatureTransformer(components=6, width=24, depth=2, heads=2, frames=4, grid=(2, 3))


@pytest.fixture(scope='module')
def params():
    params = jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 3, 2, 3, 6)))
    kernel = jax.random.normal(
        jax.random.key(1), (24, 6)
    )  # the zero initialisation would hide everything
    params['params']['fc_out']['kernel'] = kernel
    return params


@pytest.fixture(scope='module')
def components():
    return jax.random.normal(jax.random.key(2), (2, 5, 2, 3, 6))


@pytest.fixture(scope='module')
def forecaster(params):
    return Forecaster(params, NET, None, None)


def test_starts_by_predicting_zero(components):
    fresh = NET.init(jax.random.key(0), components[:, :3])
    np.testing.assert_array_equal(NET.apply(fresh, components[:, :3]), 0.0)


def test_every_context_frame_matters(params, components):
    context = components[:, :3]
    for frame in range(3):
        changed = NET.apply(params, context.at[:, frame].add(1.0))
        assert float(jnp.abs(changed - NET.apply(params, context)).max()) > 1e-3


def test_one_step_is_the_forward_pass(forecaster, params, components):
    context = components[:, :3]
    # Compiled as one program and operation by operation: sums are rounded in another order.
    np.testing.assert_allclose(
        forecaster.forecast(context, 1)[:, 0], NET.apply(params, context), rtol=1e-5, atol=1e-5
    )


def test_the_window_slides(forecaster, components):
    context = components[:, :3]
    three = forecaster.forecast(context, 3)
    assert three.shape == (2, 3, 2, 3, 6)
    for step in range(3):
        one = forecaster.forecast(context, 1)
        np.testing.assert_allclose(one[:, 0], three[:, step], atol=1e-4)
        context = jnp.concatenate([context[:, 1:], one], axis=1)


def test_a_long_horizon_is_as_many_single_steps(forecaster, params, components):
    forward, window = jax.jit(NET.apply), components[:, :3]
    for predicted in np.moveaxis(np.asarray(forecaster.forecast(window, 12)), 1, 0):
        one = forward(params, window)
        np.testing.assert_allclose(predicted, one, rtol=1e-4, atol=1e-4)
        window = jnp.concatenate([window[:, 1:], one[:, None]], axis=1)


def test_a_roll_out_is_one_program_of_any_length(forecaster, components):
    count = lambda steps: str(
        jax.make_jaxpr(lambda x: forecaster.forecast(x, steps))(components)
    ).count('dot_general')
    assert count(2) == count(50) > 0


def test_dropout_is_another_one_in_every_step(params):
    """The codes of time at zero and a context of equal frames that a prediction of itself
    continues: only dropout tells steps apart.
    """
    still = jax.tree.map(jnp.zeros_like, params)
    still['params']['fc_out']['bias'] = jnp.ones(6)
    still['params']['layers']['feed_forward']['fc2']['bias'] = jnp.zeros((2, 24)).at[1].set(1.0)
    still['params']['fc_out']['kernel'] = params['params']['fc_out']['kernel']
    context = jnp.ones((1, 3, 2, 3, 6))
    roll_out = jax.jit(lambda key: rollout.forecast(still, NET, context, 2, key))
    one, other, again = map(roll_out, map(jax.random.key, (0, 1, 0)))
    assert (
        float(jnp.abs(one[:, 0] - one[:, 1]).max()) > 1e-2
        and float(jnp.abs(one - other).max()) > 1e-2
    )
    np.testing.assert_array_equal(one, again)
    without = rollout.forecast(still, NET, context, 2)
    np.testing.assert_array_equal(without[:, 0], without[:, 1])


def test_remat_keeps_the_gradient_and_recomputes_the_layers(params, components):
    net = NET.clone(depth=1)

    def loss(params, net):
        prediction = net.apply(
            params, components[:, :3], deterministic=False, rngs={'dropout': jax.random.key(3)}
        )
        return smooth_l1(prediction, components[:, 3]).mean()

    kept, recomputed = (
        jax.jit(jax.grad(loss), static_argnums=1)(params, net)
        for net in (net, net.clone(remat=True))
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), kept, recomputed
    )
    products = lambda net: str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, net)).count(
        'dot_general'
    )
    assert (
        products(net.clone(remat=True)) >= products(net) + 8
    )  # two attentions of 4 products, and more


def test_only_the_latest_frames_are_context(forecaster, components):
    np.testing.assert_array_equal(
        forecaster.forecast(components, 2), forecaster.forecast(components[:, 2:], 2)
    )


def test_dropout_needs_a_key_and_acts(params, components):
    one, other = (
        NET.apply(
            params, components[:, :3], deterministic=False, rngs={'dropout': jax.random.key(seed)}
        )
        for seed in (0, 1)
    )
    assert float(jnp.abs(one - other).max()) > 1e-2
    still = NET.clone(dropout=0.0).apply(params, components[:, :3], deterministic=False)
    np.testing.assert_allclose(still, NET.apply(params, components[:, :3]), atol=1e-5)


def test_smooth_l1_is_quadratic_then_linear():
    target = jnp.zeros(4)
    prediction = jnp.array([0.05, -0.1, 0.3, -1.0])
    np.testing.assert_allclose(smooth_l1(prediction, target), [0.0125, 0.05, 0.25, 0.95], rtol=1e-6)


def test_adapting_the_grid_interpolates_the_codes(params, components):
    finer = adapt_grid(params, (4, 6))
    large = jnp.repeat(jnp.repeat(components[:, :3], 2, axis=2), 2, axis=3)
    assert NET.clone(grid=(4, 6)).apply(finer, large).shape == (2, 4, 6, 6)
    rows, coarse = finer['params']['d_1'], params['params']['d_1']
    np.testing.assert_allclose(rows[1], 0.75 * coarse[0] + 0.25 * coarse[1], atol=1e-6)
    np.testing.assert_array_equal(rows[0], coarse[0])
    np.testing.assert_array_equal(finer['params']['d_0'], params['params']['d_0'])


def test_what_it_refuses(forecaster, params, components):
    with pytest.raises(ValueError, match='given 2 context frames and needs 3'):
        forecaster.forecast(components[:, :2], 1)
    with pytest.raises(ValueError, match='0 steps'):
        forecaster.forecast(components, 0)
    with pytest.raises(
        ValueError, match='given 5 frames of 2x3 with 6 components; it takes 3 frames'
    ):
        NET.apply(params, components)
    with pytest.raises(ValueError, match='must be a multiple of 3'):
        NET.clone(width=26).init(jax.random.key(0), components[:, :3])
