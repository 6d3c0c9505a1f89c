import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from re2pix_jax.generator import flow

X, EPS = jax.random.normal(jax.random.key(0), (2, 5, 2, 3, 4, 1))
T = jnp.array([0.0, 0.3, 0.6, 0.94, 0.95])


def test_the_path_runs_from_noise_to_data():
    np.testing.assert_array_equal(flow.interpolate(X, EPS, jnp.zeros(5)), EPS)
    np.testing.assert_array_equal(flow.interpolate(X, EPS, jnp.ones(5)), X)
    np.testing.assert_allclose(flow.interpolate(X, EPS, T)[1], 0.3 * X[1] + 0.7 * EPS[1], rtol=1e-6)


def test_velocity_of_the_truth_is_the_derivative_of_the_path():
    z_t = flow.interpolate(X, EPS, T)
    np.testing.assert_allclose(flow.velocity(X, z_t, T), X - EPS, atol=2e-5)
    derivative = jax.jvp(lambda t: flow.interpolate(X, EPS, t), (T,), (jnp.ones(5),))[1]
    np.testing.assert_allclose(derivative, X - EPS, atol=1e-6)


def test_loss_is_the_weighted_error_of_x():
    z_t, prediction = flow.interpolate(X, EPS, T), X + 0.1 * EPS
    expected = jnp.mean(jnp.square((prediction - X) / (1 - T).reshape(5, 1, 1, 1, 1)))
    np.testing.assert_allclose(flow.loss(prediction, X, EPS, z_t, T), expected, rtol=1e-4)
    assert flow.loss(X, X, EPS, z_t, T) < 1e-9


def test_clamp_bounds_the_velocity_and_trains_what_is_integrated():
    t = jnp.full(5, 0.99)
    z_t = flow.interpolate(X, EPS, t)
    np.testing.assert_allclose(flow.velocity(X, z_t, t), (X - z_t) / 0.05, rtol=1e-5)
    np.testing.assert_allclose(flow.velocity(X, z_t, t, clamp=0.2), (X - z_t) / 0.2, rtol=1e-5)
    optimum = z_t + 0.05 * (X - EPS)
    assert flow.loss(optimum, X, EPS, z_t, t) < 1e-9 < flow.loss(X, X, EPS, z_t, t)
    assert jnp.isfinite(flow.loss(X, X, EPS, X, jnp.ones(5)))


@pytest.mark.parametrize('parameters', [(), (0.5, 0.7)])
def test_times_are_logit_normal(parameters):
    t = np.asarray(flow.sample_time(jax.random.key(1), (4000,), *parameters), np.float64)
    assert t.min() > 0 and t.max() < 1
    mean, std = parameters or (-2.0, 1.5)
    assert scipy.stats.kstest(np.log(t / (1 - t)), 'norm', (mean, std)).pvalue > 0.01
