"""How far predicted features or principal components lie from the true ones, one number a frame."""

import contextlib
import functools
import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import views as views_
from re2pix_jax.evaluation.batches import of_one_length
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans
from re2pix_jax.forecaster import transformer

BETA = 0.1
"""Where SmoothL1 goes from quadratic to linear: stage 1's training loss uses the same. [R]"""


@functools.partial(jax.jit, static_argnames='beta')
def smooth_l1(prediction, truth, beta=BETA):
    """SmoothL1, mean over a frame's grid and channels: 0.5 d^2 / beta below |d| = beta, |d| - beta
    / 2 above.

    Args:
        prediction, truth: float [..., h, w, P].

    Returns:
        float32 [...].
    """
    return transformer.smooth_l1(prediction, truth, beta).mean(axis=(-3, -2, -1))


@jax.jit
def cosine(prediction, truth):
    """Cosine similarity along the channels, mean over a frame's grid.

    Args:
        prediction, truth: float [..., h, w, C]; a vector of zeros has similarity 0 with everything.

    Returns:
        float32 [...] in [-1, 1].
    """
    prediction, truth = prediction.astype(jnp.float32), truth.astype(jnp.float32)
    norms = jnp.linalg.norm(prediction, axis=-1) * jnp.linalg.norm(truth, axis=-1)
    return ((prediction * truth).sum(-1) / jnp.maximum(norms, 1e-12)).mean(axis=(-2, -1))


@flax.struct.dataclass
class FeatureErrors(FrameMeans):
    """Errors of components so far, beside those of the last context frame's."""

    NAMES: ClassVar = ('feature_error', 'copy_error', 'cosine')

    def update(self, truth, found, last, cosines, known):
        """Adds components [B, h, w, P], of the frames that are `known` [B]."""
        values = {
            'feature_error': smooth_l1(found, truth),
            'copy_error': smooth_l1(last, truth),
            'cosine': cosines,
        }
        return self.add(values, known.astype(jnp.int32))

    def compute(self):
        values = super().compute()
        copied = values['copy_error']
        return values | {'error_ratio': values['feature_error'] / copied if copied else math.nan}


def mean_map(part, clips, count: int, batch_size: int = 8) -> np.ndarray:
    """Mean of the components of the compared frames, over their times and the first `count` of the
    evaluated clips: float32 [h, w, P].

    The best that one map could do that knows the place of things and nothing of the clip [O].
    """

    @jax.jit
    def future(part, batch):
        return views_.views_of(part, batch, clips.horizon, False, {}, 0)['truth'].components

    batches = clips.open(clips.split, count, clips.context + clips.horizon, batch_size)
    total, clips_read = 0.0, 0
    with contextlib.closing(batches):
        count = min(count, batches.clips)
        for batch, there in of_one_length(batches, count, batch_size, 'mean map'):
            given = {name: batch[name] for name in ('frames', 'components') if name in batch}
            found = np.asarray(future(part, given), np.float64)[:there]
            total, clips_read = total + found.mean(1).sum(0), clips_read + len(found)
    return np.asarray(total / max(clips_read, 1), np.float32)


class Components(Evaluator):
    """What the encoder makes of the frames, or what stage 1 forecasts, against the truth."""

    COLUMNS = (
        Column('feature_error', 'feature error'),
        Column('error_ratio', 'feature error / copy'),
        Column('cosine', 'feature cosine', higher=True),
    )
    METHODS = ('re2pix', 'copy_last', 'vae', 'forecast', 'mean_map')
    FIELDS = frozenset()
    # Whether the features' cosine is measured too; how many of the evaluated clips the mean map is
    # of, 0 = without it.
    OPTIONS = {'cosine': False, 'mean_clips': 0}

    def __init__(self, name, settings):
        super().__init__(name, settings)
        if self.options['mean_clips'] < 0:
            raise UserError(
                f'config.evals.{name}.mean_clips = {self.options["mean_clips"]}: expected the '
                'number of clips that the mean map is of, or 0 to go without'
            )

    def prepare(self, part, clips):
        self.count = min(self.options['mean_clips'], clips.count)
        if self.count and 'mean_map' in self.methods:
            self.parts = mean_map(part, clips, self.count)

    def views(self, parts, views):
        if not len(parts):
            return {}
        truth = views['truth']
        shape = (len(truth.components), 1, *parts.shape)
        return {'mean_map': truth.another(components=lambda: jnp.broadcast_to(parts, shape))}

    def measure(self, parts, view, views, batch):
        truth, found = views['truth'].components, view.components
        if self.options['cosine']:
            cosines = cosine(view.features, views['truth'].features)
        else:
            cosines = jnp.zeros(truth.shape[:2])
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        last = views['copy_last'].components
        return by_step(FeatureErrors.empty().update, truth, found, last, cosines, known)

    def about(self):
        return {'clips_of_mean_map': self.count} if len(self.parts) else {}

    def scores(self, state):
        found = super().scores(state)
        return {
            name: value
            for name, value in found.items()
            if name != 'cosine' or self.options['cosine']
        }
