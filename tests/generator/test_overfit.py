"""Either network learns one clip by heart: what is left between prediction and truth is what the
autoencoder leaves.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import re2pix_jax
from re2pix_jax import world
from re2pix_jax.data import video
from re2pix_jax.evaluation.evaluators import image
from re2pix_jax.generator import Generator, backbone, flow

STEPS, NOISES = 160, 2
SHAPES = dict(
    latent_channels=8, latent_grid=(4, 8), components=144, context_frames=4, future_frames=4
)
NETS = {
    'dit': (3e-3, dict(patch_size=2, width=96, depth=2, heads=4, ffn_multiple=32, unroll=True)),
    'unet': (
        2e-3,
        dict(width=32, multiples=(1, 2), blocks=1, head=16, groups=8, spatial_levels=(1,)),
    ),
}


@pytest.fixture(scope='module', autouse=True)
def optimised():
    """Convolutions without the compiler's optimisations take ten times longer than it does."""
    usual = jax.config.read('jax_disable_most_optimizations')
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', usual)


@pytest.fixture(scope='module')
def clip():
    """Frames uint8 [8, 16, 32, 3] of the world, their latents [1, 8, ...] and components, and the
    autoencoder.
    """
    frames = video.fit(world.render('validation', 0, range(0, 24, 3), (32, 64)).frames, (16, 32))
    vae, encoder, principal = (
        re2pix_jax.load(f'tiny/{part}')
        for part in ('vae', 'forecaster/encoder', 'forecaster/principal')
    )
    features = encoder.replace(image_size=None).encode(frames[None])
    return frames, vae.encode(frames[None]), principal.project(features), vae


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dit', 'unet'])
def test_one_clip_is_learned_by_heart(name, clip):
    frames, latents, components, vae = clip
    rate, fields = NETS[name]
    net = backbone.create(name, **SHAPES, **fields)
    (context, target), (past, future) = ((x[:, :4], x[:, 4:]) for x in (latents, components))
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, STEPS))
    )
    several = lambda x: jnp.repeat(x, NOISES, axis=0)

    def loss(params, key):
        keys = jax.random.split(key)
        t, noise = (
            flow.sample_time(keys[0], (NOISES,), -0.4, 1.0),
            jax.random.normal(keys[1], (NOISES, *target.shape[1:])),
        )
        noisy = flow.interpolate(target, noise, t)
        prediction = net.apply(params, several(context), noisy, t, several(past), several(future))
        return flow.loss(prediction, target, noise, noisy, t)

    @jax.jit
    def step(params, state, key):
        updates, state = optimiser.update(jax.grad(loss)(params, key), state)
        return optax.apply_updates(params, updates), state

    params = jax.jit(net.init)(jax.random.key(0), *net.example())
    state = optimiser.init(params)
    for key in jax.random.split(jax.random.key(1), STEPS):
        params, state = step(params, state, key)
    sampled = Generator(params, net).sample(
        context, past, future, jax.random.split(jax.random.key(2), 1), steps=20
    )
    ours, best = (
        float(np.mean(image.psnr(np.asarray(vae.decode(x))[0], frames[4:])))
        for x in (sampled, target)
    )
    assert ours > best - 1, f'{ours:.2f} dB against {best:.2f} dB'
