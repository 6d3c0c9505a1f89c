"""What every network of the generator must do, whatever is inside it: one interface, one cache, no
look into the future.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.generator import Generator, SpaceTimeDiT, backbone, conditioning, flow
from re2pix_jax.generator.unet import VideoUNet
from tests.conftest import random_variables

SHAPES = dict(
    latent_channels=2, latent_grid=(4, 8), components=10, context_frames=2, future_frames=3
)
UNET = VideoUNet(
    **SHAPES, width=8, multiples=(1, 2), blocks=1, spatial_levels=(1,), head=4, groups=4
)
DIT = SpaceTimeDiT(**SHAPES, patch_size=2, width=16, depth=2, heads=2, ffn_multiple=8)
NETS = {
    'factorised': DIT,
    'joint': DIT.clone(attention='joint'),
    'unet': UNET,
    'unet baseline': UNET.clone(components=0),
}


def draw_inputs(net, batch=2):
    """Context latents, noisy latents, t, context components, future components; the last two None
    for a baseline.
    """
    values = np.random.default_rng(1)
    inputs = jax.tree.map(
        lambda x: jnp.asarray(values.normal(size=x.shape), jnp.float32), list(net.example(batch))
    )
    inputs[2] = jnp.asarray(values.uniform(size=batch), jnp.float32)
    return inputs


@pytest.fixture(scope='module', params=NETS)
def made(request):
    """(network, parameters without a layer at zero, its compiled function)"""
    net = NETS[request.param]
    return net, random_variables(net, *net.example()), jax.jit(net.apply)


@pytest.mark.long
def test_a_prediction_depends_on_every_frame_of_its_own_sample_only(made):
    net, params, apply = made
    inputs = draw_inputs(net)
    usual = apply(params, *inputs)
    assert usual.shape == inputs[1].shape and usual.dtype == jnp.float32
    for index, array in enumerate(inputs):
        if array is None:
            continue
        for frame in range(array.shape[1]) if array.ndim > 1 else [...]:
            changed = apply(
                params, *inputs[:index], array.at[0, frame].add(0.5), *inputs[index + 1 :]
            )
            assert (
                float(jnp.abs(changed[0] - usual[0]).reshape(net.future_frames, -1).max(-1).min())
                > 1e-4
            )
            np.testing.assert_array_equal(changed[1], usual[1])


def test_no_gradient_flows_from_the_future_into_the_context(made):
    net, params, _ = made
    context, noisy, t, context_components, future_components = draw_inputs(net)

    def cache(future):
        _, state = net.apply(
            params,
            context,
            future[0],
            future[1],
            context_components,
            future[2],
            capture_intermediates=lambda module, name: name == 'context',
            mutable='intermediates',
        )
        return state['intermediates']['context'][0]

    future = noisy, t, future_components
    value, tangent = jax.jit(
        lambda future: jax.jvp(cache, (future,), (jax.tree.map(jnp.ones_like, future),))
    )(future)
    assert jax.tree.leaves(value) and all(
        float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(value)
    )
    assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(tangent))


@pytest.mark.long
def test_cached_sampling_equals_recomputation(made):
    net, params, apply = made
    context, _, _, *components = draw_inputs(net)
    keys, steps = jax.random.split(jax.random.key(5), 2), 3
    sampled = Generator(params, net).sample(context, *components, keys, steps=steps)
    z = jnp.stack([jax.random.normal(key, sampled.shape[1:]) for key in keys])
    for step in range(steps):
        t = jnp.full(2, step / steps)
        z = z + flow.velocity(apply(params, context, z, t, *components), z, t) / steps
    np.testing.assert_allclose(sampled, z, atol=1e-5 * float(jnp.abs(z).max()))


@pytest.mark.parametrize('name', ['factorised', 'unet'])
def test_what_is_sampled_with_is_what_was_trained_to_the_last_bit(name):
    """In half precision, where kernels are rounded before and not at every call."""
    net = NETS[name].clone(dtype='bfloat16')
    params, (context, noisy, t, *components) = (
        random_variables(net, *net.example()),
        draw_inputs(net),
    )
    lighter = net.for_sampling(params)
    halved = [leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(lighter)]
    assert sum(halved) > len(halved) / 3
    np.testing.assert_array_equal(
        net.apply(lighter, context, noisy, t, *components),
        net.apply(params, context, noisy, t, *components),
    )


def test_a_context_frame_has_the_time_that_it_is_given(made):
    net, params, apply = made
    context, _, _, *components = inputs = draw_inputs(net)
    usual = apply(params, *inputs)
    clean = jnp.ones(context.shape[:2])
    np.testing.assert_allclose(apply(params, *inputs, clean), usual, atol=1e-5)
    for frame in range(net.context_frames):
        late = apply(params, *inputs, clean.at[0, frame].set(0.7))
        assert float(jnp.abs(late[0] - usual[0]).max()) > 1e-4
        np.testing.assert_allclose(late[1:], usual[1:], atol=1e-5)


@pytest.mark.long
def test_the_noised_context_is_sampled_from_with_its_times(made):
    net, params, apply = made
    context, _, _, *components = draw_inputs(net)
    keys, times = jax.random.split(jax.random.key(5), 2), jnp.array([1.0, 0.7])
    sampled = Generator(params, net).sample(
        context, *components, keys, steps=2, grid='shifted:2', context_t=times
    )
    t = jnp.broadcast_to(times, context.shape[:2])
    context = conditioning.noised(keys, context, t, flow.FLOW)
    z = jnp.stack([jax.random.normal(key, sampled.shape[1:]) for key in keys])
    for start, end in ((0, 1 / 3), (1 / 3, 1)):
        now = jnp.full(2, float(start))
        x = apply(params, context, z, now, *components, t)
        z = z + (end - start) * flow.velocity(x, z, now)
    np.testing.assert_allclose(sampled, z, atol=1e-5 * float(jnp.abs(z).max()))


def test_a_bundle_gives_back_the_network(made, tmp_path):
    net, params, _ = made
    bundles.save(tmp_path / 'bundle', Generator(params, net))
    opened = bundles.load(tmp_path / 'bundle', 'generator')
    assert opened.net == net
    jax.tree.map(np.testing.assert_array_equal, opened.params, params)


@pytest.mark.long
def test_remat_computes_the_forward_pass_of_a_unet_twice():
    params, inputs = random_variables(UNET, *UNET.example()), draw_inputs(UNET)

    def convolutions(net):
        loss = jax.grad(lambda params: net.apply(params, *inputs).sum())
        return str(jax.make_jaxpr(loss)(params)).count('conv_general_dilated')

    # Two convolutions in each of the eight residual blocks, in either stream.
    assert convolutions(UNET.clone(remat=True)) >= convolutions(UNET) + 2 * 8


def test_a_unet_resamples_components_of_another_grid():
    params, (context, noisy, t, *components) = (
        random_variables(UNET, *UNET.example()),
        draw_inputs(UNET),
    )
    coarse = [x[:, :, ::2, ::2] for x in components]
    assert jax.eval_shape(UNET.apply, params, context, noisy, t, *coarse).shape == noisy.shape


@pytest.mark.parametrize(
    'fields, message',
    [
        (
            dict(latent_grid=(5, 8)),
            r'latent grid \(5, 8\) must be a multiple of 2: the U-Net halves it 1 times',
        ),
        (dict(width=10), 'U-Net width 10 must be a multiple of head = 4'),
    ],
)
def test_sizes_that_a_unet_cannot_have_are_refused(fields, message):
    net = UNET.clone(**fields)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), *net.example())


def test_the_backbone_is_chosen_by_name():
    assert isinstance(
        backbone.create(**SHAPES, patch_size=2, width=16, depth=2, heads=2), SpaceTimeDiT
    )
    assert isinstance(backbone.create('unet', **SHAPES, width=8), VideoUNet)
    with pytest.raises(
        ValueError, match="the backbone 'resnet' is unknown; choose one of dit, unet"
    ):
        backbone.create('resnet')
    with pytest.raises(ValueError, match="the backbone 'unet' has no patch_size; it takes"):
        backbone.create('unet', **SHAPES, width=8, patch_size=2)
