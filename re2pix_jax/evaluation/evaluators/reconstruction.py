"""All frames of a clip through the VAE and back: PSNR, and how far their features have moved."""

from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax import bundles
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.components import cosine
from re2pix_jax.evaluation.evaluators.image import psnr
from re2pix_jax.evaluation.evaluators.means import FrameMeans


@flax.struct.dataclass
class Reconstructions(FrameMeans):
    """PSNR and feature distance of reconstructions so far."""

    NAMES: ClassVar = ('reconstruction_psnr', 'reconstruction_distance')

    def update(self, truth, found, distances, known):
        """Adds frames uint8 [B, H, W, 3], those that are `known` [B]."""
        values = {'reconstruction_psnr': psnr(found, truth), 'reconstruction_distance': distances}
        return self.add(values, known.astype(jnp.int32))


class Reconstruction(Evaluator):
    """What the decoder allows at best, of context and future frames alike; with option `encoder`, a
    bundle, also one less the cosine of that encoder's features.
    """

    COLUMNS = (
        Column('reconstruction_psnr', 'PSNR of reconstruction dB', higher=True, digits=2),
        Column('reconstruction_distance', 'feature distance of reconstruction', digits=4),
    )
    METHODS = ('vae',)
    OPTIONS: ClassVar = {'encoder': ''}

    def __init__(self, name, settings):
        super().__init__(name, settings)
        if not self.options['encoder']:
            self.COLUMNS = self.COLUMNS[:1]

    def open(self):
        if path := self.options['encoder']:
            self.parts = bundles.load(path, 'encoder').of_any_size()

    def measure(self, parts, view, views, batch):
        frames, distances = batch['frames'], jnp.zeros(batch['frames'].shape[:2])
        if self.options['encoder']:
            distances = 1.0 - cosine(parts.encode(view.all_frames), parts.encode(frames))
        known = batch['known'][:, None].repeat(frames.shape[1], 1)
        return by_step(Reconstructions.empty().update, frames, view.all_frames, distances, known)

    def report(self, states):
        found = super().report(states)
        return {method: (overall, []) for method, (overall, _) in found.items()}
