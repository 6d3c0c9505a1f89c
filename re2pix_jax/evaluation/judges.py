"""What measures frames beside the model's own parts: a head for depth, and the networks of FID, FVD and LPIPS, where given."""

import dataclasses
from typing import Any

import flax.struct

from re2pix_jax import weights
from re2pix_jax.metrics import protocol
from re2pix_jax.weights import bundle


class Judges(flax.struct.PyTreeNode):
    """A pytree, so that it passes through jit and lies on devices.

    Attributes:
        heads: {kind: `Head`}: 'segmentation' (the model's own, see `fitting`) and 'depth'.
        networks: {'inception', 'i3d', 'lpips': network}, those that are there.
        names: {name of any of them: its bundle}.
        left_out: a line for every measure that will be missing.
    """

    heads: dict = flax.struct.field(default_factory=dict)
    networks: dict = flax.struct.field(default_factory=dict)
    names: Any = flax.struct.field(pytree_node=False, default=())
    left_out: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def load(cls, config) -> 'Judges':
        """Those that config.heads.depth, .inception, .i3d and .lpips name."""
        left_out = []
        heads = {'depth': weights.load(config.heads.depth, 'head')} if config.heads.depth else {}
        return cls(heads=heads, left_out=tuple(left_out))

    def fitting(self, model, config) -> 'Judges':
        """With the model's own head, and without a depth head of another encoder."""
        heads, left_out = dict(self.heads), list(self.left_out)
        if getattr(model, 'head', None) is not None:
            heads['segmentation'] = model.head
        channels = model.forecaster.principal.components.shape[1]
        if 'depth' in heads and heads['depth'].channels != channels:
            left_out.append(f'depth errors: config.heads.depth takes features of {heads["depth"].channels} channels, the model\'s encoder '
                            f'gives {channels}; name a head that was trained for it')
            del heads['depth']
        return self.replace(heads=heads, left_out=tuple(left_out))

    def describe(self, past, frames, truth) -> dict:
        """{measure: features} of the networks."""
        return {}

    def features(self, model, config, totals) -> dict:
        """{measure: `protocol.Features`}."""
        encoder = protocol.fingerprint(model.forecaster.encoder.params)
        samples = {'frechet_frames': f'mean and deviation of a future frame\'s leading components',
                   'frechet_video': 'windows of 4 successive future frames: leading components and their changes'}
        return {measure: dataclasses.asdict(protocol.Features(
            'the model\'s frozen encoder', encoder, samples[measure], len(moments.mean), moments.count))
            for measure, moments in totals.true_moments().items()}
