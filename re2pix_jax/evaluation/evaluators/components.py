"""How far predicted features or principal components lie from the true ones, one number a frame."""

import functools
import math
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

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


class Components(Evaluator):
    """What the encoder makes of the frames, or what stage 1 forecasts, against the truth."""

    COLUMNS = (
        Column('feature_error', 'feature error'),
        Column('error_ratio', 'feature error / copy'),
        Column('cosine', 'feature cosine', higher=True),
    )
    METHODS = ('re2pix', 'copy_last', 'vae', 'forecast')
    FIELDS = frozenset()
    OPTIONS = {'cosine': False}  # whether the features' cosine is measured too

    def measure(self, parts, view, views, batch):
        truth, found = views['truth'].components, view.components
        if self.options['cosine']:
            cosines = cosine(view.features, views['truth'].features)
        else:
            cosines = jnp.zeros(truth.shape[:2])
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        last = views['copy_last'].components
        return by_step(FeatureErrors.empty().update, truth, found, last, cosines, known)

    def scores(self, state):
        found = super().scores(state)
        return {
            name: value
            for name, value in found.items()
            if name != 'cosine' or self.options['cosine']
        }
