"""Streaming depth errors against plain float64 loops over frames."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.evaluation.evaluators.depth import Depth, DepthErrors
from re2pix_jax.nn import sums


def maps(seed, shape=(3, 17, 23), unknown=0.2, ordinal=False):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 255, shape)
    prediction = truth * rng.lognormal(0.1, 0.4, shape)
    if ordinal:
        truth, prediction = np.rint(truth), np.clip(np.rint(prediction), 1, 255)
    truth[rng.random(shape) < unknown] = 0
    return truth.astype(np.float32), prediction.astype(np.float32)


def expected(truth, prediction):
    """Scores of frames [N, H, W] in float64, a frame at a time; frames without a known pixel are
    left out.
    """
    rows = []
    for t, p in zip(truth.astype(np.float64), prediction.astype(np.float64)):
        t, p = t[t > 0], p[t > 0]
        if not t.size:
            continue
        ratio = np.maximum(t / p, p / t)
        log = np.log(p) - np.log(t)
        rows.append(
            [
                *((ratio < 1.25**k).mean() for k in (1, 2, 3)),
                (abs(t - p) / t).mean(),
                np.sqrt(((t - p) ** 2).mean()),
                abs(np.log10(p) - np.log10(t)).mean(),
                100 * np.sqrt((log**2).mean() - log.mean() ** 2),
            ]
        )
    return np.mean(rows, axis=0)


def found(errors):
    return np.array([errors.compute()[name] for name in DepthErrors.NAMES])


@pytest.mark.parametrize('ordinal', [False, True])
def test_scores_match_float64_loops_over_several_batches(ordinal):
    batches = [
        maps(0, ordinal=ordinal),
        maps(1, ordinal=ordinal),
        maps(2, (1, 17, 23), ordinal=ordinal),
    ]
    errors = DepthErrors.empty()
    for truth, prediction in batches:
        errors = errors.update(truth, prediction)
    truth, prediction = (np.concatenate([pair[k] for pair in batches]) for k in range(2))
    np.testing.assert_allclose(found(errors), expected(truth, prediction), rtol=1e-6)
    scores = errors.compute()
    assert (scores['frames'], scores['pixels']) == (7, (truth > 0).sum())


def test_padded_clips_and_frames_without_truth_change_nothing():
    truth, prediction = maps(3, (2, 3, 9, 11))
    whole = DepthErrors.empty().update(truth, prediction)
    padded = np.concatenate([truth, np.zeros_like(truth)]), np.concatenate([prediction, prediction])
    assert DepthErrors.empty().update(*padded).compute() == whole.compute()
    np.testing.assert_allclose(
        found(whole), expected(truth.reshape(6, 9, 11), prediction.reshape(6, 9, 11)), rtol=1e-6
    )


def test_merged_shares_and_single_frames_equal_the_whole():
    truth, prediction = maps(4, (6, 8, 8))
    whole = found(DepthErrors.empty().update(truth, prediction))
    merged = (
        DepthErrors.empty()
        .update(truth[:4], prediction[:4])
        .merge(DepthErrors.empty().update(truth[4:], prediction[4:]))
    )
    single = DepthErrors.empty()
    for k in range(6):
        single = single.update(truth[k], prediction[k])
    np.testing.assert_allclose(found(merged), whole, rtol=1e-7)
    np.testing.assert_allclose(found(single), whole, rtol=1e-7)


def test_a_ratio_of_exactly_the_limit_is_not_below_it():
    truth = np.array([[[4, 16, 64, 4]]], np.uint8)
    prediction = np.array([[[5, 25, 125, 4]]], np.int32)
    scores = DepthErrors.empty().update(truth, prediction).compute()
    assert [scores[f'delta{k}'] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_a_common_factor_is_no_error_of_silog():
    truth, _ = maps(5, unknown=0.0)
    scores = DepthErrors.empty().update(truth, 1000 * truth).compute()
    assert (
        scores['silog'] < 1e-4
        and scores['log10'] == pytest.approx(3, rel=1e-6)
        and scores['abs_rel'] == pytest.approx(999, rel=1e-6)
    )


def test_predictions_of_nothing_are_finite_errors_and_nan_is_not_hidden():
    truth, prediction = maps(6, unknown=0.0)
    prediction[:, 0, 0] = 0
    assert np.isfinite(found(DepthErrors.empty().update(truth, prediction))).all()
    prediction[0, 0, 0] = np.nan
    assert np.isnan(DepthErrors.empty().update(truth, prediction).compute()['abs_rel'])


def test_nothing_known_is_nan_and_none_in_a_report():
    errors = DepthErrors.empty().update(np.zeros((2, 4, 4)), np.ones((2, 4, 4)))
    scores = errors.compute()
    assert (scores.pop('frames'), scores.pop('pixels')) == (0, 0)
    assert scores.keys() == set(DepthErrors.NAMES)
    assert all(math.isnan(value) for value in scores.values())
    assert Depth('depth', {'type': 'depth'}).scores(errors) == dict.fromkeys(DepthErrors.NAMES)


def test_vmap_keeps_errors_a_step():
    truth, prediction = maps(7, (2, 3, 8, 8))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 3), DepthErrors.empty())
    steps = jax.vmap(DepthErrors.update, in_axes=(0, 1, 1))(stacked, truth, prediction)
    for step in range(3):
        alone = DepthErrors.empty().update(truth[:, step], prediction[:, step])
        np.testing.assert_allclose(
            found(jax.tree.map(lambda x, k=step: x[k], steps)), found(alone), rtol=1e-6
        )


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match='one shape'):
        DepthErrors.empty().update(np.ones((2, 3, 4)), np.ones((2, 3, 5)))


def test_pixels_are_counted_beyond_32_bits():
    errors = DepthErrors.empty()
    errors = errors.replace(pixels=errors.pixels.at[0].set(2**32 - 3)).update(
        np.ones((1, 2, 5)), np.ones((1, 2, 5))
    )
    assert errors.merge(errors).compute()['pixels'] == 2 * (2**32 - 3 + 10)


def test_sums_over_many_pixels_and_frames_keep_their_digits():
    """A plain float32 sum is a hundred times less exact, at best."""
    values = np.random.default_rng(0).uniform(0, 1, 1 << 20).astype(np.float32)
    exact = math.fsum(values.tolist())
    high, low = jax.jit(lambda x: sums.total(x, (0,)))(values)
    assert abs(float(high) + float(low) - exact) / exact < 1e-8
    assert abs(float(np.cumsum(values)[-1]) - exact) / exact > 1e-6
    one = DepthErrors.empty().update(np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 3.3))
    many = one
    for _ in range(24):  # 2^24 frames: where adding one to a float32 does nothing
        many = many.merge(many)
    many = many.merge(one)
    assert many.compute()['frames'] == 2**24 + 1
    np.testing.assert_allclose(found(many), found(one), rtol=1e-12)
