"""Trains stage 1: from the components of four frames to those of the fifth, or of the next few by
roll-out.
"""

import jax.numpy as jnp

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster, rollout, smooth_l1
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer, adapt_grid
from re2pix_jax.tasks.task import Task, clip_keys


class ForecasterTask(Task):
    """SmoothL1 (beta 0.1) on the principal components of the frame to forecast [R].

    With config.loss.unroll = n, on those of n frames, each predicted from the predictions before
    it, and the gradient goes through them all [O].
    """

    kind = 'forecaster'
    frozen_parts = ('encoder', 'principal')

    build = MaskedFeatureTransformer

    def check(self, loaded):
        self.unroll = self.config.loss.get('unroll', 1)
        if self.unroll < 1:
            raise UserError(
                f'config.loss.unroll is {self.unroll}: the loss needs at least 1 predicted frame'
            )
        if not loaded:
            return
        net, principal = self.frozen['encoder'].net, self.frozen['principal']
        count, features = principal.components.shape
        channels = len(net.layers) * net.width
        if features != channels:
            raise UserError(
                f'config.frozen.principal: {self.config.frozen.principal} takes features of '
                f'{features} channels, the encoder gives {channels}; give the '
                'components that were fitted to this encoder'
            )
        if count != self.net.components:
            raise UserError(
                f'config.frozen.principal: {self.config.frozen.principal} gives {count} '
                f'components, the forecaster takes {self.net.components}; set '
                f'config.model.components to {count} or give another bundle'
            )

    def load(self, name):
        """Those of a forecaster bundle; its row and column codes are interpolated where
        config.model.grid is another one [R].
        """
        part = bundles.load(name, self.kind)
        if part.net.heads != self.net.heads:  # shapes do not tell
            raise UserError(
                f'config.init: {name} has {part.net.heads} heads and config.model '
                f'{self.net.heads}; set config.model.heads to {part.net.heads}'
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

    def inputs(self):
        return (jnp.zeros((1, self.net.frames - 1, *self.net.grid, self.net.components)),)

    def loss(self, variables, frozen, batch, key, teacher=None):
        components = self._components(frozen, batch)
        context = self.net.frames - 1
        if components.shape[1] != context + self.unroll:
            raise UserError(
                f'config.data.frames is {components.shape[1]}: a loss over {self.unroll} '
                f'predicted frames (config.loss.unroll) with {context} frames of context '
                f'needs {context + self.unroll}; set it to that'
            )
        target = components[:, context:]
        # The parts of a batch drop other units, each by the key of its first clip.
        key = clip_keys(key, batch)[0]
        prediction = rollout.forecast(
            variables, self.net, components[:, :context], self.unroll, key
        )
        loss = smooth_l1(prediction, target).mean()
        copy_last = smooth_l1(components[:, context - 1 : context], target).mean()
        return loss, ({'copy_last_ratio': loss / copy_last}, {})

    def part(self, variables, batches=None):
        return Forecaster(params=variables, net=self.net, **self.frozen)
