"""The Fréchet distance: against closed forms and against pytorch-fid's own numbers, in every way
that a set can be cut.
"""

import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.evaluators.frechet import Gaussian, Moments, distance
from tests.conftest import ROOT

GOLDEN = ROOT.parent / 'shared' / 'golden' / 'metrics' / 'expected.npz'


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 12)) @ rng.normal(size=(12, 12)) + 100.0


@pytest.mark.skipif(not GOLDEN.is_file(), reason="pytorch-fid's numbers are not here")
def test_pytorch_fids_number():
    golden = np.load(GOLDEN)
    one, other = (Moments().update(golden[name]).gaussian() for name in ('frechet_a', 'frechet_b'))
    error = distance(one, other) / float(golden['frechet_distance']) - 1
    print(f'relative error {error:.1e}')
    assert abs(error) < 1e-6
    assert distance(one, one) < 1e-6 and distance(other, other) < 1e-6


def test_known_gaussians():
    """Where covariances commute, the distance between them is that between their roots: here turned
    by one rotation.
    """
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    deviations, means = rng.uniform(0, 3, (2, 6)), rng.normal(size=(2, 6))
    deviations[0, :2] = 0  # of rank 4
    one, other = (
        Gaussian(mean, turn * deviation**2 @ turn.T) for mean, deviation in zip(means, deviations)
    )
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert distance(one, other) == pytest.approx(expected, rel=1e-10)
    assert distance(other, one) == pytest.approx(expected, rel=1e-10)
    point = Gaussian(np.zeros(6), np.zeros((6, 6)))
    assert distance(point, one) == pytest.approx(
        (means[0] ** 2).sum() + (deviations[0] ** 2).sum(), rel=1e-12
    )
    assert distance(Gaussian([0.0], [[4.0]]), Gaussian([3.0], [[25.0]])) == pytest.approx(18)


def test_covariances_that_do_not_commute(samples):
    """Against the eigenvalues of their product."""
    one, other = samples[:50], samples[50:] * np.linspace(0.5, 2, 12)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
    expected = (
        ((one.mean(0) - other.mean(0)) ** 2).sum()
        + np.trace(covariances[0] + covariances[1])
        - 2 * roots
    )
    assert distance(
        Moments().update(one).gaussian(), Moments().update(other).gaussian()
    ) == pytest.approx(expected, rel=1e-9)


def test_a_set_may_be_cut_in_any_way(samples):
    """Batches of any size, shares that merge, leading axes, float32: the mean lies forty deviations
    from zero.
    """
    whole = Moments().update(samples).gaussian()
    np.testing.assert_allclose(
        whole.covariance, np.cov(samples, rowvar=False), rtol=1e-12, atol=1e-12
    )
    for size in (1, 7, 64):
        parts = Moments()
        for start in range(0, len(samples), size):
            parts.update(samples[start : start + size])
        assert parts.count == 90
        np.testing.assert_allclose(
            parts.gaussian().covariance, whole.covariance, rtol=1e-11, atol=1e-11
        )
        np.testing.assert_allclose(parts.gaussian().mean, whole.mean, rtol=1e-14)
    shares = [Moments().update(samples[k::3].reshape(5, 6, 12)) for k in range(3)]
    merged = (
        Moments().merge(shares[2]).merge(Moments()).merge(shares[0]).merge(shares[1]).gaussian()
    )
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-11)
    assert distance(merged, whole) < 1e-9
    assert shares[2].count == 30  # merging changes nothing of what is merged


def test_fewer_samples_than_dimensions():
    """The distance between what there is of the covariances, as accurate as ever; and what to say
    of it.
    """
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    flat, moved = np.zeros((2, 20, 300))
    flat[:, :8] = rng.normal(size=(20, 8)) * 10
    moved[:, :8] = 3 * flat[:, :8]
    moved[:, 200] = 7.0
    one, other = (Moments().update(values @ turn).gaussian() for values in (flat, moved))
    assert one.root.shape == (300, 8) and distance(one, one) < 1e-6
    expected = 4 * np.cov(flat, rowvar=False).trace() + ((flat.mean(0) - moved.mean(0)) ** 2).sum()
    assert distance(one, other) == pytest.approx(expected, rel=1e-10)
    assert (
        '20 samples of 300 dimensions' in one.shortage
        and 'at least 301 samples are needed' in one.shortage
    )
    assert Moments().update(rng.normal(size=(301, 300))).gaussian().shortage is None
    assert Gaussian(np.zeros(3), np.eye(3)).shortage is None


def test_what_has_no_distance_is_refused(samples):
    with pytest.raises(UserError, match='at least 2 samples a set and got 1: evaluate more clips'):
        Moments().update(samples[:1]).gaussian()
    with pytest.raises(UserError, match='at least 2 samples a set and got 0'):
        Moments().update(samples[:0]).gaussian()
    with pytest.raises(UserError, match='hold NaN or infinite values'):
        Moments().update(np.array([[1.0, np.nan]]))
    with pytest.raises(UserError, match='features of 5 dimensions cannot join features of 12'):
        Moments().update(samples).update(samples[:, :5])
    with pytest.raises(UserError, match='between features of 12 and of 5 dimensions'):
        distance(Moments().update(samples).gaussian(), Moments().update(samples[:, :5]).gaussian())
