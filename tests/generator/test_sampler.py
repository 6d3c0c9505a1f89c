import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.generator.sampler import SAMPLERS, euler, heun

MEAN, STD = 1.5, 0.4
NOISE = jax.random.normal(jax.random.key(0), (4000, 2))


def gaussian_velocity(z, t):
    """E[x - eps | z_t = z] for x ~ N(MEAN, STD^2), in closed form."""
    t = t[:, None]
    variance = t**2 * STD**2 + (1 - t) ** 2
    surprise = (z - t * MEAN) / variance
    return MEAN + (t * STD**2 - (1 - t)) * surprise


@pytest.mark.parametrize('method, steps', [(euler, 100), (heun, 20)])
def test_a_known_gaussian_comes_out(method, steps):
    z = np.asarray(jax.jit(lambda noise: method(gaussian_velocity, noise, steps))(NOISE))
    assert z.mean() == pytest.approx(MEAN, abs=0.03)
    assert z.std() == pytest.approx(STD, abs=0.03)
    # The exact flow of a Gaussian is affine in the noise.
    np.testing.assert_allclose(z, MEAN + STD * NOISE, atol=0.15)


def test_heun_converges_faster():
    exact = MEAN + STD * NOISE
    errors = {name: [float(jnp.abs(method(gaussian_velocity, NOISE, steps) - exact).mean()) for steps in (10, 20)]
              for name, method in SAMPLERS.items()}
    assert errors['heun'][1] < errors['euler'][1] < errors['euler'][0]


@pytest.mark.parametrize('method', [euler, heun])
def test_one_step_to_a_predicted_point(method):
    point = jnp.array([[3.0, -1.0]])
    z = method(lambda z, t: (point - z) / (1 - t[:, None]), NOISE[:5], 1)
    np.testing.assert_allclose(z, jnp.broadcast_to(point, z.shape), atol=1e-6)


@pytest.mark.parametrize('method', [euler, heun])
def test_times_stay_before_the_end(method):
    seen = []

    def velocity(z, t):
        jax.debug.callback(lambda t: seen.append(float(t[0])), t)
        return jnp.zeros_like(z)

    jax.block_until_ready(method(velocity, NOISE[:1], 4))
    jax.effects_barrier()
    assert set(np.round(seen, 6)) == {0.0, 0.25, 0.5, 0.75}


@pytest.mark.parametrize('method', [euler, heun])
def test_no_steps_are_refused(method):
    with pytest.raises(UserError, match='sampler steps is 0; at least 1'):
        method(gaussian_velocity, NOISE, 0)
