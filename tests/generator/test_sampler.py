import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.generator.flow import FLOW, Diffusion
from re2pix_jax.generator.sampler import SAMPLERS, ddim, euler, evaluations, find, heun

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
