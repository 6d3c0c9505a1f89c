"""LPIPS of frames against the true ones, a mean over frames."""

from typing import ClassVar

import flax.struct
import jax.numpy as jnp

from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans


@flax.struct.dataclass
class Distances(FrameMeans):
    """LPIPS so far."""

    NAMES: ClassVar = ('lpips',)

    def update(self, distances, known):
        """Adds distances [B], of the frames that are `known` [B]."""
        return self.add({'lpips': distances}, known.astype(jnp.int32))


class Lpips(Evaluator):
    """How different frames look to a network that people's judgements weighted."""

    COLUMNS = (Column('lpips', 'LPIPS'),)
    OPTIONS = {'network': ''}  # bundle

    def open(self):
        self.parts = compatibility.open_network(self, 'lpips')

    def measure(self, parts, view, views, batch):
        truth = views['truth'].frames
        distances = parts.distance(jnp.broadcast_to(view.frames, truth.shape), truth)
        known = batch['known'][:, None].repeat(truth.shape[1], 1)
        return by_step(Distances.empty().update, distances, known)
