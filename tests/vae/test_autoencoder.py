import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.nn.convolution import Downsample, GroupNorm, Upsample
from re2pix_jax.vae import Autoencoder, AutoencoderKL

NET = AutoencoderKL(
    block_out_channels=(8, 16, 16), layers_per_block=1, latent_channels=3, norm_groups=4
)


@pytest.fixture(scope='module')
def autoencoder():
    # Drawn with numpy: compiling the initialisation of many small arrays takes longer than every
    # test here.
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, 16, 32, 3)))
    params = jax.tree.map(
        lambda leaf: jnp.asarray(
            generator.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 4)),
            jnp.float32,
        ),
        shapes,
    )
    return Autoencoder(params, NET, scaling_factor=0.5, shift_factor=0.25)


@pytest.fixture(scope='module')
def frames():
    return jax.random.randint(jax.random.key(1), (2, 3, 16, 24, 3), 0, 256).astype(jnp.uint8)


def count(net, size=64):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_parameter_count_is_stable_diffusions():
    assert count(AutoencoderKL()) == 83_653_863


def test_optional_parts_change_the_count_by_their_own_size():
    full, channels, latent = AutoencoderKL(), 512, 4
    without_quant = count(full.clone(quant_conv=False))
    assert count(full) - without_quant == (2 * latent) * (2 * latent + 1) + latent * (latent + 1)
    attention = 4 * channels * (channels + 1) + 2 * channels
    assert count(full) - count(full.clone(mid_attention=False)) == 2 * attention


