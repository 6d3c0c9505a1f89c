"""The linear probe finds what is linearly there, at the resolution that each read-out can reach."""

import jax
import numpy as np
import pytest

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.evaluation.evaluators import probe
from re2pix_jax.evaluation.evaluators.segmentation import Confusion


def coarse(count=24, seed=0):
    """Labels constant over 4x4 patches, features that hold them (scaled and shifted) among
    noise.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (count, 4, 6))
    features = np.concatenate(
        [7 + 100 * np.eye(3)[labels], rng.normal(size=(count, 4, 6, 5))], axis=-1
    )
    return features.astype(np.float32), labels.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def fine(count=24, seed=0):
    """In each 4x4 patch a vertical edge between two classes, on the left or on the right, as one
    feature says.
    """
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, (count, 4, 6))
    columns = np.arange(4)[None, None, None, None, :]
    labels = (columns >= np.where(side, 1, 3)[:, :, None, :, None]).repeat(4, 2)
    return side[..., None].astype(np.float32), labels.reshape(count, 16, 24).astype(np.uint8)


def accuracy(fitted, features, labels):
    return (
        Confusion.empty(fitted.classes).update(labels, fitted.labels(features)).compute().accuracy
    )


@pytest.mark.parametrize('kind', probe.KINDS)
def test_linearly_present_classes_are_found_in_new_frames(kind):
    fitted = probe.fit(*coarse(), kind=kind, classes=3, steps=150, learning_rate=0.03)
    features, labels = coarse(seed=1)
    assert accuracy(fitted, features, labels) > (0.99 if kind == 'subpixel' else 0.85)
    centres = (slice(None), slice(1, None, 4), slice(1, None, 4))
    assert (np.asarray(fitted.labels(features))[centres] == labels[centres]).mean() > 0.99


def test_only_subpixels_tell_where_an_edge_is_inside_a_patch():
    found = {
        kind: accuracy(
            probe.fit(*fine(), kind=kind, classes=2, steps=100, learning_rate=0.05), *fine(seed=1)
        )
        for kind in probe.KINDS
    }
    assert found['subpixel'] > 0.99
    assert found['bilinear'] < 0.9


def test_the_bilinear_probe_is_one_linear_map_and_a_resize():
    features, labels = coarse(4)
    fitted = probe.fit(features, labels, classes=3, steps=5)
    p = fitted.params
    logits = (features - p['mean']) / p['std'] @ p['kernel'] + p['bias']
    expected = jax.image.resize(logits, (4, 16, 24, 3), 'bilinear')
    np.testing.assert_allclose(fitted.logits(features[:, None])[:, 0], expected, atol=1e-5)


def test_the_seed_decides():
    kernels = [
        probe.fit(*coarse(), classes=3, steps=10, seed=seed).params['kernel'] for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-4


def test_ignored_pixels_do_not_teach():
    features, labels = coarse()
    seen = np.where(np.random.default_rng(0).random(labels.shape) < 0.9, IGNORE, labels).astype(
        np.uint8
    )
    fitted = probe.fit(features, seen, classes=3, steps=150, learning_rate=0.03)
    assert accuracy(fitted, features, labels) > 0.85


@pytest.mark.parametrize(
    'change, message',
    [
        ({'kind': 'cubic'}, "kind 'cubic': expected one of bilinear, subpixel"),
        ({'labels': np.zeros((3, 16, 24), np.uint8)}, 'expected features'),
        (
            {'kind': 'subpixel', 'labels': np.zeros((4, 17, 24), np.uint8)},
            'no multiple of the feature grid',
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    features, labels = coarse(4)
    with pytest.raises(ValueError, match=message):
        probe.fit(**{'features': features, 'labels': labels, 'classes': 3, 'steps': 1} | change)
