"""The streaming confusion matrix against scikit-learn's."""

import jax
import numpy as np
import pytest
import sklearn.metrics

from re2pix_jax import cityscapes
from re2pix_jax.evaluation.evaluators.segmentation import Confusion, Segmentation


def batch(seed, shape=(2, 9, 11), classes=19, ignored=0.1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < ignored] = cityscapes.IGNORE
    predictions = np.where(
        rng.random(shape) < 0.5, labels % classes, rng.integers(0, classes, shape)
    ).astype(np.uint8)
    return labels, predictions


def test_counts_match_scikit_learn_over_several_batches():
    batches = [batch(seed, shape) for seed, shape in enumerate([(2, 9, 11), (2, 9, 11), (1, 5, 7)])]
    confusion = Confusion.empty()
    for labels, predictions in batches:
        confusion = confusion.update(labels, predictions)
    labels, predictions = (np.concatenate([pair[k].ravel() for pair in batches]) for k in range(2))
    known = labels != cityscapes.IGNORE
    expected = sklearn.metrics.confusion_matrix(labels[known], predictions[known], labels=range(19))
    np.testing.assert_array_equal(confusion.counts(), expected)
    scores = confusion.compute()
    iou = sklearn.metrics.jaccard_score(
        labels[known], predictions[known], labels=range(19), average=None
    )
    np.testing.assert_allclose(scores.iou, iou, atol=1e-12)
    assert scores.miou == pytest.approx(iou.mean())
    assert scores.moving_miou == pytest.approx(iou[11:19].mean())
    assert scores.accuracy == pytest.approx((labels[known] == predictions[known]).mean())


def test_merged_shares_equal_the_whole():
    first, second = batch(0), batch(1)
    whole = Confusion.empty().update(*first).update(*second)
    merged = Confusion.empty().update(*first).merge(Confusion.empty().update(*second))
    np.testing.assert_array_equal(whole.counts(), merged.counts())


def test_a_class_counts_when_it_has_labels_and_not_when_it_is_only_predicted():
    labels = np.array([0, 0, 0, 0, 13, 13], np.uint8)
    predictions = np.array([0, 0, 0, 7, 13, 0], np.uint8)
    scores = Confusion.empty().update(labels, predictions).compute()
    assert scores.iou[0] == pytest.approx(3 / 5) and scores.iou[13] == pytest.approx(1 / 2)
    assert np.isnan(scores.iou[7])
    assert scores.miou == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert scores.moving_miou == pytest.approx(1 / 2)


def test_without_moving_labels_the_moving_score_is_absent():
    confusion = Confusion.empty().update(np.zeros(4, np.uint8), np.zeros(4, np.uint8))
    scores = confusion.compute()
    assert np.isnan(scores.moving_miou)
    assert (scores.miou, scores.accuracy, scores.iou[0]) == (1, 1, 1)
    assert np.isnan(scores.iou[1:]).all()
    reported = Segmentation('labels', {'type': 'segmentation'}).scores(confusion)
    assert reported == {'miou': 1.0, 'moving_miou': None}


def test_all_ignored_adds_nothing():
    confusion = Confusion.empty().update(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8))
    assert confusion.counts().sum() == 0
    assert np.isnan(confusion.compute().miou) and np.isnan(confusion.compute().accuracy)


def test_counts_go_beyond_32_bits():
    confusion = Confusion.empty(2)
    confusion = confusion.replace(low=confusion.low.at[0, 1].set(2**32 - 3))
    confusion = confusion.update(np.zeros(10, np.uint8), np.ones(10, np.uint8))
    confusion = confusion.merge(confusion)
    assert confusion.counts()[0, 1] == 2 * (2**32 - 3 + 10)


def test_vmap_keeps_a_matrix_a_step():
    labels, predictions = batch(3, (2, 3, 8, 8))
    stacked = jax.tree.map(lambda x: np.stack([x] * 3), Confusion.empty())
    found = jax.vmap(Confusion.update, in_axes=(0, 1, 1))(stacked, labels, predictions)
    for step in range(3):
        expected = Confusion.empty().update(labels[:, step], predictions[:, step]).counts()
        np.testing.assert_array_equal(
            jax.tree.map(lambda x, k=step: x[k], found).counts(), expected
        )


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match='one shape'):
        Confusion.empty().update(np.zeros((2, 3), np.uint8), np.zeros((2, 4), np.uint8))
