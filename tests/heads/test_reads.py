"""What heads read: labels, depth, normals, resized as published heads are; classes of depth; what a
head refuses.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.heads import DPTHead, Head, ordinal
from tests.conftest import random_variables

OUTPUTS = {'segmentation': 7, 'depth': 9, 'normals': 3}


@pytest.fixture(scope='module')
def features():
    return jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 24))


@pytest.fixture(scope='module')
def heads(features):
    nets = {
        reads: DPTHead(classes=count, features=8, channels=(4, 6, 8, 8))
        for reads, count in OUTPUTS.items()
    }
    return {
        reads: Head(random_variables(net, features[:, 0]), net, reads)
        for reads, net in nets.items()
    }


def cubic(length, size):
    """[size, length]: cubic convolution with a = -0.75 between centres of pixels, borders repeated,
    as torch resizes.
    """
    matrix = np.zeros((size, length))
    for row in range(size):
        centre = (row + 0.5) * length / size - 0.5
        for place in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - place)
            weight = (
                1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            )
            matrix[row, min(max(place, 0), length - 1)] += weight
    return matrix


def resized(head, features, size):
    """The head's logits, resized in float64: [B, T, H, W, K]."""
    logits = np.asarray(head.logits(features), np.float64)
    return np.einsum(
        'yh,xw,bthwk->btyxk',
        cubic(logits.shape[2], size[0]),
        cubic(logits.shape[3], size[1]),
        logits,
        optimize=True,
    )


@pytest.mark.parametrize(
    'size', [(16, 32), (24, 50), (131, 70)]
)  # as they are, and in one and several goes of rows
def test_every_verb_decides_on_bicubically_resized_logits(heads, features, size):
    logits = {reads: resized(head, features, size) for reads, head in heads.items()}
    labels = heads['segmentation'].labels(features, size)
    assert labels.dtype == jnp.uint8 and labels.shape == (2, 3, *size)
    assert (labels == logits['segmentation'].argmax(-1)).mean() > 0.999  # a tie may fall either way
    depth = heads['depth'].depth(features, size)
    assert depth.dtype == jnp.float32 and float(depth.min()) >= 1
    assert (depth == 1 + logits['depth'][..., 1:].argmax(-1)).mean() > 0.999
    normals = heads['normals'].normals(features, size)
    assert normals.dtype == jnp.float32 and normals.shape == (2, 3, *size, 3)
    expected = logits['normals'] / np.linalg.norm(logits['normals'], axis=-1, keepdims=True)
    np.testing.assert_allclose(normals, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)


def test_without_a_size_it_is_that_of_the_logits_and_frames_are_independent(heads, features):
    whole = heads['depth'].depth(features)
    assert whole.shape == (2, 3, 16, 32)
    np.testing.assert_array_equal(heads['depth'].depth(features[1:, 1:2]), whole[1:, 1:2])


def test_metres_are_the_middle_of_classes(heads, features):
    metric = heads['depth'].replace(depth_range=(1.0, 80.0))
    classes = np.asarray(heads['depth'].depth(features, (20, 40)))
    np.testing.assert_allclose(
        metric.depth(features, (20, 40)), 80 ** ((classes - 0.5) / 8), rtol=1e-5
    )


@pytest.mark.parametrize('depth_range', [None, (1.0, 200.0), (0.5, 80.0)])
def test_classes_come_back_from_depth(depth_range):
    classes = jnp.arange(256)
    depth = ordinal.to_depth(classes, 256, depth_range)
    assert depth[0] == 0 and bool((jnp.diff(depth) > 0).all())
    np.testing.assert_array_equal(ordinal.to_classes(depth, 256, depth_range), classes)


def test_a_class_is_off_by_the_same_share_everywhere():
    depth = np.geomspace(1.0001, 199.99, 5000).astype(np.float32)
    back = ordinal.to_depth(ordinal.to_classes(depth, 256, (1.0, 200.0)), 256, (1.0, 200.0))
    error = np.abs(np.asarray(back) / depth - 1)
    assert error.max() < 0.0105
    assert error[:500].max() > 0.0095 and error[-500:].max() > 0.0095
    np.testing.assert_array_equal(
        ordinal.to_classes(jnp.asarray([0.0, -1.0, 0.2, 1e4]), 256, (1.0, 200.0)), [0, 0, 1, 255]
    )
    np.testing.assert_array_equal(
        ordinal.to_classes(jnp.asarray([0, 7, 255], jnp.uint8), 256, None), [0, 7, 255]
    )


def test_a_head_refuses_what_it_does_not_read(heads, features):
    with pytest.raises(
        ValueError,
        match=r'^this head reads depth and was asked for labels: ask for depth, or load a head '
        r'that reads '
        'segmentation$',
    ):
        heads['depth'].labels(features)
    with pytest.raises(
        ValueError, match='this head reads segmentation and was asked for normals: ask for labels'
    ):
        heads['segmentation'].normals(features)
    with pytest.raises(ValueError, match='this head reads normals and was asked for depth'):
        heads['normals'].depth(features)


@pytest.mark.parametrize('verb', ['labels', 'depth', 'normals'])
def test_features_of_another_encoder_are_refused(heads, verb):
    head = heads['segmentation' if verb == 'labels' else verb]
    with pytest.raises(
        ValueError,
        match=r'^the head takes features of 24 channels and was given features of 36 channels: '
        r'[^\n]*$',
    ):
        getattr(head, verb)(jnp.zeros((1, 1, 2, 4, 36)))


def test_features_without_time_are_refused(heads):
    with pytest.raises(
        ValueError, match=r'takes features \[B, T, h, w, 24\] .* given \[1, 2, 4, 24\]'
    ):
        heads['depth'].logits(jnp.zeros((1, 2, 4, 24)))


def test_heads_that_contradict_themselves_are_refused(heads):
    def refused(name, message, **changes):
        with pytest.raises(ValueError, match=message):
            heads[name].replace(**changes)

    refused('depth', "reads 'colour': expected one of segmentation, depth, normals", reads='colour')
    refused('depth', 'reads normals has 9 classes: expected 3', reads='normals')
    refused('depth', r'has depth_range \(80.0, 1.0\)', depth_range=(80.0, 1.0))
    refused('depth', r'has depth_range \(0.0, 1.0\)', depth_range=(0.0, 1.0))
    refused('segmentation', 'head that reads segmentation has depth_range', depth_range=(1.0, 80.0))


def test_bundles_keep_what_a_head_reads_and_those_for_segmentation_their_bytes(
    heads, features, tmp_path
):
    for reads, head in (
        *heads.items(),
        ('metric', heads['depth'].replace(depth_range=(1.0, 80.0))),
    ):
        bundles.save(tmp_path / reads, head)
        loaded = bundles.load(tmp_path / reads, 'head')
        assert (loaded.reads, loaded.depth_range, loaded.net) == (
            head.reads,
            head.depth_range,
            head.net,
        )
    config = (tmp_path / 'segmentation' / 'config.json').read_text()
    assert 'reads' not in config and 'depth_range' not in config
    np.testing.assert_array_equal(
        loaded.depth(features), heads['depth'].replace(depth_range=(1.0, 80.0)).depth(features)
    )
