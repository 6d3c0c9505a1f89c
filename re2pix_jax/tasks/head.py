"""Trains a DPT head that reads segmentation, depth or surface normals out of the frozen encoder's
features.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from re2pix_jax import errors
from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.heads import Head, normals, ordinal
from re2pix_jax.heads.dpt import DPTHead
from re2pix_jax.nn.positions import resize
from re2pix_jax.tasks.task import Task, clip_keys


class HeadTask(Task):
    """Losses on PCA-reconstructed features, so that the head meets the features that stage 1 will
    give it [R].

    config.loss.reads says what the head reads; all losses are means over the pixels with a known
    truth [R]:

    - segmentation: cross-entropy with batch['labels'], 255 ignored.
    - depth: cross-entropy with the classes of batch['depth'], 0 ignored; config.loss.depth_range
      says which metres the classes are, () that the depths are classes already.
    - normals: squared distance plus 1 - cosine to the normals of batch['depth'], in metres and seen
      with config.loss.field_of_view degrees [O].
    """

    kind = 'head'
    frozen_parts = ('encoder', 'principal')

    build = DPTHead

    @property
    def untold_of_loss(self):
        return ('reads',) + (('depth_range',) if self.reads == 'depth' else ())

    def check(self, loaded):
        loss = self.config.loss
        self.reads = loss.get('reads', 'segmentation')
        self.depth_range = tuple(loss.get('depth_range', ())) if self.reads == 'depth' else ()
        self.field_of_view = loss.get('field_of_view', 60.0)
        with errors.blaming('config.loss'):
            self._head(None)  # refuses what does not fit together
        if not 0 < self.field_of_view < 180:
            raise errors.UserError(
                f'config.loss.field_of_view = {self.field_of_view}: expected degrees between 0 and '
                '180'
            )
        if loaded:
            self._check_components()

    def _head(self, variables, encoder=None):
        return Head(
            params=variables,
            net=self.net,
            reads=self.reads,
            depth_range=self.depth_range or None,
            encoder=encoder,
        )

    def depth_kind(self):
        if self.reads == 'segmentation':
            return ''
        return 'metres' if self.depth_range or self.reads == 'normals' else 'classes'

    def _features(self, frozen, batch):
        """[B, T, h, w, C]."""
        if 'frames' not in batch:
            raise errors.UserError(
                'config.data.sources: encoded clips hold no frames, which a head is trained on; '
                'take a source of frames'
            )
        encoder, principal = frozen['encoder'].of_any_size(), frozen['principal']
        return principal.reconstruct(principal.project(encoder.encode(batch['frames'])))

    def inputs(self):
        if not self.frozen:
            raise errors.UserError(
                'config.task: the sizes of a head follow from its encoder, which is not opened here'
            )
        patch = self.frozen['encoder'].net.patch_size
        grid = (side // patch for side in self.config.data.size)
        return (jnp.zeros((1, *grid, self.frozen['principal'].components.shape[1])),)

    def load(self, name):
        head, channels = self.start(name), self.frozen['principal'].components.shape[1]
        if head.channels != channels:
            raise errors.UserError(
                f'{name}: takes features of {head.channels} channels, and the encoder '
                f'{self.config.frozen.encoder} gives {channels}: start from a head for this encoder'
            )
        return head.params

    def _truth(self, batch):
        """Labels [B, T, H, W], depths [B, T, H, W] or normals [B, T, H, W, 3] of a batch."""
        name = 'labels' if self.reads == 'segmentation' else 'depth'
        if name not in batch:
            raise errors.UserError(
                f'config.data: the clips come without {name}, which a head that reads {self.reads} '
                'is trained on; set labels=True and take a source of frames'
            )
        return (
            normals.from_depth(batch[name], self.field_of_view)
            if self.reads == 'normals'
            else batch[name]
        )

    def loss(self, variables, frozen, batch, key, teacher=None):
        truth, features = self._truth(batch), self._features(frozen, batch)
        logits, updates = self.net.apply(
            variables,
            features.reshape(-1, *features.shape[2:]),
            train=True,
            mutable=['batch_stats'],
            # The parts of a batch drop other units, each by the key of its first clip.
            rngs={'dropout': clip_keys(key, batch)[0]},
        )
        loss, metrics = self._error(logits, truth.reshape(-1, *truth.shape[2:]))
        return loss, (metrics, dict(updates))

    def _error(self, logits, truth):
        """(loss, {name: score}) of logits [N, h, w, K], resized to the truth [N, H, W, ...] where
        they differ [R].
        """
        logits = resize(logits, truth.shape[1:3], method='cubic')
        if self.reads == 'normals':
            known = (truth != 0).any(-1)
            average = functools.partial(_mean, known=known)
            truth = truth / jnp.maximum(jnp.linalg.norm(truth, axis=-1, keepdims=True), 1e-20)
            cosine = (logits * truth).sum(-1) / jnp.sqrt((logits**2).sum(-1) + 1e-12)
            loss = average(((logits - truth) ** 2).sum(-1) + 1 - cosine)
            return loss, {'angle': average(normals.angle(jax.lax.stop_gradient(logits), truth))}
        if self.reads == 'depth':
            truth = ordinal.to_classes(truth, self.net.classes, self.depth_range or None)
            known = truth > 0
        else:
            known = truth != IGNORE
        truth = jnp.where(known, truth, 0).astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
        return _mean(losses, known), {'accuracy': _mean(logits.argmax(-1) == truth, known)}

    def part(self, variables, batches=None):
        return self._head(variables, self.bundles['encoder']['identity'])

    def judged(self, variables):
        return {'head': self.part(variables), **self.frozen}


def _mean(values, known):
    """Mean of values over the pixels `known`, 0 where there is none."""
    return jnp.where(known, values, 0).sum() / jnp.maximum(known.sum(), 1)
