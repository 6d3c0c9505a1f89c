"""Errors of surface normals, mean and median angle and shares below limits; and normals from depth.

A true normal of (0, 0, 0) is unknown and ignored. Every number is computed over the pixels of a
frame and then averaged over frames; the reference averages over batches, of which each frame is one
here, see `depth`. [R] The median, too, is the mean over frames of each frame's exact (lower)
median.

Axes are those of the camera: x right, y down, z ahead; normals look towards the camera. [O] The
errors do not depend on the axes, as long as truth and prediction share them.
"""

from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans, mean, share
from re2pix_jax.heads.normals import angle, from_depth

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
        return compatibility.about_head(self) | {'field_of_view': self.options['field_of_view']}
