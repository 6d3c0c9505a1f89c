"""Motion energy against plain numpy, and what freezing and jitter must do to it."""

import types

import numpy as np
import pytest

from re2pix_jax.evaluation.evaluators.motion import Changes, Motion, energy
from re2pix_jax.evaluation.views import View


def view(frames):
    return View(frames=lambda: frames)


def measured(truth, found, known):
    evaluator = Motion('motion', {'type': 'motion'})
    views = {'truth': view(truth)}
    state = evaluator.measure((), view(found), views, {'known': np.asarray(known)})
    return evaluator.report({'re2pix': state})['re2pix']


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, 256, (3, 4, 6, 9, 3), dtype=np.uint8)


def test_energy_by_hand(truth):
    exact = truth.astype(float)
    expected = (np.diff(exact, axis=1) ** 2).mean((2, 3, 4))
    np.testing.assert_allclose(energy(truth[:, :-1], truth[:, 1:]), expected, rtol=1e-5)


def test_shares_of_the_true_motion(truth):
    overall, steps = measured(truth, truth, [True] * 3)
    assert overall['motion'] == pytest.approx(1)
    assert steps[0] == {'motion': None}  # the first future frame changes from none
    assert [step['motion'] for step in steps[1:]] == pytest.approx([1, 1, 1])
    assert measured(truth, truth[:, :1], [True] * 3)[0]['motion'] == 0  # one frame for all of them
    halved = 64 + truth // 2
    assert measured(truth, halved, [True] * 3)[0]['motion'] == pytest.approx(0.25, rel=0.05)
    stopped = truth.copy()
    stopped[:, 2:] = truth[:, 1:2]
    found = measured(truth, stopped, [True] * 3)[1]
    assert [step['motion'] for step in found[1:]] == pytest.approx([1, 0, 0])


def test_unknown_clips_count_for_nothing(truth):
    found = truth.copy()
    found[2] = 0
    overall, _ = measured(truth, found, [True, True, False])
    assert overall['motion'] == pytest.approx(1)
    assert Changes.empty().compute()['motion'] != Changes.empty().compute()['motion']  # NaN


def test_a_single_future_frame_is_left_out():
    evaluator = Motion('motion', {'type': 'motion'})
    clips = types.SimpleNamespace(fields=frozenset({'frames'}), horizon=1, source='world')
    evaluator.check(None, clips)
    assert evaluator.left_out == 'motion / truth: a single future frame does not move'
