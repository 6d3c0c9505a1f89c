"""Depth as ordered classes, of which 0 is unknown, and back.

Published depth heads and their labels know 256 classes, which are compared as they are. [R] Metres
need a mapping; ours is class k = 1 .. K-1 for the k-th of K - 1 equal shares of the logarithm
between a nearest and a farthest depth [O]: the error of a class is then the same share of the depth
everywhere, as AbsRel and δ count it (1 % for 255 classes from 1 to 200 m).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real


def to_depth(
    classes: Int[Array | np.ndarray, '*shape'], count: int, depth_range: tuple[float, float] | None
) -> Float[Array, '*shape']:
    """Classes, integers of any shape -> float32 depths: the middle of the class, 0 for class 0.

    Args:
        count: how many classes there are, K.
        depth_range: (nearest, farthest) in metres, or None where the class itself is the depth.
    """
    if depth_range is None:
        return classes.astype(jnp.float32)
    near, far = depth_range
    place = (classes.astype(jnp.float32) - 0.5) / (count - 1)
    return jnp.where(classes > 0, near * jnp.exp(place * math.log(far / near)), 0.0)


def to_classes(
    depth: Real[Array | np.ndarray, '*shape'], count: int, depth_range: tuple[float, float] | None
) -> Int[Array, '*shape']:
    """Depths of any shape -> int32 classes; what is nearer or farther than `depth_range` is in the
    first or last class.

    Args: as for `to_depth`; depths of 0 and below are unknown, class 0.
    """
    known = depth > 0
    if depth_range is None:
        classes = jnp.round(depth)
    else:
        near, far = depth_range
        place = jnp.log(jnp.where(known, depth, near) / near) / math.log(far / near)
        classes = 1 + jnp.floor(place * (count - 1))
    return jnp.where(known, jnp.clip(classes, 1, count - 1), 0).astype(jnp.int32)
