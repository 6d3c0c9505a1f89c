"""Errors of surface normals, mean and median angle and shares below limits; and normals from depth.

A true normal of (0, 0, 0) is unknown and ignored. Every number is computed over the pixels of a
frame and then averaged over frames; the reference averages over batches, of which each frame is one
here, see `depth`. [R] The median, too, is the mean over frames of each frame's exact (lower) median.

Axes are those of the camera: x right, y down, z ahead; normals look towards the camera. [O] The
errors do not depend on the axes, as long as truth and prediction share them.
"""

import functools
import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans, mean, share

LIMITS = {
    'under_5': 5.0,
    'under_7_5': 7.5,
    'under_11_25': 11.25,
    'under_22_5': 22.5,
    'under_30': 30.0,
}
"""Degrees below which an angle counts. [R]"""


@flax.struct.dataclass
class NormalErrors(FrameMeans):
    """Errors so far.

    `errors = NormalErrors.empty()`, then `errors = errors.update(truth, prediction)` a batch, then
    `errors.compute()`.
    """

    NAMES: ClassVar = ('angle_mean', 'angle_median', *LIMITS)

    @jax.jit
    def update(self, truth, prediction):
        """Adds a batch of frames.

        Args:
            truth: normals [..., H, W, 3] of any length, (0, 0, 0) = unknown; fewer than 2^31
                pixels.
            prediction: likewise, of the same shape; one of length 0 is 90 degrees off. [R]
        """
        if truth.shape != prediction.shape:
            raise ValueError(
                f'truth {truth.shape} and prediction {prediction.shape} must have one shape'
            )
        truth, prediction = (
            values.reshape(-1, *values.shape[-3:]) for values in (truth, prediction)
        )
        known = (truth != 0).any(-1)
        count = known.sum((1, 2))
        degrees = angle(truth, prediction)
        shares = {name: share(degrees < limit, known, count) for name, limit in LIMITS.items()}
        return self.add(
            {
                'angle_mean': mean(degrees, known, count),
                'angle_median': _median(degrees, known, count),
                **shares,
            },
            count,
        )


def angle(one, other):
    """Angle between vectors [..., 3] of any length -> float32 [...], degrees; 90 where one of them
    is zero.

    From sine and cosine together: the arc cosine alone is 0.02 degrees off near 0 in float32.
    """
    one, other = one.astype(jnp.float32), other.astype(jnp.float32)
    sine, cosine = jnp.linalg.norm(jnp.cross(one, other), axis=-1), (one * other).sum(-1)
    nothing = ~(one != 0).any(-1) | ~(other != 0).any(-1)
    return jnp.where(nothing, 90.0, jnp.rad2deg(jnp.arctan2(sine, cosine)))


def _median(degrees, known, count):
    """Lower median of the known angles [N, H, W] of each frame -> [N], exact.

    Floats from 0 on are ordered as their bits are, so that halving the range of bits finds it by
    counting alone: what sorting gives, with no more memory and on split arrays too.
    """
    bits = jax.lax.bitcast_convert_type(degrees, jnp.int32)
    wanted = (count + 1) // 2

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = (known & (bits <= middle[:, None, None])).sum((1, 2)) >= wanted
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    largest = int(np.float32(181).view(np.int32))  # of 31 bits: as many halvings are enough
    bounds = jnp.zeros_like(count), jnp.full_like(count, largest)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halve, bounds)[1], jnp.float32)


@functools.partial(jax.jit, static_argnames='field_of_view')
def from_depth(depth, field_of_view: float):
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


class Normals(Evaluator):
    """Surface normals that a head reads in features, against those of the true depth."""

    COLUMNS = (
        Column('angle_mean', 'normals mean, degrees'),
        Column('angle_median', 'normals median, degrees'),
        *(
            Column(name, f'normals under {limit:g} degrees %', higher=True, scale=100)
            for name, limit in LIMITS.items()
        ),
    )
    METHODS = ('re2pix', 'copy_last', 'vae', 'truth', 'forecast')
    FIELDS = frozenset({'depth'})
    # bundle of a head for normals; horizontal degrees, by which normals follow from depth [O]
    OPTIONS = {'head': '', 'field_of_view': 60.0}

    def open(self):
        if not 0 < self.options['field_of_view'] < 180:
            raise UserError(
                f'config.evals.{self.name}.field_of_view = {self.options["field_of_view"]}: '
                'expected degrees between 0 and 180'
            )
        self.parts = compatibility.open_head(self, 'normals')

    def check(self, part, clips):
        super().check(part, clips)
        compatibility.check_head(self, part, clips)

    def measure(self, parts, view, views, batch):
        truth = from_depth(batch['depth'], self.options['field_of_view'])
        read = parts.normals(view.features, tuple(truth.shape[2:4]))
        return by_step(NormalErrors.empty().update, truth, read)

    def about(self):
        return super().about() | {'field_of_view': self.options['field_of_view']}
