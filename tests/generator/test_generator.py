"""The part as a whole: cached sampling against plain recomputation, guidance, errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.generator import Generator, SpaceTimeDiT, flow
from re2pix_jax.generator.conditioning import keep_first
from re2pix_jax.generator.fusion import EarlyFusion

NET = SpaceTimeDiT(
    latent_channels=2,
    latent_grid=(4, 4),
    patch_size=2,
    components=10,
    width=16,
    depth=2,
    heads=2,
    context_frames=2,
    future_frames=3,
    ffn_multiple=8,
)
STEPS = 3
KEYS = jax.random.split(jax.random.key(5), 2)


@pytest.fixture(scope='module')
def generator():
    values = np.random.default_rng(0)
    shapes = jax.eval_shape(NET.init, jax.random.key(0), *NET.example())
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * values.normal(size=leaf.shape), jnp.float32), shapes
    )
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
        generator.params, context, z, t, context_components, future_components
    )


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


def test_channels_beyond_those_kept_do_not_matter(generator, inputs):
    """Neither to the whole sampler nor through guidance; not even where they are not finite."""
    context, *components = inputs
    other = [x.at[..., 6:].set(jnp.nan) for x in components]
    options = dict(steps=STEPS, guidance=0.4, guidance_channels=4)
    a, b = (
        generator.sample(context, *parts, KEYS, channels=6, **options)
        for parts in (components, other)
    )
    np.testing.assert_array_equal(a, b)
    zeroed = [keep_first(x, 6) for x in components]
    np.testing.assert_allclose(a, generator.sample(context, *zeroed, KEYS, **options), atol=1e-5)
    assert float(jnp.abs(a - generator.sample(context, *components, KEYS, **options)).max()) > 1e-3


def test_path_and_target_of_the_generator_decide_what_its_prediction_means(
    generator, inputs, predict
):
    context, *components = inputs
    noise, t = (
        jnp.stack([jax.random.normal(key, (NET.future_frames, 4, 4, 2)) for key in KEYS]),
        jnp.zeros(2),
    )
    form = flow.Diffusion('ddpm', 'epsilon', 'cosine')
    v = flow.velocity(predict(context, noise, t, *components), noise, t, form)
    sampled = generator.replace(**form._asdict()).sample(*inputs, KEYS, steps=1, method='ddim')
    expected = flow.ends(v, noise, t, form)[0]
    np.testing.assert_allclose(sampled, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_bundles_know_path_and_target(generator, tmp_path):
    form = flow.Diffusion('ddpm', 'v', 'cosine')
    bundles.save(tmp_path / 'bundle', generator.replace(**form._asdict()))
    opened = bundles.load(tmp_path / 'bundle', 'generator')
    assert (opened.path, opened.target, opened.schedule) == form
    config = tmp_path / 'bundle' / 'config.json'
    fields = json.loads(config.read_text())
    config.write_text(
        json.dumps({name: value for name, value in fields.items() if name not in form._fields})
    )
    opened = bundles.load(
        tmp_path / 'bundle', 'generator'
    )  # as bundles were before there was a choice
    assert (opened.path, opened.target) == ('flow', 'x')


def test_a_sample_is_decided_by_its_own_key(generator, inputs):
    first, second = generator.sample(*inputs, KEYS, steps=STEPS)
    swapped = generator.sample(*(x[::-1] for x in inputs), KEYS[::-1], steps=STEPS)
    np.testing.assert_allclose(swapped, jnp.stack([second, first]), atol=1e-5)
    other = generator.sample(*inputs, jax.random.split(jax.random.key(6), 2), steps=STEPS)
    assert float(jnp.abs(first - other[0]).max()) > 0.1


BASELINE = NET.clone(components=0)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(method='ddpm'), "sampler 'ddpm' is unknown; choose one of euler, heun, ddim"),
        (dict(steps=0), 'sampler steps is 0'),
        (dict(guidance=0.4, guidance_channels=11), 'guidance keeps 11 of 10 components'),
        (
            dict(guidance=0.4, guidance_channels=8, channels=6),
            'guidance keeps 8 components of the 6 that are given',
        ),
        (dict(channels=0), 'channels: 0 of 10 components'),
        (dict(channels=11), 'channels: 11 of 10 components'),
    ],
)
def test_options_that_cannot_be_are_refused(generator, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        generator.sample(*inputs, KEYS, **options)


def test_inputs_that_do_not_go_together_are_refused(generator, inputs):
    context, past, future = inputs
    with pytest.raises(ValueError, match='conditioned on 10 components but was given none'):
        generator.sample(context, None, None, KEYS, guidance=0.4)
    with pytest.raises(
        ValueError,
        match='context components of 2 frames for each of 2 samples of latents, got 1 frames for '
        '2; cut both',
    ):
        generator.sample(context, past[:, 1:], future, KEYS)
    with pytest.raises(
        ValueError,
        match='future components of 3 frames for each of 2 samples of latents, got 3 frames for 1',
    ):
        generator.sample(context, past, future[:1], KEYS)
    with pytest.raises(ValueError, match='expected context latents'):
        generator.sample(context[:, 1:], past, future, KEYS)
    with pytest.raises(
        ValueError, match=r'one key for each of 2 samples, got keys of shape \(1,\)'
    ):
        generator.sample(*inputs, KEYS[:1])
    for option in (dict(guidance=0.4), dict(channels=4)):
        with pytest.raises(
            ValueError, match=f'{next(iter(option))} = .* needs a generator with components'
        ):
            generator.replace(net=BASELINE).sample(context, None, None, KEYS, **option)
    with pytest.raises(ValueError, match="diffusion target 'noise' is unknown"):
        generator.replace(target='noise').sample(*inputs, KEYS)


def test_fusion_adds_a_linear_embedding_and_resamples_other_grids():
    fusion = EarlyFusion(3)
    patches = jax.random.normal(jax.random.key(0), (1, 2, 4, 8, 5))
    params = fusion.init(jax.random.key(1), patches, jnp.zeros((1, 2, 4, 8, 3)))
    kernel = params['params']['embed']['kernel']
    components = jax.random.normal(jax.random.key(2), (1, 2, 4, 8, 3))
    np.testing.assert_allclose(
        fusion.apply(params, patches, components), patches + components @ kernel, atol=1e-5
    )
    # A plane stays a plane under bilinear resampling, away from the border.
    rows, columns = jnp.mgrid[0:2, 0:4]
    plane = jnp.broadcast_to((rows + 10.0 * columns)[None, None, :, :, None], (1, 2, 2, 4, 3))
    added = fusion.apply(params, patches, plane) - patches
    rows, columns = jnp.mgrid[0:4, 0:8] / 2 - 0.25
    expected = (rows + 10 * columns)[..., None] * kernel.sum(0)
    np.testing.assert_allclose(added[0, 1, 1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)
