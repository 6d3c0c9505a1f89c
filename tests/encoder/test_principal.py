"""The streaming fit against a direct one, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.encoder import principal


@pytest.fixture(scope='module')
def features():
    random = np.random.default_rng(0)
    mixed = random.normal(size=(3000, 6)) @ random.normal(size=(6, 10)) + 0.1 * random.normal(
        size=(3000, 10)
    )
    return (mixed + 50.0).astype(
        np.float32
    )  # far from zero: raw float32 second moments would cancel


def test_fit_equals_a_direct_decomposition(features):
    part = principal.fit(
        principal.Moments().update(jnp.asarray(features.reshape(3, 10, 10, 10, 10))), 4
    )
    exact = features.astype(np.float64)
    standard = (exact - exact.mean(0)) / exact.std(0)
    _, singular, directions = np.linalg.svd(standard, full_matrices=False)
    np.testing.assert_allclose(part.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(part.std, exact.std(0), rtol=1e-5)
    np.testing.assert_allclose(part.variance, (singular**2 / (singular**2).sum())[:4], rtol=1e-5)
    np.testing.assert_allclose(
        np.abs(np.sum(part.components * directions[:4], axis=1)), 1.0, atol=1e-4
    )
    largest = np.abs(part.components).argmax(axis=1)
    assert (np.asarray(part.components)[np.arange(4), largest] > 0).all()


def test_moments_merge_to_the_same(features):
    whole = principal.Moments()
    for start in range(0, 3000, 700):
        whole.update(jnp.asarray(features[start : start + 700]))
    halves = principal.Moments().update(jnp.asarray(features[2000:]))
    halves.merge(principal.Moments().update(jnp.asarray(features[:2000]))).merge(
        principal.Moments()
    )
    assert halves.count == whole.count == 3000
    one, other = principal.fit(whole, 5), principal.fit(principal.Moments().merge(halves), 5)
    for name in ('mean', 'std', 'components', 'variance'):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def test_many_batches_lose_no_more_than_one(features):
    """A thousand times the same batch: float32 sums alone would be off by 1e-4 and more."""
    one = principal.Moments().update(jnp.asarray(features))
    many = principal.Moments()
    for _ in range(1000):
        many.update(jnp.asarray(features))
    for once, often in zip(one.sums, many.sums):
        np.testing.assert_allclose(often / 1000, once, rtol=1e-7, atol=1e-9 * np.abs(once).max())


def test_a_state_is_exact(features):
    moments = principal.Moments().update(jnp.asarray(features[:1000]))
    again = principal.Moments.from_state(moments.state())
    for part in (moments, again):
        part.update(jnp.asarray(features[1000:]))
    assert again.count == moments.count == 3000
    for ours, theirs in zip(again.sums, moments.sums):
        np.testing.assert_array_equal(ours, theirs)


def test_all_components_reconstruct_and_fewer_lose_little(features):
    moments = principal.Moments().update(jnp.asarray(features))
    full, six = principal.fit(moments, 10), principal.fit(moments, 6)
    assert six.num_components == 6
    x = jnp.asarray(features[:12].reshape(1, 3, 2, 2, 10))
    assert six.project(x).shape == (1, 3, 2, 2, 6)
    np.testing.assert_allclose(full.reconstruct(full.project(x)), x, atol=1e-3)
    error = float(jnp.abs(six.reconstruct(six.project(x)) - x).max())
    assert 1e-2 < error < 1.0


def test_a_constant_channel_is_harmless(features):
    constant = np.concatenate([features, np.full((3000, 1), 3.0, np.float32)], axis=1)
    part = principal.fit(principal.Moments().update(jnp.asarray(constant)), 3)
    assert float(part.std[-1]) == 1.0
    assert np.isfinite(part.project(jnp.asarray(constant))).all()


def test_what_it_refuses(features):
    with pytest.raises(ValueError, match='need more than 8 feature tokens and 5 were given'):
        principal.fit(principal.Moments().update(jnp.asarray(features[:5])), 8)
    with pytest.raises(ValueError, match='features of 10 channels have 1 to 10'):
        principal.fit(principal.Moments().update(jnp.asarray(features)), 11)
    with pytest.raises(ValueError, match='NaN or infinite'):
        principal.fit(principal.Moments().update(jnp.asarray(features).at[3, 3].set(jnp.nan)), 4)
    with pytest.raises(ValueError, match='9 channels and those before them 10'):
        principal.Moments().update(jnp.asarray(features)).update(jnp.asarray(features[:, :9]))