def test_module_names_mirror_the_published_keys():
    params = jax.eval_shape(AutoencoderKL().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[
        'params'
    ]
    assert set(params) == {'encoder', 'decoder', 'quant_conv', 'post_quant_conv'}
    assert set(params['encoder']) == {'conv_in', 'mid_block', 'conv_norm_out', 'conv_out'} | {
        f'down_blocks_{i}' for i in range(4)
    }
    assert set(params['encoder']['down_blocks_1']) == {'resnets_0', 'resnets_1', 'downsamplers_0'}
    assert 'downsamplers_0' not in params['encoder']['down_blocks_3']
    assert set(params['decoder']['up_blocks_2']) == {
        'resnets_0',
        'resnets_1',
        'resnets_2',
        'upsamplers_0',
    }
    assert 'upsamplers_0' not in params['decoder']['up_blocks_3']
    assert set(params['decoder']['up_blocks_2']['resnets_0']) == {
        'norm1',
        'conv1',
        'norm2',
        'conv2',
        'conv_shortcut',
    }
    assert set(params['encoder']['mid_block']) == {'resnets_0', 'attentions_0', 'resnets_1'}
    assert set(params['encoder']['mid_block']['attentions_0']) == {
        'group_norm',
        'to_q',
        'to_k',
        'to_v',
        'to_out_0',
    }


def test_shapes_and_types_of_a_non_square_clip(autoencoder, frames):
    latents = autoencoder.encode(frames)
    assert latents.shape == (2, 3, 4, 6, 3) and latents.dtype == jnp.float32
    decoded = autoencoder.decode(latents)
    assert decoded.shape == frames.shape and decoded.dtype == jnp.uint8


def test_latents_are_the_shifted_and_scaled_mean(autoencoder, frames):
    mean, logvar = autoencoder.moments(frames)
    latents = autoencoder.encode(frames)
    assert logvar.shape == mean.shape
    np.testing.assert_allclose(latents, (mean - 0.25) * 0.5, atol=1e-6)
    np.testing.assert_array_equal(latents, autoencoder.encode(frames))
    plain = autoencoder.replace(scaling_factor=1.0, shift_factor=0.0)
    np.testing.assert_allclose(
        autoencoder.decode_float(latents), plain.decode_float(mean), atol=1e-5
    )


def test_frames_are_encoded_one_by_one(autoencoder, frames):
    reordered = autoencoder.encode(frames[::-1, ::-1])
    np.testing.assert_allclose(reordered[::-1, ::-1], autoencoder.encode(frames), atol=1e-5)


def test_uint8_and_normalised_frames_agree(autoencoder, frames):
    normalised = frames.astype(jnp.float32) / 127.5 - 1
    np.testing.assert_allclose(
        autoencoder.encode(frames), autoencoder.encode(normalised), atol=1e-6
    )


def test_decode_clips_and_rounds_to_the_nearest_level(autoencoder):
    loud = 100 * jax.random.normal(jax.random.key(3), (2, 3, 4, 6, 3))
    params = jax.tree.map(lambda x: x, autoencoder.params)
    params['params']['decoder']['conv_out'] = jax.tree.map(
        lambda x: 3 * x, params['params']['decoder']['conv_out']
    )
    loudspeaker = autoencoder.replace(params=params)
    floats, levels = loudspeaker.decode_float(loud), loudspeaker.decode(loud)
    assert floats.min() == -1 and floats.max() == 1 and levels.min() == 0 and levels.max() == 255
    np.testing.assert_allclose(levels, (floats + 1) * 127.5, atol=0.5 + 1e-4)


def test_logvar_is_bounded(autoencoder, frames):
    params = jax.tree.map(lambda x: x, autoencoder.params)
    params['params']['quant_conv']['bias'] = params['params']['quant_conv']['bias'].at[3:].set(1e4)
    assert autoencoder.replace(params=params).moments(frames)[1].max() == 20


def test_sides_that_are_not_multiples_are_refused(autoencoder):
    with pytest.raises(ValueError, match='18x24 frames; both sides must be multiples of 4'):
        autoencoder.encode(jnp.zeros((1, 1, 18, 24, 3), jnp.uint8))


def test_norm_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match='norm_groups 5 does not divide 8 channels'):
        jax.eval_shape(NET.clone(norm_groups=5).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_group_norm_against_its_definition():
    x = 5 + 3 * np.random.default_rng(0).normal(size=(2, 4, 6, 12)).astype(np.float32)
    norm = GroupNorm(3)
    params = {'params': {'scale': jnp.arange(1.0, 13.0), 'bias': jnp.arange(12.0)}}
    grouped = x.astype(np.float64).reshape(2, 24, 3, 4)
    mean, variance = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape) * np.arange(
        1, 13
    ) + np.arange(12)
    np.testing.assert_allclose(norm.apply(params, x), expected, atol=1e-4)


def test_downsampling_pads_below_and_to_the_right_only():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 1)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 1, 1)).astype(np.float32)
    padded = np.pad(x[0, :, :, 0], ((0, 1), (0, 1)))
    expected = [
        [(padded[i : i + 3, j : j + 3] * kernel[:, :, 0, 0]).sum() for j in (0, 2, 4)]
        for i in (0, 2)
    ]
    actual = Downsample().apply({'params': {'conv': {'kernel': kernel, 'bias': jnp.zeros(1)}}}, x)
    np.testing.assert_allclose(actual[0, :, :, 0], expected, rtol=1e-5, atol=1e-5)


def test_upsampling_repeats_the_nearest_pixel():
    x = np.random.default_rng(0).normal(size=(1, 3, 2, 1)).astype(np.float32)
    identity = np.zeros((3, 3, 1, 1), np.float32)
    identity[1, 1] = 1
    actual = Upsample().apply({'params': {'conv': {'kernel': identity, 'bias': jnp.zeros(1)}}}, x)
    np.testing.assert_array_equal(actual[0, :, :, 0], x[0, :, :, 0].repeat(2, 0).repeat(2, 1))


