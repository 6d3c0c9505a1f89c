"""Dropout: how much is dropped, as flax drops it, and by clip where there is very much."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.nn import dropout


@pytest.mark.parametrize('counted', [dropout.COUNTED, 1000])
def test_a_share_is_dropped_and_the_mean_stays(counted, monkeypatch):
    monkeypatch.setattr(dropout, 'COUNTED', counted)
    x = jnp.ones((4, 100, 50))
    found = np.asarray(dropout.drop(x, 0.1, jax.random.key(0)))
    assert set(np.unique(found)) == {np.float32(0), np.float32(1 / 0.9)}
    assert (found == 0).mean() == pytest.approx(0.1, abs=0.01)
    assert not (found[0] == found[1]).all()


def test_it_drops_what_flax_drops():
    x = jax.random.normal(jax.random.key(1), (2, 30, 20))
    key = {'dropout': jax.random.key(2)}
    ours = dropout.Dropout(0.3).apply({}, x, False, rngs=key)
    assert (ours == nn.Dropout(0.3).apply({}, x, False, rngs=key)).all()
    assert (dropout.Dropout(0.3).apply({}, x, True) == x).all()


@pytest.mark.parametrize('rate', [-0.1, 1.0, 1.5, float('nan')])
@pytest.mark.parametrize('deterministic', [True, False])
def test_a_rate_that_drops_all_or_less_than_nothing_is_refused(rate, deterministic):
    key = {'dropout': jax.random.key(2)}
    with pytest.raises(ValueError, match=r'dropout is .*; it must lie in \[0, 1\)'):
        dropout.Dropout(rate).apply({}, jnp.ones((2, 3)), deterministic, rngs=key)
    with pytest.raises(ValueError, match='dropout is'):
        dropout.drop(jnp.ones((2, 3)), rate, key['dropout'])


def test_each_clip_of_very_many_places_is_drawn_by_itself(monkeypatch):
    monkeypatch.setattr(dropout, 'COUNTED', 1000)
    key, x = jax.random.key(3), jnp.ones((4, 60, 50))
    keys = jax.random.split(key, 4)
    alone = [jax.random.bernoulli(one, 0.9, (60, 50)) for one in keys]
    assert ((dropout.drop(x, 0.1, key) > 0) == jnp.stack(alone)).all()
