"""The clips that are predicted, and what is said of a prediction."""

import types

import numpy as np
import pytest

from re2pix_jax import bundles, world
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import prediction
from re2pix_jax.evaluation.held_out import stride_of
from tests.conftest import SIZE


def test_world_clips_step_at_the_model_rate(micro_bundles):
    model = bundles.load(micro_bundles / 're2pix')
    clip = prediction.read_world(model, 'validation:2', horizon=1, start=4 / 17)
    expected = world.render('validation', 2, [4, 7, 10, 13, 16], SIZE)
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.labels, expected.labels)
    with pytest.raises(UserError, match='start=-1: must not be negative'):
        prediction.read_world(model, 'validation:2', horizon=1, start=-1)


def test_a_rate_that_no_stride_makes_is_refused():
    with pytest.raises(
        UserError, match='10 frames per second, a frame rate that no whole stride of 17'
    ):
        stride_of(types.SimpleNamespace(fps=10))
    assert stride_of(types.SimpleNamespace(fps=5.67)) == 3


def test_where_copying_the_last_frame_was_better_it_is_said():
    rows = lambda *pairs: [{'re2pix': {'psnr': a}, 'copy_last': {'psnr': b}} for a, b in pairs]
    assert prediction._copying(rows((20, 19), (18, 17)) + [{}]) == []
    (line,) = prediction._copying(rows((20, 19), (15, 18)))
    assert line == (
        'Copying the last frame was better in PSNR at 1 of 2 steps: over all 18.50 dB, the '
        'prediction 17.50 dB.'
    )
