"""What a network can be given as frames; anything else is said in one line instead of computed
with.
"""

import jax
import jax.numpy as jnp
import numpy as np


def check_frames(frames, most: float, floats: str, unit: bool):
    """Frames [B, T, H, W, 3] as they are, as an array.

    Args:
        frames: uint8 RGB, other whole numbers from 0 to 255, or floats from -`most` to `most`. Of
            what is being traced the values are not known, and not checked.
        floats: what floats mean to the network, for the error.
        unit: whether that can be frames from 0 to 1.

    Raises:
        ValueError: another shape or kind, or values out of range.
    """
    frames = frames if isinstance(frames, jax.Array) else np.asarray(frames)
    whole = jnp.issubdtype(frames.dtype, jnp.integer)
    problem = f'{frames.dtype} {list(frames.shape)}'
    hint = '; one clip is frames[None]' if frames.ndim == 4 and frames.shape[-1] == 3 else ''
    kind = whole or jnp.issubdtype(frames.dtype, jnp.floating)
    good = kind and frames.ndim == 5 and frames.shape[-1] == 3 and 0 not in frames.shape
    if good and frames.dtype != jnp.uint8 and not isinstance(frames, jax.core.Tracer):
        low, high = float(frames.min()), float(frames.max())
        problem += f' from {low:.4g} to {high:.4g}'
        good = 0 <= low <= high <= 255 if whole else -most <= low <= high <= most
        if good and not whole and not unit and 0 <= low < high <= 1:
            good, hint = False, '; give frames from 0 to 1 as uint8, 255 times as much'
        elif not good and not whole and 0 <= low and high <= 255:
            hint = '; give frames from 0 to 255 as uint8'
    if not good:
        raise ValueError(
            f'frames: expected uint8 [batch, time, height, width, 3], or {floats}, got '
            f'{problem}{hint}'
        )
    return frames
