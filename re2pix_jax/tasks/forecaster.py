"""Trains stage 1: from the components of four frames to those of the fifth."""

import jax.numpy as jnp

from re2pix_jax import weights
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.metrics.features import smooth_l1
from re2pix_jax.tasks.task import Task


class ForecasterTask(Task):
    """SmoothL1 (beta 0.1) on the principal components of the frame to forecast [R]."""
    kind = 'forecaster'
    frozen_parts = ('encoder', 'principal')

    def __init__(self, config):
        super().__init__(config)
        self.net = MaskedFeatureTransformer(**self.network_fields())

    def _components(self, frozen, batch):
        if 'components' in batch:  # encoded clips
            return batch['components'].astype(jnp.float32)
        return frozen['principal'].project(frozen['encoder'].encode(batch['frames']))

    def init(self, key, batch):
        return self.net.init(key, jnp.zeros((1, self.net.frames - 1, *self.net.grid, self.net.components)))

    def loss(self, params, frozen, batch, key):
        components = self._components(frozen, batch)
        context, target = components[:, :-1], components[:, -1]
        prediction = self.net.apply(params, context, deterministic=False, rngs={'dropout': key})
        loss = smooth_l1(prediction, target).mean()
        return loss, {'copy_last_ratio': loss / smooth_l1(context[:, -1], target).mean()}

    def measure(self, params, frozen, batch, keys):
        """Roll-out error by step, beside that of repeating the last context frame (the sums' ratio is the score)."""
        components = self._components(frozen, batch)
        context = self.net.frames - 1
        horizon = components.shape[1] - context
        forecaster = Forecaster(params=params, net=self.net, encoder=frozen['encoder'], principal=frozen['principal'])
        prediction = forecaster.forecast(components[:, :context], horizon)
        values = {}
        for step in range(horizon):
            truth = components[:, context + step]
            values[f'smooth_l1_step{step + 1}'] = smooth_l1(prediction[:, step], truth)
            values[f'copy_last_step{step + 1}'] = smooth_l1(components[:, context - 1], truth)
        return values

    def evaluate(self, params, frozen, batches, key):
        values = super().evaluate(params, frozen, batches, key)
        steps = [name.removeprefix('smooth_l1_') for name in values if name.startswith('smooth_l1_')]
        return values | {f'ratio_{step}': values[f'smooth_l1_{step}'] / values[f'copy_last_{step}'] for step in steps}

    def save(self, params, path, batches, **saving):
        forecaster = Forecaster(params=params, net=self.net, encoder=self.frozen['encoder'], principal=self.frozen['principal'])
        weights.save(path, forecaster, **saving)
