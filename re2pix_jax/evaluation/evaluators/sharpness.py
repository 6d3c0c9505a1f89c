"""How much of the truth's fine detail frames keep: 1 is all of it, blurred frames have less."""

import math
from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans


def energy(frames):
    """Mean squared difference of neighbouring pixels, along both axes.

    Args:
        frames: uint8 [..., H, W, 3].

    Returns:
        float32 [...], in squared grey levels.
    """
    frames = frames.astype(jnp.float32)
    across = jnp.square(jnp.diff(frames, axis=-2)).mean((-3, -2, -1))
    return across + jnp.square(jnp.diff(frames, axis=-3)).mean((-3, -2, -1))


@flax.struct.dataclass
class Energies(FrameMeans):
    """Energies of frames and of the true ones so far, and their quotient."""

    NAMES: ClassVar = ('energy', 'true_energy')

    def update(self, truth, found, known):
        """Adds frames uint8 [B, H, W, 3], those that are `known` [B]."""
        values = {'energy': energy(found), 'true_energy': energy(truth)}
        return self.add(values, known.astype(jnp.int32))

    def compute(self):
        values = super().compute()
        truth = values['true_energy']
        return values | {'sharpness': values['energy'] / truth if truth else math.nan}


class Sharpness(Evaluator):
    """The gradient energy of frames, as a share of the true frames'."""

    COLUMNS = (Column('sharpness', 'sharpness / truth', higher=True),)

    def measure(self, parts, view, views, batch):
        truth = views['truth'].frames
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        return by_step(Energies.empty().update, truth, view.frames, known)
