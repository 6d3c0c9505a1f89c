"""The vision transformer and the encoder around it, by their properties; numbers are in
tests/convert/test_published.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.encoder import Encoder, VisionTransformer, normalise
from re2pix_jax.nn import rotary

NET = VisionTransformer(
    patch_size=4, width=24, depth=3, heads=3, registers=2, layers=(0, 2), position_grid=(3, 5)
)


@pytest.fixture(scope='module')
def params():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 12, 20, 3)))


@pytest.fixture(scope='module')
def frames():
    return np.random.default_rng(0).integers(0, 256, (2, 3, 12, 20, 3), np.uint8)


def test_features_are_normed_layers_side_by_side(params, frames):
    images = normalise(jnp.asarray(frames[:, 0]))
    features = NET.apply(params, images)
    cls, patches = NET.apply(params, images, method='tokens')
    assert features.shape == (2, 3, 5, 48) and cls.shape == (2, 24)
    np.testing.assert_allclose(features[..., 24:], patches, atol=1e-5)
    np.testing.assert_allclose(features.reshape(2, 3, 5, 2, 24).mean(-1), 0.0, atol=1e-4)


def test_both_methods_create_the_same_parameters(params):
    mask = jnp.zeros((1, 3, 5), bool)
    other = jax.eval_shape(
        lambda: NET.init(jax.random.key(0), jnp.zeros((1, 12, 20, 3)), mask, method='tokens')
    )
    shallow = jax.eval_shape(
        NET.clone(layers=(0,)).init, jax.random.key(0), jnp.zeros((1, 12, 20, 3))
    )
    shapes = jax.tree.map(jnp.shape, params)
    assert jax.tree.map(jnp.shape, other) == shapes and jax.tree.map(jnp.shape, shallow) == shapes


def test_masked_patches_do_not_show(params, frames):
    images = normalise(jnp.asarray(frames[:1, 0]))
    mask = jnp.zeros((1, 3, 5), bool).at[0, 1, 2].set(True)
    changed = images.at[0, 4:8, 8:12].add(1.0)  # the pixels of that patch
    one, other = (NET.apply(params, x, mask, method='tokens') for x in (images, changed))
    np.testing.assert_array_equal(one[1], other[1])
    assert float(jnp.abs(NET.apply(params, images) - NET.apply(params, changed)).max()) > 1e-3


def test_encoder_normalises_integers_and_resizes(params, frames):
    encoder = Encoder(params, NET)
    from_floats = encoder.encode(normalise(jnp.asarray(frames)))
    assert from_floats.shape == (2, 3, 3, 5, 48)
    np.testing.assert_allclose(encoder.encode(frames), from_floats, atol=1e-5)
    doubled = frames.repeat(2, axis=2).repeat(2, axis=3)
    resized = Encoder(params, NET, image_size=(12, 20)).encode(doubled)
    assert resized.shape == from_floats.shape
    assert Encoder(params, NET).encode(doubled).shape == (
        2,
        3,
        6,
        10,
        48,
    )  # positions are interpolated


def test_encoder_passes_through_jit_as_an_argument(params, frames):
    encoder = Encoder(params, NET)
    through = jax.jit(lambda part, x: part.encode(x))(encoder, frames)
    np.testing.assert_allclose(through, encoder.encode(frames), atol=1e-5)


def test_bfloat16_stays_close(params, frames):
    half = Encoder(params, NET.clone(dtype='bfloat16')).encode(frames)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        half.astype(jnp.float32), Encoder(params, NET).encode(frames), atol=0.2
    )


ROTARY = VisionTransformer(
    patch_size=4,
    width=24,
    depth=2,
    heads=3,
    registers=2,
    layers=(0, 1),
    position_grid=None,
    biased='qv',
)


@pytest.fixture(scope='module')
def rotary_params():
    return jax.jit(ROTARY.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))


def test_rotary_positions_hold_no_table_and_take_any_grid(rotary_params, frames):
    names = rotary_params['params']
    assert 'pos_embed' not in names and names['blocks']['attn']['qkv']['bias'].shape == (2, 48)
    images = normalise(jnp.asarray(frames[:, 0]))
    assert ROTARY.apply(rotary_params, images).shape == (2, 3, 5, 48)
    assert ROTARY.apply(rotary_params, images[:, :, :4]).shape == (2, 3, 1, 48)
    cls, patches = ROTARY.apply(rotary_params, images, method='tokens')
    np.testing.assert_allclose(ROTARY.apply(rotary_params, images)[..., 24:], patches, atol=1e-5)


def test_rotary_positions_are_seen(rotary_params, frames):
    patch = normalise(jnp.asarray(frames[:1, 0, :4, :4]))
    row = ROTARY.apply(rotary_params, jnp.concatenate([patch, -patch, patch], axis=2))[0, 0]
    assert (
        float(jnp.abs(row[0] - row[2]).max()) > 1e-4
    )  # the same patch, with the same neighbour, to its right or left


def test_centred_codes_reach_as_far_on_every_grid():
    near, far = (rotary.centred_space_code(side, 1, 8, 100.0) for side in (2, 4))
    np.testing.assert_allclose(near[0][:, 0], np.cos(2 * np.pi * np.array([-0.5, 0.5])), atol=1e-6)
    np.testing.assert_allclose(
        far[1][:, 1], np.sin(2 * np.pi * np.array([-0.75, -0.25, 0.25, 0.75]) / 10), atol=1e-6
    )
    np.testing.assert_array_equal(far[1][:, 2:], 0.0)  # the middle of the only column


def test_front_tokens_do_not_turn():
    cosine, sine = rotary.centred_space_code(2, 3, 8, 100.0, still=3)
    assert cosine.shape == sine.shape == (9, 4)
    assert (cosine[:3] == 1).all() and (sine[:3] == 0).all()
    np.testing.assert_array_equal(cosine[3:], rotary.centred_space_code(2, 3, 8, 100.0)[0])


def test_fields_that_do_not_fit_are_refused():
    for fields, match in (
        ({'layers': (3,)}, r'layers \[3\] of an encoder of 3 blocks: expected numbers from 0 to 2'),
        ({'layers': ()}, 'at least one'),
        ({'heads': 5}, 'width 24 cannot have 5 heads'),
        ({'heads': 4, 'position_grid': None}, 'a multiple of 4 for rotary positions'),
    ):
        with pytest.raises(ValueError, match=match):
            NET.clone(**fields).init(jax.random.key(0), jnp.zeros((1, 12, 20, 3)))


def test_sizes_that_do_not_divide_are_refused(params):
    with pytest.raises(ValueError, match='13x20 pixels do not divide into patches of 4'):
        NET.apply(params, jnp.zeros((1, 13, 20, 3)))
