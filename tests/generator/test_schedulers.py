"""The samplers beside the schedulers of the `diffusers` package. Skipped where torch or diffusers
are not installed.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.generator import sampler

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

NOISE = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
STEPS = 7


def velocity(z, t, cos):
    """Something without symmetry; of a time [B] or a number."""
    t = t[:, None] if getattr(t, 'ndim', 0) else t
    return cos(3 * z + 2 * t) - t * z


def follow(scheduler, sigmas):
    """Their loop: sigma is 1 - t, and their velocity points from data to noise."""
    z = torch.from_numpy(NOISE)
    for time, sigma in zip(scheduler.timesteps, sigmas, strict=True):
        z = scheduler.step(-velocity(z, 1 - float(sigma), torch.cos), time, z).prev_sample
    return z.numpy()


def ours(method, grid):
    found = method(lambda z, t: velocity(z, t, jnp.cos), jnp.asarray(NOISE), STEPS, grid=grid)
    return np.asarray(found)


@pytest.mark.parametrize('shift', [1.0, 3.0])
def test_euler_and_the_shifted_grid(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    # As the pipelines of Stable Diffusion 3 and Flux call it.
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS))
    grid = f'shifted:{shift}'
    np.testing.assert_allclose(scheduler.sigmas, 1 - sampler.times(STEPS, grid), atol=1e-6)
    found = follow(scheduler, scheduler.sigmas[:-1])
    np.testing.assert_allclose(ours(sampler.euler, grid), found, atol=1e-5)


@pytest.mark.parametrize('grid', ['even', 'shifted:3', 'quantiles:-0.4,1'])
def test_heun(grid):
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    # Times of the grid in the place of its own, each but the ends twice, as it keeps them.
    sigmas = torch.from_numpy(1 - sampler.times(STEPS, grid))
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    scheduler.timesteps = 1000 * scheduler.sigmas[:-1]
    found = follow(scheduler, scheduler.sigmas[:-1])
    assert len(scheduler.timesteps) == sampler.evaluations('heun', STEPS)
    np.testing.assert_allclose(ours(sampler.heun, grid), found, atol=1e-5)