def test_compute_precision_leaves_parameters_and_results_in_float32(autoencoder, frames):
    net, images = NET.clone(dtype='bfloat16'), frames[0, :1].astype(jnp.float32) / 127.5 - 1
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}
    half, _ = jax.jit(lambda params: net.apply(params, images, method='encode'))(autoencoder.params)
    single = autoencoder.moments(frames)[0][0, :1]
    assert (
        half.dtype == jnp.float32
        and 0 < jnp.abs(half - single).max() < 0.05 * jnp.abs(single).max()
    )


def test_upsampling_is_the_convolution_of_the_repeated_map():
    rng = np.random.default_rng(0)
    x, bias = (
        rng.normal(size=(2, 3, 5, 4)).astype(np.float32),
        rng.normal(size=4).astype(np.float32),
    )
    kernel = rng.normal(size=(3, 3, 4, 4)).astype(np.float32)
    padded = np.pad(x.repeat(2, 1).repeat(2, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = (
        sum(padded[:, i : i + 6, j : j + 10] @ kernel[i, j] for i in range(3) for j in range(3))
        + bias
    )
    actual = Upsample().apply({'params': {'conv': {'kernel': kernel, 'bias': bias}}}, x)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_slices_of_frames_change_nothing(autoencoder, frames):
    latents, sliced = (
        autoencoder.encode(frames),
        autoencoder.replace(frames_at_once=4),
    )  # 6 frames: a slice of 4 and one of 2
    np.testing.assert_allclose(sliced.encode(frames), latents, atol=1e-5)
    np.testing.assert_allclose(
        sliced.decode_float(latents), autoencoder.decode_float(latents), atol=1e-5
    )
    np.testing.assert_allclose(sliced.moments(frames)[1], autoencoder.moments(frames)[1], atol=1e-4)


def test_tiles_as_large_as_the_frame_change_nothing(autoencoder, frames):
    latents, tiled = autoencoder.encode(frames), autoencoder.replace(tile=6)
    np.testing.assert_array_equal(tiled.encode(frames), latents)
    np.testing.assert_array_equal(tiled.decode(latents), autoencoder.decode(latents))


def test_smaller_tiles_approximate_in_any_slices(autoencoder, frames):
    tiled = autoencoder.replace(tile=4)
    latents = autoencoder.encode(frames)
    assert tiled.encode(frames).shape == latents.shape
    images = tiled.decode_float(latents)
    np.testing.assert_allclose(
        tiled.replace(frames_at_once=1).decode_float(latents), images, atol=1e-5
    )
    whole = autoencoder.decode_float(latents)
    assert 0 < jnp.abs(images - whole).mean() < 0.5 * jnp.abs(whole - whole.mean()).mean()


def test_memory_grows_with_the_tile_and_not_with_the_frame(autoencoder):
    def needed(part, side):
        latents = jax.ShapeDtypeStruct((1, 1, side, 2 * side, 3), jnp.float32)
        frame = side * 4 * 2 * side * 4 * 3 * 4  # the result itself, in bytes, grows
        return (
            Autoencoder.decode_float.lower(part, latents)
            .compile()
            .memory_analysis()
            .temp_size_in_bytes
            - 3 * frame
        )

    tiled = autoencoder.replace(tile=8)
    assert needed(tiled, 32) < 1.5 * needed(tiled, 16)
    assert needed(autoencoder, 32) > 3 * needed(autoencoder, 16)


@pytest.mark.parametrize('limits', [{'tile': 0}, {'frames_at_once': -1}])
def test_limits_that_are_none_are_refused(autoencoder, frames, limits):
    with pytest.raises(
        ValueError,
        match=f'{next(iter(limits))} of the autoencoder is .*: expected a positive number',
    ):
        autoencoder.replace(**limits).encode(frames)


def test_sides_that_are_not_multiples_are_refused_in_tiles_too(autoencoder):
    with pytest.raises(ValueError, match='18x24 frames; both sides must be multiples of 4'):
        autoencoder.replace(tile=4).encode(jnp.zeros((1, 1, 18, 24, 3), jnp.uint8))
