import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from re2pix_jax.generator.flow import FLOW, Diffusion
from re2pix_jax.generator.sampler import SAMPLERS, ddim, euler, evaluations, find, heun, times

MEAN, STD = 1.5, 0.4
NOISE = jax.random.normal(jax.random.key(0), (4000, 2))
LINEAR, COSINE = Diffusion('ddpm'), Diffusion('ddpm', schedule='cosine')
every_sampler = pytest.mark.parametrize('method', SAMPLERS.values(), ids=SAMPLERS)


def gaussian_velocity(z, t, path=FLOW):
    """E[v | z] for x ~ N(MEAN, STD^2), in closed form."""
    at = path.at(t, z)
    surprise = (z - at.a * MEAN) / (at.a**2 * STD**2 + at.s**2)
    return at.p * (MEAN + at.a * STD**2 * surprise) + at.q * at.s * surprise


def sample(method, steps, path=FLOW):
    return np.asarray(
        jax.jit(
            lambda noise: method(lambda z, t: gaussian_velocity(z, t, path), noise, steps, path)
        )(NOISE)
    )


@pytest.mark.parametrize(
    'method, path, steps',
    [
        (euler, FLOW, 100),
        (heun, FLOW, 20),
        (ddim, FLOW, 100),
        (euler, COSINE, 100),
        (heun, COSINE, 30),
        (ddim, COSINE, 100),
        (ddim, LINEAR, 100),
        (heun, LINEAR, 100),
    ],
)
def test_a_known_gaussian_comes_out(method, path, steps):
    z = sample(method, steps, path)
    assert z.mean() == pytest.approx(MEAN, abs=0.03)
    assert z.std() == pytest.approx(STD, abs=0.03)
    # The exact flow of a Gaussian is affine in the noise.
    np.testing.assert_allclose(z, MEAN + STD * NOISE, atol=0.15)


def test_heun_converges_faster():
    exact = MEAN + STD * NOISE
    errors = {
        method: [np.abs(sample(method, steps) - exact).mean() for steps in (10, 20)]
        for method in (euler, heun)
    }
    assert errors[heun][1] < errors[euler][1] < errors[euler][0]


@pytest.mark.parametrize('steps', [1, 7])
def test_ddim_on_the_straight_path_is_eulers_method(steps):
    np.testing.assert_allclose(sample(ddim, steps), sample(euler, steps), atol=1e-5)


@every_sampler
def test_one_step_to_a_predicted_point(method):
    point = jnp.array([[3.0, -1.0]])
    z = method(lambda z, t: (point - z) / (1 - t[:, None]), NOISE[:5], 1)
    np.testing.assert_allclose(z, jnp.broadcast_to(point, z.shape), atol=1e-6)


@pytest.mark.parametrize('steps', [1, 3, 8])
def test_ddim_ends_at_the_predicted_point_in_any_number_of_steps(steps):
    point = jnp.array([[3.0, -1.0]])

    def velocity(z, t):
        at = LINEAR.at(t, z)
        return (point + at.q * z) / at.s

    np.testing.assert_allclose(
        ddim(velocity, NOISE[:5], steps, LINEAR), jnp.broadcast_to(point, (5, 2)), atol=1e-5
    )


@every_sampler
def test_evaluations_are_counted_exactly_and_stay_before_the_end(method):
    seen = []

    def velocity(z, t):
        jax.debug.callback(lambda t: seen.append(float(t[0])), t)
        return jnp.zeros_like(z)

    jax.block_until_ready(method(velocity, NOISE[:1], 4))
    jax.effects_barrier()
    assert set(np.round(seen, 6)) == {0.0, 0.25, 0.5, 0.75}
    name = {function: name for name, function in SAMPLERS.items()}[method]
    assert len(seen) == evaluations(name, 4) == evaluations(name, 4, guidance=0.4) / 2


@every_sampler
def test_no_steps_are_refused(method):
    with pytest.raises(ValueError, match='sampler steps is 0; at least 1'):
        method(gaussian_velocity, NOISE, 0)


