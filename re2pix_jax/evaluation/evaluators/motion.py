"""How much of the truth's motion a video keeps: 1 is all of it, a frozen one has none, a jittering
one more.
"""

import math
from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans


def energy(before, after):
    """Mean squared difference of a frame and the one before it.

    Args:
        before, after: uint8 [..., H, W, 3].

    Returns:
        float32 [...], in squared grey levels.
    """
    change = after.astype(jnp.float32) - before.astype(jnp.float32)
    return jnp.square(change).mean((-3, -2, -1))


@flax.struct.dataclass
class Changes(FrameMeans):
    """Energies of changes and of the true ones so far, and their quotient."""

    NAMES: ClassVar = ('energy', 'true_energy')

    def update(self, truth, found, known):
        """Adds changes of frames, `truth` and `found` float32 [B], those that are `known` [B]."""
        return self.add({'energy': found, 'true_energy': truth}, known.astype(jnp.int32))

    def compute(self):
        values = super().compute()
        truth = values['true_energy']
        return values | {'motion': values['energy'] / truth if truth else math.nan}


class Motion(Evaluator):
    """The energy of the changes between future frames, as a share of the true ones'.

    The step from the last context frame to the first future one is left out: there a video changes
    by what it lacks in sharpness, too.
    """

    COLUMNS = (Column('motion', 'motion / truth', higher=True),)

    def check(self, part, clips):
        super().check(part, clips)
        if not self.left_out and clips.horizon < 2:
            self.left_out = f'{self.titles}: a single future frame does not move'

    def measure(self, parts, view, views, batch):
        truth = views['truth'].frames
        found = jnp.broadcast_to(view.frames, truth.shape)
        # The first step, of which nothing is known, keeps the steps in their places.
        changes = [
            jnp.pad(energy(frames[:, :-1], frames[:, 1:]), ((0, 0), (1, 0)))
            for frames in (truth, found)
        ]
        known = batch['known'][:, None] & (jnp.arange(truth.shape[1]) > 0)
        return by_step(Changes.empty().update, *changes, known)
