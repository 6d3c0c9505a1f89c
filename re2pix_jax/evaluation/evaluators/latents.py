"""Squared error of sampled latents, beside that of repeating the last context frame's."""

from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans


@flax.struct.dataclass
class LatentErrors(FrameMeans):
    """Squared errors so far."""

    NAMES: ClassVar = ('latent_error',)

    def update(self, truth, found, known):
        """Adds latents [B, h, w, c], of the frames that are `known` [B]."""
        error = jnp.square(found - truth).mean((-3, -2, -1))
        return self.add({'latent_error': error}, known.astype(jnp.int32))


class Latents(Evaluator):
    """Where the generator lands in latent space; needs no frames, so encoded clips serve."""

    COLUMNS = (Column('latent_error', 'latent squared error'),)
    METHODS = ('re2pix', 'copy_last')
    FIELDS = frozenset()

    def measure(self, parts, view, views, batch):
        truth = views['truth'].latents
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        return by_step(LatentErrors.empty().update, truth, view.latents, known)