def test_bad_names_and_steps_are_not_counted():
    with pytest.raises(
        ValueError, match="sampler 'ddpm' is unknown; choose one of euler, heun, ddim"
    ):
        find('ddpm')
    with pytest.raises(ValueError, match="sampler 'rk4' is unknown"):
        evaluations('rk4', 4)
    with pytest.raises(ValueError, match='sampler steps is 0'):
        evaluations('heun', 0)


def test_the_grids():
    share = np.linspace(0, 1, 9)
    np.testing.assert_array_equal(times(8), share)
    np.testing.assert_array_equal(times(8, 'shifted:1'), share)
    for shift in (3, 0.5):
        found = times(8, f'shifted:{shift}')
        np.testing.assert_allclose((1 - found) * share, shift * found * (1 - share), atol=1e-6)
    np.testing.assert_array_equal(times(8, 'shifted'), times(8, 'shifted:3'))
    logits = scipy.stats.norm(-0.4, 1).ppf(share)
    np.testing.assert_allclose(
        times(8, 'quantiles:-0.4,1'), 1 / (1 + np.exp(-logits)), rtol=1e-6, atol=1e-12
    )
    np.testing.assert_array_equal(times(8, 'quantiles'), times(8, 'quantiles:-2,1.5'))
    for grid in ('even', 'shifted:9', 'quantiles', 'quantiles:0.5,0.7'):
        for steps in (1, 2, 50):
            found = times(steps, grid)
            assert found.dtype == np.float32 and len(found) == steps + 1
            assert (found[0], found[-1]) == (0, 1) and (np.diff(found) > 0).all()


@pytest.mark.parametrize(
    'grid',
    ['odd', 'even:1', 'shifted:x', 'shifted:0', 'shifted:-1', 'quantiles:0,0', 'quantiles:1e9'],
)
def test_other_grids_are_refused(grid):
    with pytest.raises(ValueError, match=f"sampler grid '{grid}' makes no times from 0 to 1"):
        times(4, grid)


def spread(method, steps, grid, std=0.5):
    """Of what comes out of N(0, 1) noise for data of that spread, the path's own: its flow is
    linear, so that one point tells.
    """
    velocity = lambda z, t: (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2) * z
    return float(method(velocity, jnp.ones(1), steps, grid=grid)[0])


def test_euler_loses_spread_that_heun_keeps_with_fewer_evaluations():
    assert spread(euler, 10, 'even') == pytest.approx(0.431, abs=1e-3)
    assert spread(heun, 10, 'even') == pytest.approx(0.491, abs=1e-3)
    assert evaluations('heun', 5) < evaluations('euler', 10)
    assert spread(heun, 5, 'even') == pytest.approx(0.459, abs=1e-3)
    # Smaller steps where data is near keep more of it, larger ones less.
    assert spread(heun, 5, 'shifted:0.5') == pytest.approx(0.502, abs=1e-3)
    assert spread(heun, 5, 'shifted:2') == pytest.approx(0.363, abs=1e-3)


@every_sampler
@pytest.mark.parametrize('grid', ['even', 'shifted:2', 'shifted:0.5', 'quantiles:-0.4,1'])
def test_every_grid_leads_to_the_exact_spread(method, grid):
    errors = [abs(spread(method, steps, grid) - 0.5) for steps in (10, 40, 160)]
    assert errors[2] < 0.025 and errors[2] < errors[1] < errors[0]


@every_sampler
def test_a_step_begins_and_ends_where_the_grid_says(method):
    seen = []

    def velocity(z, t):
        jax.debug.callback(lambda t: seen.append(float(t[0])), t)
        return jnp.ones_like(z)

    end = method(velocity, jnp.zeros((1, 1)), 4, grid='shifted:3')
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(set(seen)), times(4, 'shifted:3')[:-1], atol=1e-7)
    np.testing.assert_allclose(end, 1, atol=1e-6)
