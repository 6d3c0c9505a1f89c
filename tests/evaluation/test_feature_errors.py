"""Feature errors against plain numpy, and against the forecaster's own loss."""

import numpy as np
import pytest

from re2pix_jax.evaluation.evaluators import components
from re2pix_jax.forecaster import transformer


def pair(shape=(2, 3, 4, 5, 6)):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=shape).astype(np.float32)
    return truth + rng.normal(0, 0.2, shape).astype(np.float32), truth


def doubles(*arrays):
    """The same numbers in float64, where nothing is rounded that matters at 1e-6."""
    return [array.astype(np.float64) for array in arrays]


def test_smooth_l1_is_the_training_loss_of_each_frame():
    prediction, truth = pair()
    exact, other = doubles(prediction, truth)
    distance = np.abs(exact - other)
    assert 0.2 < (distance < 0.1).mean() < 0.8  # both branches
    expected = np.where(distance < 0.1, 5 * distance**2, distance - 0.05).mean(axis=(2, 3, 4))
    found = components.smooth_l1(prediction, truth)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(
        transformer.smooth_l1(prediction, truth).mean(axis=(2, 3, 4)), expected, rtol=1e-6
    )


def test_smooth_l1_meets_at_beta():
    zero, one = np.zeros((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    assert components.smooth_l1(one * 0.1, zero)[0] == pytest.approx(0.05, abs=1e-6)
    assert components.smooth_l1(one * 3, zero, beta=1.0)[0] == pytest.approx(2.5)


def test_cosine():
    prediction, truth = pair()
    exact, other = doubles(prediction, truth)
    expected = np.zeros((2, 3))
    for place in np.ndindex(2, 3, 4, 5):
        one, two = exact[place], other[place]
        expected[place[:2]] += one @ two / np.sqrt((one @ one) * (two @ two)) / 20
    np.testing.assert_allclose(components.cosine(prediction, truth), expected, rtol=1e-6)
    np.testing.assert_allclose(components.cosine(-3 * truth, truth), -1, rtol=1e-6)
    np.testing.assert_array_equal(components.cosine(0 * truth, truth), 0)
