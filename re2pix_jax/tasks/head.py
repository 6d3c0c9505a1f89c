"""Trains a DPT head that reads segmentation, depth or surface normals out of the frozen encoder's
features.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from re2pix_jax import bundles, cityscapes, errors
from re2pix_jax.evaluation.evaluators import depth, normals, segmentation
from re2pix_jax.heads import Head, ordinal
from re2pix_jax.heads.dpt import DPTHead
from re2pix_jax.nn.positions import resize
from re2pix_jax.tasks.task import Task


class HeadTask(Task):
    """Losses on PCA-reconstructed features, so that the head meets the features that stage 1 will
    give it [R].

    config.loss.reads says what the head reads; all losses are means over the pixels with a known
    truth [R]:

    - segmentation: cross-entropy with batch['labels'], 255 ignored.
    - depth: cross-entropy with the classes of batch['depth'], 0 ignored; config.loss.depth_range
      says which metres the classes are, () that the depths are classes already.
    - normals: squared distance plus 1 - cosine to batch['normals'] or, where the batch has none, to
      the normals of batch['depth'] seen with config.loss.field_of_view degrees [O].
    """

    kind = 'head'
    frozen_parts = ('encoder', 'principal')

    def __init__(self, config):
        super().__init__(config)
        self.net = DPTHead(**self.network_fields())
        self.reads = config.loss.get('reads', 'segmentation')
        self.depth_range = (
            tuple(config.loss.get('depth_range', ())) or None if self.reads == 'depth' else None
        )
        self.field_of_view = config.loss.get('field_of_view', 60.0)
        self._head(None)  # refuses what does not fit together
        if not 0 < self.field_of_view < 180:
            raise errors.UserError(
                f'config.loss.field_of_view = {self.field_of_view}: expected degrees between 0 '
                'and 180'
            )
        net, channels = self.frozen['encoder'].net, self.frozen['principal'].components.shape[1]
        if channels != len(net.layers) * net.width:
            raise errors.UserError(
                f'{config.frozen.principal}: holds principal components of {channels} channels, '
                'and the encoder '
                f'{config.frozen.encoder} gives {len(net.layers) * net.width}: fit them to this '
                'encoder'
            )

    def _head(self, params):
        return Head(params=params, net=self.net, reads=self.reads, depth_range=self.depth_range)

    def _features(self, frozen, batch):
        """[B, T, h, w, C]."""
        if 'frames' not in batch:
            raise errors.UserError(
                'config.data.sources: encoded clips hold no frames, which a head is trained on; '
                'take a source of frames'
            )
        # The grid is that of the frames: an encoder that was last used at another size does not
        # bring them back to that.
        encoder, principal = frozen['encoder'].replace(image_size=None), frozen['principal']
        return principal.reconstruct(principal.project(encoder.encode(batch['frames'])))

    def init(self, key, batch):
        shape = jax.eval_shape(self._features, self.frozen, batch).shape
        return self.net.init(key, jnp.zeros((1, *shape[2:])))

    def load_params(self, name):
        head, channels = bundles.load(name, self.kind), self.frozen['principal'].components.shape[1]
        if head.reads != self.reads:
            raise errors.UserError(
                f'{name}: reads {head.reads}, where config.loss.reads is {self.reads}: start from '
                'another head'
            )
        if head.channels != channels:
            raise errors.UserError(
                f'{name}: takes features of {head.channels} channels, and the encoder '
                f'{self.config.frozen.encoder} '
                f'gives {channels}: start from a head for this encoder'
            )
        return head.params

    def _truth(self, batch):
        """Labels [B, T, H, W], depths [B, T, H, W] or normals [B, T, H, W, 3] of a batch."""
        if self.reads == 'normals' and 'normals' in batch:
            return batch['normals']
        name = 'labels' if self.reads == 'segmentation' else 'depth'
        if name not in batch:
            raise errors.UserError(
                f'config.data: the clips come without {name}, which a head that reads '
                f'{self.reads} is trained on; '
                'set labels=True and take a source of frames'
            )
        return (
            normals.from_depth(batch[name], self.field_of_view)
            if self.reads == 'normals'
            else batch[name]
        )

    def loss(self, params, frozen, batch, key):
        truth, features = self._truth(batch), self._features(frozen, batch)
        logits, statistics = self.net.apply(
            params,
            features.reshape(-1, *features.shape[2:]),
            train=True,
            mutable=['batch_stats'],
            rngs={'dropout': key},
        )
        loss, metrics = self._error(logits, truth.reshape(-1, *truth.shape[2:]))
        return loss, metrics | {'statistics': statistics}

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
            truth = ordinal.to_classes(truth, self.net.classes, self.depth_range)
            known = truth > 0
        else:
            known = truth != cityscapes.IGNORE
        truth = jnp.where(known, truth, 0).astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
        return _mean(losses, known), {'accuracy': _mean(logits.argmax(-1) == truth, known)}

    @functools.cached_property
    def _observe(self):
        errors_of = {
            'segmentation': lambda: segmentation.Confusion.create(self.net.classes),
            'depth': depth.DepthErrors.create,
            'normals': normals.NormalErrors.create,
        }[self.reads]

        @jax.jit
        def observe(seen, params, frozen, batch):
            head, truth = self._head(params), self._truth(batch)
            logits = head.logits(self._features(frozen, batch))
            losses, _ = jax.vmap(self._error)(logits, truth)
            return seen.update(truth, head.read(logits, truth.shape[2:4])), losses.sum()

        return errors_of, observe

    def evaluate(self, params, frozen, batches, key):
        """'loss', the mean over clips, and the scores of `re2pix_jax.metrics`; those that nothing
        was known for are left out.
        """
        create, observe = self._observe
        seen, loss, clips = create(), 0.0, 0
        for batch in batches:
            seen, losses = observe(seen, params, frozen, batch)
            loss, clips = loss + float(losses), clips + batch['record'].shape[0]
        if not clips:
            raise errors.UserError(
                f'{self.config.task}: the evaluation data holds no clips; check config.eval_data'
            )
        scores = {'loss': loss / clips} | seen.scores().to_dict()
        return {
            name: float(value) for name, value in scores.items() if isinstance(value, (int, float))
        }

    def save(self, params, path, batches, **saving):
        bundles.save(
            path,
            self._head(params).replace(encoder=bundles.identity(self.frozen['encoder'])),
            **saving,
        )


def _mean(values, known):
    """Mean of values over the pixels `known`, 0 where there is none."""
    return jnp.where(known, values, 0).sum() / jnp.maximum(known.sum(), 1)
