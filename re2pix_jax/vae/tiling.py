"""Networks over large images, tile by tile: memory grows with the tile, and one compiled program
serves every tile.

Tiles overlap and are blended linearly, with a quarter of a tile shared by neighbours, as diffusers'
tiled VAE does. Unlike there, all tiles are of one size, spread evenly: no narrow rest at the right
and lower edge, where a group normalisation would see almost nothing. Where an image is tiled the
same way both agree, but for the corners that four tiles share: there the weights here are the
products of the ramps along both sides.
"""

import jax
import jax.numpy as jnp
import numpy as np

SHARED = 4  # neighbours share a tile's side divided by this


def starts_of(length: int, tile: int) -> list[int]:
    """Where tiles of one size start so that they cover `length` positions, evenly, and neighbours
    share tile // SHARED or more.
    """
    if length <= tile:
        return [0]
    shared = tile // SHARED
    gaps = -(-(length - tile) // (tile - shared))
    return [index * (length - tile) // gaps for index in range(gaps + 1)]


def weights_of(starts: list[int], size: int) -> np.ndarray:
    """float32 [tiles, size]: what each position of each tile counts; over a tile's overlap with the
    one before it rises from 0.

    At every position of the image the weights of the tiles that cover it sum to 1.
    """
    weights, covered = np.zeros((len(starts), starts[-1] + size)), 0
    for index, start in enumerate(starts):
        shared, rising = covered - start, np.ones(size)
        rising[:shared] = np.arange(shared) / shared
        weights[:, start : start + size] *= 1.0 - rising
        weights[index, start : start + size] = rising
        covered = start + size
    return np.stack([row[start : start + size] for row, start in zip(weights, starts)]).astype(
        np.float32
    )


def tiled(function, inputs, grid: tuple[int, int], tile: int):
    """`function` of an image, computed on overlapping tiles one after the other and blended.

    Args:
        function: [B, a h, a w, C] → [B, b h, b w, D] for any h, w; a and b are whole numbers.
        inputs: [B, a H, a W, C].
        grid: (H, W), in positions of which tiles hold a whole number.
        tile: positions a side of a tile; a shorter side of the grid is not cut.

    Returns:
        float32 [B, b H, b W, D]; exactly `function(inputs)` where one tile holds the whole grid.
    """
    if max(grid) <= tile:
        return function(inputs)
    batch, channels = inputs.shape[0], inputs.shape[-1]
    starts = [starts_of(length, tile) for length in grid]
    sizes = [min(length, tile) for length in grid]
    pixels = inputs.shape[1] // grid[0]
    piece_shape = (batch, pixels * sizes[0], pixels * sizes[1], channels)
    result = jax.eval_shape(function, jax.ShapeDtypeStruct(piece_shape, inputs.dtype))
    scale = result.shape[1] // sizes[0]
    rows, columns = [
        weights_of([scale * start for start in axis], scale * size)
        for axis, size in zip(starts, sizes)
    ]

    def add(canvas, index):
        row, column = index // len(starts[1]), index % len(starts[1])
        top, left = jnp.asarray(starts[0])[row], jnp.asarray(starts[1])[column]
        piece = jax.lax.dynamic_slice(inputs, (0, pixels * top, pixels * left, 0), piece_shape)
        weight = jnp.asarray(rows)[row][:, None, None] * jnp.asarray(columns)[column][:, None]
        corner = (0, scale * top, scale * left, 0)
        below = jax.lax.dynamic_slice(canvas, corner, result.shape)
        return jax.lax.dynamic_update_slice(canvas, below + weight * function(piece), corner), None

    canvas = jnp.zeros((batch, scale * grid[0], scale * grid[1], result.shape[-1]), jnp.float32)
    return jax.lax.scan(add, canvas, jnp.arange(len(starts[0]) * len(starts[1])))[0]
