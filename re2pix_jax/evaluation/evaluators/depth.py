"""Errors of depth: δ1 to δ3, AbsRel, RMSE, log10 and SILog, streaming over batches on the device.

A truth of 0 (or below) is unknown and ignored. Every number is computed over the pixels of a frame
and then averaged over frames. The reference averages over batches (2 clips for forecasts, 16 frames
for heads); a frame is a batch of its own here, so that the batch size does not matter: equal to the
reference at batch 1. [R]

The published protocol compares ordinal classes 1 to 255 as if they were depths. They are inverse
depths of a monocular teacher, scaled to 0..255 frame by frame, so its RMSE counts classes. [R] With
metres in, RMSE is in metres; the other numbers have no unit.
"""

import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans, mean, share

LEAST = 1e-3
"""Predictions below count as this much: a logarithm needs a positive number. [O: the reference's is
infinite there]
"""


@flax.struct.dataclass
class DepthErrors(FrameMeans):
    """Errors so far.

    `errors = DepthErrors.empty()`, then `errors = errors.update(truth, prediction)` a batch, then
    `errors.compute()`.
    """

    NAMES: ClassVar = ('delta1', 'delta2', 'delta3', 'abs_rel', 'rmse', 'log10', 'silog')

    @jax.jit
    def update(self, truth, prediction):
        """Adds a batch of frames.

        Args:
            truth: depths or ordinal classes [..., H, W], 0 = unknown; fewer than 2^31 pixels.
            prediction: likewise, of the same shape.
        """
        if truth.shape != prediction.shape:
            raise ValueError(
                f'truth {truth.shape} and prediction {prediction.shape} must have one shape'
            )
        shape = (-1, *truth.shape[-2:])
        truth, prediction = (
            values.reshape(shape).astype(jnp.float32) for values in (truth, prediction)
        )
        known = truth > 0
        count = known.sum((1, 2))
        truth = jnp.where(known, truth, 1)
        prediction = jnp.where(known, jnp.maximum(prediction, LEAST), 1)
        larger, smaller = jnp.maximum(truth, prediction), jnp.minimum(truth, prediction)
        error, ratio = prediction - truth, jnp.log(prediction / truth)
        average = lambda values: mean(values, known, count)
        values = {
            # Products, not quotients: of whole numbers they are exact, and a ratio of just 1.25 is
            # on the right side.
            **{f'delta{k}': share(larger < 1.25**k * smaller, known, count) for k in (1, 2, 3)},
            'abs_rel': average(jnp.abs(error) / truth),
            'rmse': jnp.sqrt(average(error**2)),
            'log10': average(jnp.abs(ratio)) / math.log(10),
            # About the mean: the difference of two mean squares would lose digits to a common
            # factor.
            'silog': 100 * jnp.sqrt(average((ratio - average(ratio)[:, None, None]) ** 2)),
        }
        return self.add(values, count)


class Depth(Evaluator):
    """Depth that a head reads in features, against the true one, in metres or in classes both."""

    COLUMNS = (
        Column('delta1', 'depth delta1 %', higher=True, scale=100, digits=1),
        Column('delta2', 'depth delta2 %', higher=True, scale=100, digits=1),
        Column('delta3', 'depth delta3 %', higher=True, scale=100, digits=1),
        Column('abs_rel', 'depth AbsRel'),
        Column('rmse', 'depth RMSE'),
        Column('log10', 'depth log10'),
        Column('silog', 'depth SILog'),
    )
    METHODS = ('re2pix', 'copy_last', 'vae', 'truth', 'forecast')
    FIELDS = frozenset({'depth'})
    OPTIONS = {'head': '', 'columns': ()}  # bundle of a head for depth; names of columns, () = all

    def open(self):
        self.parts = compatibility.open_head(self, 'depth')

    def check(self, part, clips):
        super().check(part, clips)
        compatibility.check_head(self, part, clips)

    def measure(self, parts, view, views, batch):
        depth = batch['depth']
        read = parts.depth(view.features, tuple(depth.shape[2:4]))
        return by_step(DepthErrors.empty().update, depth, read)

    def about(self):
        return compatibility.about_head(self)

    def scores(self, state):
        asked = self.options['columns']
        found = super().scores(state)
        return {name: value for name, value in found.items() if not asked or name in asked}
