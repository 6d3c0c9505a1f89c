"""Rotary position codes (RoPE, arXiv 2104.09864): one-dimensional for time, two-dimensional for
space.

A code is a pair of arrays (cosine, sine), each [N, dim / 2]; `rotate` turns the N vectors of a head
by it. Queries and keys rotated this way give dot products that depend on the difference of their
positions alone.
"""

import jax.numpy as jnp
import numpy as np

THETA = 10_000.0


def _angles(positions, pairs, theta=THETA):
    frequencies = theta ** (-np.arange(pairs) / pairs)
    return np.asarray(positions, np.float64)[:, None] * frequencies


def time_code(start, frames, dim):
    """Code of `frames` consecutive frames from number `start` on, for heads of `dim` (even)
    channels.
    """
    angles = _angles(np.arange(start, start + frames), dim // 2)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def space_code(height, width, dim):
    """Code of a height x width grid in row-major order; half of the `dim` (a multiple of 4)
    channels turn with the row, half with the column.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    angles = np.concatenate([_angles(rows, dim // 4), _angles(columns, dim // 4)], axis=-1)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def space_time_code(start, frames, height, width, dim):
    """Code of a clip's tokens in the order (frame, row, column), from frame number `start` on, for
    heads of `dim` channels.

    Of the channels (a multiple of 4) the largest multiple of 4 within two thirds turns with space,
    the rest with time. [O]
    """
    spatial = 2 * dim // 3 // 4 * 4
    times, spaces = time_code(start, frames, dim - spatial), space_code(height, width, spatial)
    return tuple(
        np.concatenate(
            [np.repeat(time, height * width, axis=0), np.tile(space, (frames, 1))], axis=-1
        )
        for time, space in zip(times, spaces)
    )


def centred_space_code(height, width, dim, theta, still=0):
    """Code of a grid whose sides both reach from -1 to 1 whatever its size, as DINOv3 has it.

    Args:
        height, width: of the grid; its patches come in row-major order, their centres lie at (2 i +
            1) / side - 1.
        dim: channels of a head, a multiple of 4: half turn with the row, half with the column.
        theta: how far the frequencies reach: from one turn per unit down to almost 1 / theta.
        still: number of tokens in front of the patches that do not turn.

    Returns:
        (cosine, sine), float32 [still + height * width, dim / 2].
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    centres = [
        2 * np.pi * ((2 * place + 1) / side - 1)
        for place, side in ((rows, height), (columns, width))
    ]
    angles = np.concatenate([_angles(centre, dim // 4, theta) for centre in centres], axis=-1)
    angles = np.concatenate([np.zeros((still, dim // 2)), angles])
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x, code):
    """Turn x [..., N, heads, dim] by `code`: channel i and channel i + dim / 2 form the plane that
    angle i turns.
    """
    cosine, sine = (part[:, None, :].astype(x.dtype) for part in code)
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
