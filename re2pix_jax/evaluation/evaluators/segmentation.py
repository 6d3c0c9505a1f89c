"""Mean intersection over union, by a confusion matrix that streams over batches on the device.

Labels are Cityscapes train ids and 255 is ignored. A class counts in a mean when it occurs in the
labels of the evaluated set; a class that is only predicted lowers the others through their false
positives, but adds no zero of its own. IoU is taken over the set's pixels, not averaged over
frames.
"""

import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics

from re2pix_jax.cityscapes import CLASSES, MOVING
from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step


class Scores(NamedTuple):
    """Scores of a set.

    Attributes:
        iou: float64 [K], NaN for classes without labels.
        miou, moving_miou: means over the classes with labels, all or the moving ones; NaN if there
            are none.
        accuracy: share of the labelled pixels that are right.
    """

    iou: np.ndarray
    miou: float
    moving_miou: float
    accuracy: float


@flax.struct.dataclass
class Confusion(metrics.Metric):
    """Counts of (label, prediction) pairs, 64-bit sums as two uint32: JAX has no 64-bit integers by
    default.

    `confusion = Confusion.empty(19)`, then `confusion = confusion.update(labels, predictions)` a
    batch, then `confusion.compute()`.
    """

    low: jax.Array
    high: jax.Array

    @classmethod
    def empty(cls, classes=CLASSES):
        """An empty matrix of `classes` x `classes`."""
        return cls(
            jnp.zeros((classes, classes), jnp.uint32), jnp.zeros((classes, classes), jnp.uint32)
        )

    @jax.jit
    def update(self, labels, predictions):
        """Adds a batch.

        Args:
            labels: integers of any shape, fewer than 2^31 pixels; values outside 0..K-1 (255) are
                ignored.
            predictions: integers of the same shape in 0..K-1.
        """
        if labels.shape != predictions.shape:
            raise ValueError(
                f'labels {labels.shape} and predictions {predictions.shape} must have one shape'
            )
        classes = self.low.shape[0]
        labels, predictions = (
            labels.reshape(-1).astype(jnp.int32),
            predictions.reshape(-1).astype(jnp.int32),
        )
        known = (labels >= 0) & (labels < classes)
        cell = jnp.where(known, labels * classes + predictions, classes * classes)
        counts = jnp.bincount(cell, length=classes * classes + 1)[:-1].reshape(classes, classes)
        return self._add(counts.astype(jnp.uint32), jnp.zeros_like(self.high))

    def merge(self, other):
        """The sum of two matrices, e.g. of two shares of a set."""
        return self._add(other.low, other.high)

    def _add(self, low, high):
        total = self.low + low
        return self.replace(low=total, high=self.high + high + (total < low).astype(jnp.uint32))

    def counts(self):
        """int64 numpy [K, K]: rows are labels, columns are predictions."""
        return (np.asarray(self.high).astype(np.int64) << 32) + np.asarray(self.low)

    def compute(self, moving=MOVING):
        """`Scores` of what was added so far; `moving` are the ids of the moving-object classes."""
        counts = self.counts().astype(np.float64)
        labelled, hits = counts.sum(1), np.diag(counts)
        union = labelled + counts.sum(0) - hits
        iou = np.where(labelled > 0, hits / np.maximum(union, 1), np.nan)
        return Scores(
            iou,
            _mean(iou),
            _mean(iou[[k for k in moving if k < len(iou)]]),
            float(hits.sum() / labelled.sum()) if labelled.sum() else math.nan,
        )


def _mean(values):
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


class Segmentation(Evaluator):
    """Labels that a head reads in features, against the true ones."""

    COLUMNS = (
        Column('miou', 'mIoU %', higher=True, scale=100, digits=1),
        Column('moving_miou', 'moving mIoU %', higher=True, scale=100, digits=1),
    )
    METHODS = ('re2pix', 'copy_last', 'vae', 'truth', 'forecast', 'encoder')
    FIELDS = frozenset({'labels'})
    OPTIONS = {'head': ''}  # bundle of a head for labels; '': the evaluated model's own

    def open(self):
        self.parts = compatibility.open_head(self, 'segmentation')

    def check(self, part, clips):
        super().check(part, clips)
        compatibility.check_head(self, part, clips)

    def measure(self, parts, view, views, batch):
        labels = batch['labels']
        read = parts.labels(view.features, tuple(labels.shape[2:4]))
        return by_step(Confusion.empty(parts.net.classes).update, labels, read)

    def about(self):
        return compatibility.about_head(self)

    def scores(self, state):
        values = state.compute()
        return {
            column.name: None if math.isnan(value := getattr(values, column.name)) else value
            for column in self.COLUMNS
        }
