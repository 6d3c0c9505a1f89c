"""The part as a whole: cached sampling against plain recomputation, guidance, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.generator import Generator, SpaceTimeDiT, flow
from re2pix_jax.generator.conditioning import keep_first
from re2pix_jax.generator.fusion import EarlyFusion

NET = SpaceTimeDiT(latent_channels=2, latent_grid=(4, 4), patch_size=2, components=10, width=16, depth=2, heads=2,
                   context_frames=2, future_frames=3, ffn_multiple=8)
STEPS = 3
KEYS = jax.random.split(jax.random.key(5), 2)


@pytest.fixture(scope='module')
def generator():
    values = np.random.default_rng(0)
    shapes = jax.eval_shape(NET.init, jax.random.key(0), *NET.example())
    params = jax.tree.map(lambda leaf: jnp.asarray(0.2 * values.normal(size=leaf.shape), jnp.float32), shapes)
    return Generator(params, NET)


@pytest.fixture(scope='module')
def inputs():
    """Context latents, context components, future components."""
    context, _, _, *components = NET.example(2)
    keys = jax.random.split(jax.random.key(1), 3)
    return [jax.random.normal(key, x.shape) for key, x in zip(keys, (context, *components))]


@pytest.fixture(scope='module')
def predict(generator):
    """The prediction of both streams, everything recomputed."""
    apply = jax.jit(NET.apply)
    return lambda context, z, t, context_components, future_components: apply(
        generator.params, context, z, t, context_components, future_components)


def integrate(predict, inputs, keys, guidance=0.0, channels=None):
    """Euler's method in plain Python, without cache, without doubled batches."""
    context, context_components, future_components = inputs
    z = jnp.stack([jax.random.normal(key, (NET.future_frames, 4, 4, 2)) for key in keys])
    for step in range(STEPS):
        t = jnp.full(2, step / STEPS)
        prediction = predict(context, z, t, context_components, future_components)
        if guidance:
            coarse = predict(context, z, t, *(keep_first(x, channels) for x in inputs[1:]))
            prediction = prediction + guidance * (prediction - coarse)
        z = z + flow.velocity(prediction, z, t) / STEPS
    return z


def test_cached_sampling_equals_recomputation(generator, inputs, predict):
    sampled = generator.sample(*inputs, KEYS, steps=STEPS)
    expected = integrate(predict, inputs, KEYS)
    assert sampled.shape == (2, 3, 4, 4, 2) and sampled.dtype == jnp.float32
    np.testing.assert_allclose(sampled, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_guided_sampling_equals_two_recomputations(generator, inputs, predict):
    sampled = generator.sample(*inputs, KEYS, steps=STEPS, guidance=0.4, guidance_channels=4)
    expected = integrate(predict, inputs, KEYS, 0.4, 4)
    np.testing.assert_allclose(sampled, expected, atol=1e-5 * float(jnp.abs(expected).max()))
    assert float(jnp.abs(sampled - integrate(predict, inputs, KEYS)).max()) > 1e-3


def test_coarse_components_decide_alone_when_the_others_are_dropped(generator, inputs, predict):
    t, z = jnp.full(2, 0.5), jax.random.normal(jax.random.key(3), (2, 3, 4, 4, 2))
    other = [x.at[..., 6:].set(7.0) for x in inputs[1:]]
    a, b = (predict(inputs[0], z, t, *(keep_first(x, 6) for x in components)) for components in (inputs[1:], other))
    np.testing.assert_array_equal(a, b)
    assert float(jnp.abs(a - predict(inputs[0], z, t, *other)).max()) > 1e-3


def test_a_sample_is_decided_by_its_own_key(generator, inputs):
    first, second = generator.sample(*inputs, KEYS, steps=STEPS)
    swapped = generator.sample(*(x[::-1] for x in inputs), KEYS[::-1], steps=STEPS)
    np.testing.assert_allclose(swapped, jnp.stack([second, first]), atol=1e-5)
    other = generator.sample(*inputs, jax.random.split(jax.random.key(6), 2), steps=STEPS)
    assert float(jnp.abs(first - other[0]).max()) > 0.1


def test_options_that_cannot_be_are_refused(generator, inputs):
    with pytest.raises(UserError, match="sampler 'ddim' is unknown; choose one of euler, heun"):
        generator.sample(*inputs, KEYS, method='ddim')
    with pytest.raises(UserError, match='sampler steps is 0'):
        generator.sample(*inputs, KEYS, steps=0)
    with pytest.raises(UserError, match='guidance needs a generator with components'):
        generator.replace(net=NET.clone(components=0)).sample(inputs[0], None, None, KEYS, guidance=0.4)
    with pytest.raises(UserError, match='guidance keeps 11 of 10 components'):
        generator.sample(*inputs, KEYS, guidance=0.4, guidance_channels=11)
    with pytest.raises(UserError, match='conditioned on 10 components but was given none'):
        generator.sample(inputs[0], None, None, KEYS, guidance=0.4)


def test_fusion_adds_a_linear_embedding_and_resamples_other_grids():
    fusion = EarlyFusion(3)
    patches = jax.random.normal(jax.random.key(0), (1, 2, 4, 8, 5))
    params = fusion.init(jax.random.key(1), patches, jnp.zeros((1, 2, 4, 8, 3)))
    kernel = params['params']['embed']['kernel']
    components = jax.random.normal(jax.random.key(2), (1, 2, 4, 8, 3))
    np.testing.assert_allclose(fusion.apply(params, patches, components), patches + components @ kernel, atol=1e-5)
    # A plane stays a plane under bilinear resampling, away from the border.
    rows, columns = jnp.mgrid[0:2, 0:4]
    plane = jnp.broadcast_to((rows + 10.0 * columns)[None, None, :, :, None], (1, 2, 2, 4, 3))
    added = fusion.apply(params, patches, plane) - patches
    rows, columns = jnp.mgrid[0:4, 0:8] / 2 - 0.25
    expected = (rows + 10 * columns)[..., None] * kernel.sum(0)
    np.testing.assert_allclose(added[0, 1, 1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)
