"""Trains stage 1: from the components of four frames to those of the fifth, or of the next few by
roll-out.
"""

import jax.numpy as jnp

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.evaluators.features import smooth_l1
from re2pix_jax.forecaster import Forecaster, rollout
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer, adapt_grid
from re2pix_jax.tasks.task import Task


class ForecasterTask(Task):
    """SmoothL1 (beta 0.1) on the principal components of the frame to forecast [R].

    With config.loss.unroll = n, on those of n frames, each predicted from the predictions before
    it, and the gradient goes through them all [O].
    """

    kind = 'forecaster'
    frozen_parts = ('encoder', 'principal')

    def __init__(self, config):
        super().__init__(config)
        self.net = MaskedFeatureTransformer(**self.network_fields())
        self.unroll = config.loss.get('unroll', 1)
        if self.unroll < 1:
            raise UserError(
                f'config.loss.unroll is {self.unroll}: the loss needs at least 1 predicted frame'
            )
        self._check_sizes()

    def _check_sizes(self):
        """Refuses frozen parts that do not fit each other or the network."""
        net, principal = self.frozen['encoder'].net, self.frozen['principal']
        count, features = principal.components.shape
        channels = len(net.layers) * net.width
        if features != channels:
            raise UserError(
                f'config.frozen.principal: {self.config.frozen.principal} takes features of '
                f'{features} channels, the '
                f'encoder gives {channels}; give the components that were fitted to this encoder'
            )
        if count != self.net.components:
            raise UserError(
                f'config.frozen.principal: {self.config.frozen.principal} gives {count} '
                'components, the forecaster takes '
                f'{self.net.components}; set config.model.components to {count} or give another '
                'bundle'
            )

    def load_params(self, name):
        """Those of a forecaster bundle; its row and column codes are interpolated where
        config.model.grid is another one [R].
        """
        part = bundles.load(name, self.kind)
        if part.net.heads != self.net.heads:  # shapes do not tell
            raise UserError(
                f'config.init: {name} has {part.net.heads} heads and config.model '
                f'{self.net.heads}; set config.model.heads '
                f'to {part.net.heads}'
            )
        return (
            part.params
            if part.net.grid == self.net.grid
            else adapt_grid(part.params, self.net.grid)
        )

    def _components(self, frozen, batch):
        if 'components' in batch:  # encoded clips
            return batch['components'].astype(jnp.float32)
        # The grid is that of the frames: an encoder that was last used at another size does not
        # bring them back to that.
        encoder = frozen['encoder'].replace(image_size=None)
        return frozen['principal'].project(encoder.encode(batch['frames']))

    def init(self, key, batch):
        return self.net.init(
            key, jnp.zeros((1, self.net.frames - 1, *self.net.grid, self.net.components))
        )

    def loss(self, params, frozen, batch, key):
        components = self._components(frozen, batch)
        context = self.net.frames - 1
        if components.shape[1] != context + self.unroll:
            raise UserError(
                f'config.data.frames is {components.shape[1]}: a loss over {self.unroll} '
                'predicted frames (config.loss.unroll) '
                f'with {context} frames of context needs {context + self.unroll}; set it to that'
            )
        target = components[:, context:]
        prediction = rollout.forecast(params, self.net, components[:, :context], self.unroll, key)
        loss = smooth_l1(prediction, target).mean()
        return loss, {
            'copy_last_ratio': loss / smooth_l1(components[:, context - 1 : context], target).mean()
        }

    def measure(self, params, frozen, batch, keys):
        """Roll-out error by step, beside that of repeating the last context frame (the sums' ratio
        is the score).
        """
        components = self._components(frozen, batch)
        context = self.net.frames - 1
        horizon = components.shape[1] - context
        if horizon < 1:
            raise UserError(
                f'config.eval_data.frames is {components.shape[1]}: at least {context + 1} are '
                f'needed, {context} of context '
                'and one to forecast'
            )
        prediction = rollout.forecast(params, self.net, components[:, :context], horizon)
        values = {}
        for step in range(horizon):
            truth = components[:, context + step]
            values[f'smooth_l1_step{step + 1}'] = smooth_l1(prediction[:, step], truth)
            values[f'copy_last_step{step + 1}'] = smooth_l1(components[:, context - 1], truth)
        return values

    def evaluate(self, params, frozen, batches, key):
        values = super().evaluate(params, frozen, batches, key)
        steps = [
            name.removeprefix('smooth_l1_') for name in values if name.startswith('smooth_l1_')
        ]
        return values | {
            f'ratio_{step}': values[f'smooth_l1_{step}'] / values[f'copy_last_{step}']
            for step in steps
        }

    def save(self, params, path, batches, **saving):
        forecaster = Forecaster(
            params=params,
            net=self.net,
            encoder=self.frozen['encoder'],
            principal=self.frozen['principal'],
        )
        bundles.save(path, forecaster, **saving)
