"""The DPT head, by its properties; numbers are in tests/convert/test_published.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.heads import DPTHead, Head
from re2pix_jax.nn.positions import resize

NET = DPTHead(classes=5, features=8, channels=(4, 6, 8, 8), batch_norm=True)


@pytest.fixture(scope='module')
def features():
    return jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 24))


@pytest.fixture(scope='module')
def head(features):
    return Head(jax.jit(NET.init)(jax.random.key(1), features[:, 0]), NET)


def test_logits_are_eight_times_the_grid_and_per_frame(head, features):
    logits = head.logits(features)
    assert logits.shape == (2, 3, 16, 32, 5) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits[:, 1:2], head.logits(features[:, 1:2]), atol=1e-5)


def test_labels_are_the_most_likely_class(head, features):
    np.testing.assert_array_equal(head.labels(features), head.logits(features).argmax(-1))
    labels = head.labels(features, (64, 128))
    assert labels.shape == (2, 3, 64, 128) and labels.dtype == jnp.uint8
    expected = resize(head.logits(features), (64, 128), method='cubic').argmax(-1)
    assert float((labels == expected).mean()) > 0.999  # a tie may fall either way


@pytest.mark.long
def test_training_uses_and_updates_batch_statistics(head, features):
    flat = features[:, 0]
    out, state = NET.apply(
        head.params, flat, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}
    )
    before, after = (
        jax.tree.leaves(head.params['batch_stats']),
        jax.tree.leaves(state['batch_stats']),
    )
    assert (
        len(before) == len(after) == 30
    )  # mean and variance of 7 units' 2 norms and of the output's
    assert all(float(jnp.abs(a - b).max()) > 1e-6 for a, b in zip(before, after))
    assert float(jnp.abs(out - NET.apply(head.params, flat)).max()) > 1e-3


def test_without_batch_norm_only_the_output_has_one(features):
    shapes = jax.eval_shape(NET.clone(batch_norm=False).init, jax.random.key(0), features[:, 0])
    assert list(shapes['batch_stats']) == ['output_bn']


def test_odd_features_are_refused(head):
    with pytest.raises(ValueError, match='features of 23 channels'):
        head.logits(jnp.zeros((1, 1, 2, 4, 23)))
