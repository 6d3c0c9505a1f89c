"""Trains stage 1: from the components of four frames to those of the fifth, or of the next few by
roll-out.
"""

import math

import jax
import jax.numpy as jnp

from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster, rollout, smooth_l1
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer, adapt_grid
from re2pix_jax.tasks.task import Task, clip_keys

NOISE = 2**31
"""Folded into a clip's key for the noise on its context: no number of a roll-out's steps, whose
dropout folds those in.
"""


class ForecasterTask(Task):
    """SmoothL1 (beta 0.1) on the principal components of the frame to forecast [R].

    With config.loss.unroll = n, on those of n frames, each predicted from the predictions before
    it; the gradient goes through them all, or with config.loss.cut through each alone [O].

    With config.loss.noise = s, the context is seen through Gaussian noise of s times the error that
    the forecaster makes of the clip's next frame, measured in the step itself, clip by clip and
    component by component: it learns to go on from frames as wrong as its own [O].
    """

    kind = 'forecaster'
    frozen_parts = ('encoder', 'principal')

    build = MaskedFeatureTransformer
    untold = ('heads',)

    def check(self, loaded):
        loss, context = self.config.loss, self.net.frames - 1
        self.unroll, self.cut = loss.get('unroll', 1), loss.get('cut', False)
        self.noise = loss.get('noise', 0.0)
        if self.unroll < 1:
            raise UserError(
                f'config.loss.unroll is {self.unroll}: the loss needs at least 1 predicted frame'
            )
        if not 0 <= self.noise < math.inf:
            raise UserError(
                f'config.loss.noise is {self.noise}: at least 0 expected, in units of the '
                "forecaster's own error"
            )
        if self.config.data.frames != context + self.unroll:
            raise UserError(
                f'config.data.frames is {self.config.data.frames}: a loss over {self.unroll} '
                f'predicted frames (config.loss.unroll) with {context} frames of context needs '
                f'{context + self.unroll}; set it to that'
            )
        if not loaded:
            return
        self._check_components()
        if (count := self.frozen['principal'].components.shape[0]) != self.net.components:
            raise UserError(
                f'config.frozen.principal: {self.config.frozen.principal} gives {count} '
                f'components, the forecaster takes {self.net.components}; set '
                f'config.model.components to {count} or give another bundle'
            )

    def load(self, name):
        """Those of a forecaster bundle; its row and column codes are interpolated where
        config.model.grid is another one [R].
        """
        part = self.start(name)
        return (
            part.params
            if part.net.grid == self.net.grid
            else adapt_grid(part.params, self.net.grid)
        )

    def _components(self, frozen, batch):
        if 'components' in batch:  # encoded clips
            return batch['components'].astype(jnp.float32)
        return frozen['principal'].project(frozen['encoder'].of_any_size().encode(batch['frames']))

    def inputs(self):
        return (jnp.zeros((1, self.net.frames - 1, *self.net.grid, self.net.components)),)

    def loss(self, variables, frozen, batch, key, teacher=None):
        components = self._components(frozen, batch)
        context, target = jnp.split(components, [self.net.frames - 1], axis=1)
        copy_last = smooth_l1(context[:, -1:], target).mean()
        keys = clip_keys(key, batch)
        if self.noise:
            context = self._noisy(variables, context, target[:, 0], keys)
        # The parts of a batch drop other units, each by the key of its first clip.
        prediction = rollout.forecast(
            variables, self.net, context, self.unroll, keys[0], cut=self.cut
        )
        loss = smooth_l1(prediction, target).mean()
        return loss, ({'copy_last_ratio': loss / copy_last}, {})

    def _noisy(self, variables, context, following, keys):
        """The context [B, T - 1, h, w, P] under noise; no gradient goes into its deviation.

        That is the root mean square, over the grid, of the error of the frame that follows, for
        each clip and component.
        """
        error = self.net.apply(jax.lax.stop_gradient(variables), context) - following
        deviation = jnp.sqrt(jnp.square(error).mean((1, 2)))[:, None, None, None]
        noise = jax.vmap(lambda key: jax.random.normal(key, context.shape[1:]))(
            jax.vmap(lambda key: jax.random.fold_in(key, NOISE))(keys)
        )
        return context + self.noise * deviation * noise

    def part(self, variables, batches=None):
        return Forecaster(params=variables, net=self.net, **self.frozen)
