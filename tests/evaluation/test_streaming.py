"""What all three accumulators owe: the same numbers however a set is batched, padded, and split
over devices.
"""

import numpy as np
import pytest
import sklearn.metrics

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.normals import NormalErrors
from re2pix_jax.evaluation.evaluators.segmentation import Confusion
from tests.running import on_eight_devices


def labels(seed=0, clips=5):
    """Labels and predictions of clips [5, 2, 8, 12]: ignored pixels, classes without labels,
    classes that are never predicted.
    """
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 5, 11, 13, 18], (clips, 2, 8, 12)).astype(
        np.uint8
    )  # 13 of 19 never occur
    prediction = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.choice([0, 1, 2, 11, 13], truth.shape)
    ).astype(np.uint8)
    prediction[prediction == 5] = (
        1  # 5 and 18 occur and are never predicted, 2 is predicted and does not occur
    )
    prediction[prediction == 18] = 0
    truth[rng.random(truth.shape) < 0.2] = IGNORE
    return truth, prediction


def test_confusion_equals_scikit_learns_with_a_ragged_last_batch_padded_by_ignored_clips():
    truth, prediction = labels()
    confusion = Confusion.empty()
    for start in (
        0,
        2,
        4,
    ):  # the last batch has one clip and is filled up with another, all ignored
        t, p = truth[start : start + 2], prediction[start : start + 2]
        if len(t) < 2:
            t, p = np.concatenate([t, np.full_like(t, IGNORE)]), np.concatenate([p, p])
        confusion = confusion.update(t, p)
    known = truth != IGNORE
    expected = sklearn.metrics.confusion_matrix(truth[known], prediction[known], labels=range(19))
    np.testing.assert_array_equal(confusion.counts(), expected)
    present = np.unique(truth[known])
    iou = sklearn.metrics.jaccard_score(
        truth[known], prediction[known], labels=present, average=None, zero_division=0
    )
    scores = confusion.compute()
    np.testing.assert_allclose(scores.iou[present], iou, atol=1e-12)
    assert (
        scores.iou[5] == scores.iou[18] == 0
        and np.isnan(scores.iou[2])
        and np.isnan(scores.iou).sum() == 13
    )
    assert scores.miou == pytest.approx(iou.mean(), abs=1e-12)
    assert scores.moving_miou == pytest.approx(iou[present >= 11].mean(), abs=1e-12)


EIGHT_DEVICES = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.normals import NormalErrors
from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.evaluation.evaluators.segmentation import Confusion
from re2pix_jax.training import mesh as meshes

assert jax.device_count() == 8
mesh = meshes.create(4, 1, 2)
rng = np.random.default_rng(0)
shape = (8, 3, 8, 16)
labels, guesses = rng.integers(0, 19, (2, *shape)).astype(np.uint8)
labels[rng.random(shape) < 0.2] = IGNORE
depth, guessed = rng.uniform(1, 80, (2, *shape)).astype(np.float32)
depth[rng.random(shape) < 0.2] = 0
up, seen = rng.normal(size=(2, *shape, 3)).astype(np.float32)
up[rng.random(shape) < 0.2] = 0
labels[6:], depth[6:], up[6:] = IGNORE, 0, 0  # clips that only fill the batch
for create, truth, prediction in (
    (Confusion.empty, labels, guesses),
    (DepthErrors.empty, depth, guessed),
    (NormalErrors.empty, up, seen),
):
    alone = create().update(truth, prediction).compute()
    alone = alone if isinstance(alone, dict) else alone._asdict()
    for spec in (P(('data', 'tensor')), P(None, None, 'tensor', 'data')):
        split = [jax.device_put(x, NamedSharding(mesh, spec)) for x in (truth, prediction)]
        assert len({str(shard.index) for shard in split[0].addressable_shards}) > 1
        errors = create().update(*split)
        assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(errors)), spec
        found = errors.compute()
        found = found if isinstance(found, dict) else found._asdict()
        for name, value in found.items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-6, err_msg=f'{name} {spec}')
print('as it should be')
"""


def test_arrays_split_over_eight_devices_give_the_same_scores():
    done = on_eight_devices(EIGHT_DEVICES)
    assert done.stdout.endswith('as it should be\n'), done.stderr


@pytest.mark.parametrize(
    'create', [DepthErrors.empty, NormalErrors.empty], ids=['depth', 'normals']
)
def test_the_batch_size_does_not_matter(create):
    rng = np.random.default_rng(1)
    shape = (7, 2, 6, 9, 3) if create == NormalErrors.empty else (7, 2, 6, 9)
    truth, prediction = rng.uniform(1, 80, (2, *shape)).astype(np.float32)
    truth[2] = 0
    scores = []
    for size in (1, 3, 7):
        errors = create()
        for start in range(0, 7, size):
            errors = errors.update(truth[start : start + size], prediction[start : start + size])
        scores.append(list(errors.compute().values()))
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2, rtol=1e-6)
    assert errors.compute()['frames'] == 12
