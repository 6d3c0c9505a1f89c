import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.vae.tiling import starts_of, tiled, weights_of


@pytest.mark.parametrize(
    ('length', 'tile', 'starts'),
    [
        (5, 8, [0]),
        (8, 8, [0]),
        (9, 8, [0, 1]),
        (14, 8, [0, 6]),
        (15, 8, [0, 3, 7]),
        (256, 64, [0, 48, 96, 144, 192]),
        (3, 1, [0, 1, 2]),
    ],
)
def test_starts(length, tile, starts):
    assert starts_of(length, tile) == starts


@pytest.mark.parametrize('tile', [1, 2, 3, 4, 7, 8, 16])
def test_tiles_cover_everything_overlap_and_weigh_one(tile):
    for length in range(tile, 5 * tile + 3):
        starts = starts_of(length, tile)
        gaps = np.diff(starts)
        assert starts[-1] + tile == length and (gaps > 0).all() and (gaps <= tile - tile // 4).all()
        weights, total = weights_of(starts, tile), np.zeros(length)
        for start, row in zip(starts, weights):
            total[start : start + tile] += row
        assert weights.shape == (len(starts), tile) and weights.min() >= 0
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_weights_rise_and_fall_linearly():
    np.testing.assert_allclose(
        weights_of([0, 4], 8), [[1, 1, 1, 1, 1, 0.75, 0.5, 0.25], [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]]
    )


@pytest.mark.parametrize('grid', [(7, 13), (4, 13), (13, 2)])
def test_a_pixelwise_function_is_not_changed(grid):
    """In pixels of a third of a position, out ones of half a position."""
    x = np.random.default_rng(0).normal(size=(2, 3 * grid[0], 3 * grid[1], 2)).astype(np.float32)

    def function(images):
        batch, height, width, channels = images.shape
        means = images.reshape(batch, height // 3, 3, width // 3, 3, channels).mean((2, 4))
        return jnp.repeat(jnp.repeat(means, 2, 1), 2, 2).sum(-1, keepdims=True)

    np.testing.assert_allclose(tiled(function, x, grid, 4), function(x), atol=1e-6)


def test_tiles_are_blended_by_their_weights():
    """Each tile gives its own largest value: 1-D, tiles at 0, 6 of a side of 8."""
    x = np.arange(14, dtype=np.float32)[None, None, :, None]
    result = tiled(
        lambda images: jnp.broadcast_to(images.max((1, 2, 3), keepdims=True), images.shape),
        x,
        (1, 14),
        8,
    )
    np.testing.assert_allclose(result.reshape(-1), [7] * 7 + [10] + [13] * 6)
