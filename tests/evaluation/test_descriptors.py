"""Descriptors of frames and videos: what they are, by hand, and that the faults they are for
count.
"""

import numpy as np
import pytest

from re2pix_jax.evaluation.evaluators import descriptors
from re2pix_jax.evaluation.evaluators.frechet import Moments, distance


@pytest.fixture(scope='module')
def videos():
    """Components [200, 7, 4, 6, 12] that wander smoothly: context frame and six others."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(200, 7, 4, 6, 12)).cumsum(1) * 0.2
    return (rng.normal(size=(200, 1, 4, 6, 12)) + steps).astype(np.float32)


def test_by_hand(videos):
    frames = np.asarray(descriptors.of_frames(videos[:3]))
    np.testing.assert_allclose(
        frames,
        np.concatenate([videos[:3].mean((2, 3)), videos[:3].std((2, 3))], -1),
        rtol=2e-5,
        atol=1e-6,
    )
    found = np.asarray(descriptors.of_videos(videos[:3]))
    assert found.shape == (3, 2, 128)  # frames 1-4 and 3-6
    part, change = videos[:3, 1:, ..., :8], np.abs(np.diff(videos[:3, ..., :8], axis=1))
    numbers = np.concatenate(
        [
            half.mean((2, 3))
            for kind in (part, change)
            for half in (kind[..., :3, :], kind[..., 3:, :])
        ],
        -1,
    )
    for window, start in enumerate((0, 2)):
        np.testing.assert_allclose(
            found[:, window], numbers[:, start : start + 4].reshape(3, -1), rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ('time', 'width', 'shape'),
    [(1, 6, (1, 32)), (4, 6, (1, 128)), (9, 6, (3, 128)), (4, 1, (1, 64))],
)
def test_windows_follow_each_other(time, width, shape):
    assert descriptors.of_videos(np.zeros((2, 1 + time, 4, width, 12), np.float32)).shape == (
        2,
        *shape,
    )


def test_jitter_drift_and_standstill_count(videos):
    """Each fault leaves what single frames say nearly as it was, and is found by the video
    measure.
    """
    rng = np.random.default_rng(1)
    late = np.arange(7)[None, :, None, None, None]
    half, other = videos[:100], videos[100:]
    faults = {
        'jitter': other + 0.5 * rng.choice([-1, 1], (100, 7, 4, 6, 1)) * (late > 0),
        'standstill': np.repeat(other[:, :1], 7, axis=1),
        'drift': other + 0.3 * late,
    }
    measured = lambda values: distance(
        *(
            Moments().update(np.asarray(descriptors.of_videos(part))).gaussian()
            for part in (half, values)
        )
    )
    unchanged = measured(other)
    for name, values in faults.items():
        assert measured(values.astype(np.float32)) > 2 * unchanged, name
