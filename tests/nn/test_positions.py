"""Interpolation matrices against numbers that PyTorch 2.13 gave, and by their properties."""

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.nn.positions import resize, resize_matrix, resize_table


@pytest.mark.parametrize('method', ['cubic', 'linear'])
@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize(('source', 'target'), [(5, 8), (37, 16), (8, 3), (4, 4)])
def test_rows_sum_to_one_and_mirror(method, antialias, source, target):
    matrix = resize_matrix(source, target, method, antialias)
    assert matrix.shape == (target, source) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)


def test_equal_sizes_change_nothing():
    for method in ('cubic', 'linear'):
        np.testing.assert_allclose(resize_matrix(6, 6, method), np.eye(6), atol=1e-7)
    table = jnp.arange(24.0).reshape(2, 3, 4)
    assert resize_table(table, (2, 3), False, 0.1) is table


def test_aligned_corners_hit_the_ends():
    matrix = resize_matrix(3, 5, 'linear', align_corners=True)
    np.testing.assert_allclose(
        matrix @ np.array([0.0, 1.0, 4.0]), [0.0, 0.5, 1.0, 2.5, 4.0], atol=1e-6
    )


def test_cubic_is_pytorchs():
    """F.interpolate of 5 samples, mode 'bicubic': size 3 with antialias, and scale_factor (3 + 0.1)
    / 5 without.
    """
    antialiased = [
        [0.58461535, 0.44615382, 0.0, -0.03076920, 0.0],
        [-0.03720929, 0.24651162, 0.58139533, 0.24651162, -0.03720929],
        [0.0, -0.03076909, 0.0, 0.44615382, 0.58461523],
    ]
    moved = [
        [0.7141168, 0.334733, -0.04884982, 0.0, 0.0],
        [-0.00448394, 0.06958359, 0.9860224, -0.05112195, 0.0],
        [0.0, 0.0, -0.08733654, 0.55106306, 0.5362736],
    ]
    np.testing.assert_allclose(resize_matrix(5, 3, 'cubic', antialias=True), antialiased, atol=1e-6)
    np.testing.assert_allclose(resize_matrix(5, 3, 'cubic', offset=0.1), moved, atol=1e-6)


def test_antialiasing_averages_where_it_shrinks():
    stripes = np.tile([0.0, 1.0], 16)
    assert np.abs(resize_matrix(32, 4, 'linear', antialias=True) @ stripes - 0.5).max() < 0.05
    assert np.abs(resize_matrix(32, 5, 'cubic') @ stripes - 0.5).max() > 0.2


def test_resize_keeps_leading_axes_and_dtype():
    image = jnp.ones((2, 3, 4, 5, 6), jnp.bfloat16)
    resized = resize(image, (8, 7), method='linear')
    assert resized.shape == (2, 3, 8, 7, 6) and resized.dtype == jnp.bfloat16
