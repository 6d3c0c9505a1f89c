"""PSNR of all frames of a clip through the VAE and back."""

from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.image import psnr
from re2pix_jax.evaluation.evaluators.means import FrameMeans


@flax.struct.dataclass
class Reconstructions(FrameMeans):
    """PSNR of reconstructions so far."""

    NAMES: ClassVar = ('reconstruction_psnr',)

    def update(self, truth, found, known):
        """Adds frames uint8 [B, H, W, 3], those that are `known` [B]."""
        return self.add({'reconstruction_psnr': psnr(found, truth)}, known.astype(jnp.int32))


class Reconstruction(Evaluator):
    """What the decoder allows at best, of context and future frames alike."""

    COLUMNS = (Column('reconstruction_psnr', 'PSNR of reconstruction dB', higher=True, digits=2),)
    METHODS = ('vae',)

    def measure(self, parts, view, views, batch):
        frames = batch['frames']
        known = batch['known'][:, None].repeat(frames.shape[1], 1)
        return by_step(Reconstructions.empty().update, frames, view.all_frames, known)

    def report(self, states):
        found = super().report(states)
        return {method: (overall, []) for method, (overall, _) in found.items()}
