"""Surface normals: from depth, and the angle between two.

Axes are those of the camera: x right, y down, z ahead; normals look towards the camera. [O]
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def angle(one: Float[Array, '... 3'], other: Float[Array, '... 3']) -> Float[Array, '...']:
    """Angle between vectors [..., 3] of any length -> float32 [...], degrees; 90 where one of them
    is zero.

    From sine and cosine together: the arc cosine alone is 0.02 degrees off near 0 in float32.
    """
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    sine, cosine = jnp.linalg.norm(jnp.cross(one, other), axis=-1), (one * other).sum(-1)
    nothing = ~(one != 0).any(-1) | ~(other != 0).any(-1)
    return jnp.where(nothing, 90.0, jnp.rad2deg(jnp.arctan2(sine, cosine)))


@functools.partial(jax.jit, static_argnames='field_of_view')
def from_depth(
    depth: Float[Array, '*batch H W'], field_of_view: float
) -> Float[Array, '*batch H W 3']:
    """Normals of the surfaces that depth shows, for a pinhole camera that looks through the middle
    of the frame. [O]

    Inverse depth is linear in the pixel's coordinates on a plane, so its slopes give a plane's
    normal exactly. Of the two neighbours along an axis that with the smaller step is taken: the
    other one may lie on another surface.

    Args:
        depth: [..., H, W] along the optical axis, 0 = unknown.
        field_of_view: horizontal, degrees; pixels are square.

    Returns:
        float32 [..., H, W, 3] of length 1; zero where depth is unknown, or unknown at both
        neighbours along an axis.
    """
    height, width = depth.shape[-2:]
    focal = 0.5 * width / math.tan(math.radians(field_of_view) / 2)
    known = depth > 0
    inverse = 1 / jnp.where(known, depth.astype(jnp.float32), 1)
    x = (jnp.arange(width) + 0.5 - width / 2) / focal
    y = (jnp.arange(height)[:, None] + 0.5 - height / 2) / focal
    across, down = (focal * _smaller_step(inverse, known, axis) for axis in (-1, -2))
    known &= jnp.isfinite(across) & jnp.isfinite(down)
    normal = -jnp.stack([across, down, inverse - across * x - down * y], axis=-1)
    normal = jnp.where(known[..., None], normal, 0)
    return normal / jnp.maximum(jnp.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)


def _smaller_step(values, known, axis):
    """The smaller of the steps to the next and from the previous value along an axis; infinite
    where both are unknown.
    """
    both = jax.lax.slice_in_dim(known, 1, None, axis=axis) & jax.lax.slice_in_dim(
        known, 0, -1, axis=axis
    )
    steps = jnp.where(both, jnp.diff(values, axis=axis), jnp.inf)
    end = jnp.full_like(jax.lax.slice_in_dim(values, 0, 1, axis=axis), jnp.inf)
    forward, backward = jnp.concatenate([steps, end], axis), jnp.concatenate([end, steps], axis)
    return jnp.where(jnp.abs(forward) < jnp.abs(backward), forward, backward)
