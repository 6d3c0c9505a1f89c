"""Sharpness against plain numpy and what blurring must do to it."""

import numpy as np
import pytest
import scipy.ndimage

from re2pix_jax.evaluation.evaluators.sharpness import Energies, energy


def test_energy_by_hand():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    exact = frames.astype(float)
    expected = [(np.diff(x, axis=1) ** 2).mean() + (np.diff(x, axis=0) ** 2).mean() for x in exact]
    np.testing.assert_allclose(energy(frames), expected, rtol=1e-5)


def test_blurred_frames_keep_less_and_unknown_ones_count_for_nothing():
    truth = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    blurred = scipy.ndimage.uniform_filter(truth.astype(float), (0, 2, 2, 0)).astype(np.uint8)
    known = np.array([True, True, False])
    same = Energies.empty().update(truth, truth, known).compute()
    assert same['sharpness'] == pytest.approx(1) and same['frames'] == 2
    found = Energies.empty().update(truth, blurred, known).compute()['sharpness']
    expected = float(np.mean(energy(blurred[:2])) / np.mean(energy(truth[:2])))
    assert found == pytest.approx(expected, rel=1e-5) and found < 0.6
