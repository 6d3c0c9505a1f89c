"""Trains the DPT head that reads labels out of the frozen encoder's features."""

import jax
import jax.numpy as jnp
import optax

from re2pix_jax import weights
from re2pix_jax.heads import Head
from re2pix_jax.heads.dpt import DPTHead
from re2pix_jax.tasks.task import Task

IGNORE = 255


class HeadTask(Task):
    """Cross-entropy on PCA-reconstructed features, so that the head meets the features that stage 1 will give it [R]."""
    kind = 'head'
    frozen_parts = ('encoder', 'principal')

    def __init__(self, config):
        super().__init__(config)
        self.net = DPTHead(**self.network_fields())

    def _features(self, frozen, batch):
        principal = frozen['principal']
        features = principal.reconstruct(principal.project(frozen['encoder'].encode(batch['frames'])))
        return features.reshape(-1, *features.shape[2:])

    def init(self, key, batch):
        shape = jax.eval_shape(self._features, self.frozen, batch).shape
        return self.net.init(key, jnp.zeros((1, *shape[1:])))

    def loss(self, params, frozen, batch, key):
        logits, statistics = self.net.apply(
            params, self._features(frozen, batch), train=True, mutable=['batch_stats'], rngs={'dropout': key})
        loss, accuracy = _cross_entropy(logits, batch['labels'].reshape(-1, *batch['labels'].shape[2:]))
        return loss, {'accuracy': accuracy, 'statistics': statistics}

    def measure(self, params, frozen, batch, keys):
        logits = self.net.apply(params, self._features(frozen, batch), train=False)
        labels = batch['labels']
        logits = logits.reshape(*labels.shape[:2], *logits.shape[1:])
        loss, accuracy = jax.vmap(_cross_entropy)(logits, labels)
        return {'loss': loss, 'accuracy': accuracy}

    def save(self, params, path, batches, **saving):
        weights.save(path, Head(params=params, net=self.net), **saving)


def _cross_entropy(logits, labels):
    """Mean over labelled pixels of logits [N, H, W, K] (resized to the labels when they differ), and the share that is right."""
    if logits.shape[1:3] != labels.shape[1:3]:
        logits = jax.image.resize(logits, (*labels.shape, logits.shape[-1]), 'bilinear')
    known = labels != IGNORE
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, labels, 0).astype(jnp.int32))
    count = jnp.maximum(known.sum(), 1)
    right = (logits.argmax(-1) == labels) & known
    return (losses * known).sum() / count, right.sum() / count
