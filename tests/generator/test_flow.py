import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from re2pix_jax.generator import flow
from re2pix_jax.generator.flow import Diffusion

X, EPS = jax.random.normal(jax.random.key(0), (2, 5, 2, 3, 4, 1))
T = jnp.array([0.0, 0.3, 0.6, 0.94, 0.95])
INNER = jnp.array([0.1, 0.3, 0.5, 0.8, 0.9])
PATHS = [Diffusion(), Diffusion('ddpm'), Diffusion('ddpm', schedule='cosine')]
every_path = pytest.mark.parametrize('path', PATHS, ids=['flow', 'linear', 'cosine'])


def test_the_straight_path_runs_from_noise_to_data():
    np.testing.assert_array_equal(flow.interpolate(X, EPS, jnp.zeros(5)), EPS)
    np.testing.assert_array_equal(flow.interpolate(X, EPS, jnp.ones(5)), X)
    np.testing.assert_allclose(flow.interpolate(X, EPS, T)[1], 0.3 * X[1] + 0.7 * EPS[1], rtol=1e-6)


@every_path
def test_a_path_loses_its_noise_and_its_velocity_is_its_derivative(path):
    t = jnp.linspace(0, 1, 101)
    at = path.at(t, t)
    assert (np.diff(at.a) > 0).all() and (np.diff(at.s) < 0).all()
    assert at.a[0] <= 0.02 and at.s[-1] == 0
    np.testing.assert_allclose(at.p * at.s - at.q * at.a, 1, atol=1e-6)
    derivative = jax.jvp(lambda t: flow.interpolate(X, EPS, t, path), (INNER,), (jnp.ones(5),))[1]
    at = path.at(INNER, X)
    np.testing.assert_allclose(at.rate * (at.p * X + at.q * EPS), derivative, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('path', PATHS[1:], ids=['linear', 'cosine'])
def test_ddpm_preserves_the_variance(path):
    at = path.at(T, T)
    np.testing.assert_allclose(at.a**2 + at.s**2, 1, atol=1e-6)


def test_the_linear_schedule_is_that_of_a_thousand_steps():
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    t = 1 - np.array([100, 500, 900]) / 1000
    np.testing.assert_allclose(flow.linear(t).a, np.sqrt(alphas[[99, 499, 899]]), rtol=0.03)


@every_path
def test_the_forms_agree(path):
    """Whichever of x, v and epsilon is predicted, the same truth implies the same velocity, data,
    noise and, for flow, loss.
    """
    z, at = flow.interpolate(X, EPS, INNER, path), path.at(INNER, X)
    v = at.p * X + at.q * EPS
    off = 0.1 * jnp.cos(jnp.arange(X.size, dtype=jnp.float32)).reshape(
        X.shape
    )  # what the predictions are wrong by, in v
    wrong = flow.ends(v + off, z, INNER, path)
    losses = []
    for target, right, mistaken in (
        ('x', X, wrong[0]),
        ('v', v, v + off),
        ('epsilon', EPS, wrong[1]),
    ):
        form = path._replace(target=target)
        implied = flow.velocity(right, z, INNER, form)
        np.testing.assert_allclose(implied, v, rtol=1e-4, atol=1e-4)
        for end, truth in zip(flow.ends(implied, z, INNER, form), (X, EPS)):
            np.testing.assert_allclose(end, truth, atol=1e-4)
        np.testing.assert_allclose(
            flow.velocity(mistaken, z, INNER, form), v + off, rtol=1e-4, atol=1e-4
        )
        assert flow.loss(right, X, EPS, z, INNER, form) < 1e-8
        losses.append(float(flow.loss(mistaken, X, EPS, z, INNER, form)))
    if path.path == 'flow':
        np.testing.assert_allclose(losses, 3 * [float(jnp.square(off).mean())], rtol=1e-3)


def test_velocity_points_from_noise_to_data():
    z = flow.interpolate(X, EPS, T)
    np.testing.assert_allclose(flow.velocity(X, z, T), X - EPS, atol=2e-5)


def test_the_default_loss_is_its_formula_to_the_bit():
    z, prediction = flow.interpolate(X, EPS, T), X + 0.1 * EPS
    t = T.reshape(5, 1, 1, 1, 1)

    def formula(prediction):
        return jnp.mean(jnp.square((prediction - z) / jnp.maximum(1.0 - t, 0.05) - (X - EPS)))

    ours = jax.jit(jax.value_and_grad(lambda prediction: flow.loss(prediction, X, EPS, z, T)))(
        prediction
    )
    for found, expected in zip(ours, jax.jit(jax.value_and_grad(formula))(prediction)):
        np.testing.assert_array_equal(found, expected)
    assert flow.loss(X, X, EPS, z, T) < 1e-9


@pytest.mark.parametrize(
    'target, truth',
    [('x', lambda at: X), ('epsilon', lambda at: EPS), ('v', lambda at: at.s * X - at.a * EPS)],
)
def test_ddpm_is_trained_on_what_is_predicted(target, truth):
    form = Diffusion('ddpm', target)
    prediction = truth(form.at(T, X)) + 0.3
    loss = flow.loss(
        prediction.astype(jnp.bfloat16), X, EPS, flow.interpolate(X, EPS, T, form), T, form
    )
    assert loss.dtype == jnp.float32 and float(loss) == pytest.approx(0.09, rel=0.02)


@pytest.mark.parametrize('target, t', [('x', 0.99), ('epsilon', 0.01)])
def test_clamp_bounds_the_velocity_and_trains_what_is_integrated(target, t):
    form, t = Diffusion(target=target), jnp.full(5, t)
    z = flow.interpolate(X, EPS, t)
    truth, sign = (X, 1) if target == 'x' else (EPS, -1)
    np.testing.assert_allclose(
        flow.velocity(truth, z, t, form), sign * (truth - z) / 0.05, rtol=1e-5
    )
    optimum = z + sign * 0.05 * (X - EPS)
    assert flow.loss(optimum, X, EPS, z, t, form) < 1e-9 < flow.loss(truth, X, EPS, z, t, form)
    assert jnp.isfinite(flow.loss(truth, X, EPS, truth, jnp.round(t), form))


@pytest.mark.parametrize('parameters', [(), (0.5, 0.7)])
def test_times_are_logit_normal(parameters):
    t = np.asarray(flow.sample_time(jax.random.key(1), (4000,), *parameters), np.float64)
    assert t.min() > 0 and t.max() < 1
    normal = scipy.stats.norm(*(parameters or (-2.0, 1.5)))
    assert scipy.stats.kstest(np.log(t / (1 - t)), normal.cdf).pvalue > 0.01


def test_times_are_uniform():
    t = np.asarray(flow.sample_time(jax.random.key(1), (4000,), distribution='uniform'))
    assert scipy.stats.kstest(t, 'uniform').pvalue > 0.01


def test_unknown_names_are_refused():
    for parts in itertools.product(*flow.CHOICES.values()):
        Diffusion(*parts).check()
    with pytest.raises(
        ValueError, match="diffusion path 'vp' is unknown; choose one of flow, ddpm"
    ):
        Diffusion('vp').check()
    with pytest.raises(
        ValueError, match="diffusion target 'noise' is unknown; choose one of x, v, epsilon"
    ):
        Diffusion(target='noise').check()
    with pytest.raises(
        ValueError, match="diffusion schedule 'sigmoid' is unknown; choose one of linear, cosine"
    ):
        Diffusion(schedule='sigmoid').check()
    with pytest.raises(
        ValueError, match="time distribution 'beta' is unknown; choose one of logit_normal, uniform"
    ):
        flow.sample_time(jax.random.key(0), (1,), distribution='beta')
