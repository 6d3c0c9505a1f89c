import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.nn import rotary


def scores(query, key, code):
    """Dot products of one query and one key vector put at every pair of positions: [N, N]."""
    count = code[0].shape[0]
    query, key = (
        rotary.rotate(jnp.broadcast_to(x, (count, 1, x.size)), code)[:, 0] for x in (query, key)
    )
    return np.asarray(query @ key.T)


def vectors(dim):
    return jax.random.normal(jax.random.key(0), (2, dim))


def test_time_scores_depend_on_the_difference_of_positions():
    result = scores(*vectors(12), rotary.time_code(0, 9, 12))
    np.testing.assert_allclose(result[1:, 1:], result[:-1, :-1], atol=1e-5)
    assert np.ptp(result[0]) > 0.1


def test_a_later_start_is_a_part_of_the_longer_code():
    for part, whole in zip(rotary.time_code(4, 3, 8), rotary.time_code(0, 7, 8)):
        np.testing.assert_array_equal(part, whole[4:])


def test_space_scores_depend_on_the_shift_in_rows_and_in_columns():
    result = scores(*vectors(16), rotary.space_code(4, 5, 16)).reshape(4, 5, 4, 5)
    np.testing.assert_allclose(result[1:, :, 1:], result[:-1, :, :-1], atol=1e-5)
    np.testing.assert_allclose(result[:, 1:, :, 1:], result[:, :-1, :, :-1], atol=1e-5)
    assert np.ptp(result[0, 0, :, 0]) > 0.1 and np.ptp(result[0, 0, 0]) > 0.1


def test_rotation_keeps_lengths_and_position_zero():
    x = jax.random.normal(jax.random.key(1), (2, 6, 3, 8))
    turned = rotary.rotate(x, rotary.time_code(0, 6, 8))
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    assert float(jnp.abs(turned[:, 1:] - x[:, 1:]).min(axis=(0, 1, 2)).max()) > 0
