"""Resizing of position tables and feature maps by small matrices.

A separable interpolation is a matrix per axis. Building that matrix in numpy lets one einsum serve
every convention there is (PyTorch's bicubic with and without antialiasing differ in the kernel's
parameter, not only in its width), and computes the weights in float64. They are float32, or rounded
to what the map to be resized is in.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def _cubic(x, a):
    """Keys' cubic convolution kernel; PyTorch uses a = -0.75, its antialiased version (like PIL) a
    = -0.5.
    """
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _linear(x):
    return np.maximum(0.0, 1.0 - np.abs(x))


@functools.lru_cache(maxsize=256)
def resize_matrix(
    source: int,
    target: int,
    method: str = 'cubic',
    antialias: bool = False,
    offset: float = 0.0,
    align_corners: bool = False,
) -> np.ndarray:
    """The float32 matrix [target, source] that resamples one axis, as
    `torch.nn.functional.interpolate` does.

    Args:
        source, target: number of samples before and after.
        method: 'cubic' or 'linear'.
        antialias: widen the kernel when the axis shrinks; weights that fall outside are left out
            and the rest renormalised. Without it, samples outside repeat the border sample.
        offset: added to `target` when the scale is computed: the scale is source / (target +
            offset). DINOv2 without registers passes (grid + 0.1) / 37 as scale factor, so its
            samples lie at slightly other places.
        align_corners: the first and last samples of both axes coincide (not with `antialias`).
    """
    places = np.arange(target, dtype=np.float64)
    if align_corners:
        centres = places * ((source - 1) / (target - 1) if target > 1 else 0.0)
        scale = 1.0
    else:
        scale = source / (target + offset)
        centres = (places + 0.5) * scale - 0.5
    if antialias:
        stretch = max(scale, 1.0)
        distance = (np.arange(source) - centres[:, None]) / stretch
        weights = _cubic(distance, -0.5) if method == 'cubic' else _linear(distance)
        matrix = weights / weights.sum(axis=1, keepdims=True)
    else:
        matrix = np.zeros((target, source))
        base = np.floor(centres).astype(int)
        for tap in range(-1, 3):
            distance = base + tap - centres
            weights = _cubic(distance, -0.75) if method == 'cubic' else _linear(distance)
            np.add.at(matrix, (np.arange(target), np.clip(base + tap, 0, source - 1)), weights)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resize(
    image: Float[Array, '*batch H W C'], size: tuple[int, int], **convention
) -> Float[Array, '*batch h w C']:
    """Resamples [..., H, W, C] to [..., *size, C] with `resize_matrix`'s keyword arguments; the
    dtype is kept.
    """
    height, width = image.shape[-3:-1]
    if height != size[0]:
        matrix = jnp.asarray(resize_matrix(height, size[0], **convention), image.dtype)
        image = jnp.einsum('oh,...hwc->...owc', matrix, image, precision='highest')
    if width != size[1]:
        matrix = jnp.asarray(resize_matrix(width, size[1], **convention), image.dtype)
        image = jnp.einsum('ow,...hwc->...hoc', matrix, image, precision='highest')
    return image


def resize_table(
    table: Float[Array, 'H W D'], grid: tuple[int, int], antialias: bool, offset: float
) -> Float[Array, 'h w D']:
    """Brings DINOv2's learned position table [H, W, D] to another grid [h, w, D]; unchanged where
    the grids are equal.
    """
    if tuple(table.shape[:2]) == tuple(grid):
        return table
    rows = resize_matrix(table.shape[0], grid[0], 'cubic', antialias, offset)
    columns = resize_matrix(table.shape[1], grid[1], 'cubic', antialias, offset)
    return jnp.einsum('oh,pw,hwd->opd', rows, columns, table, precision='highest')
