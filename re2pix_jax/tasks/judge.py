"""Trains the judge, a network of video that needs no labels of motion: how fast is this clip
played, are its frames in order, and what is seen in it.
"""

import itertools

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from re2pix_jax.cityscapes import CLASSES, IGNORE
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.networks.judge import FRAMES, Judge, VideoNetwork, scaled
from re2pix_jax.tasks.task import Task, clip_keys

ORDERS = ('forwards', 'backwards', 'shuffled')
SHUFFLES = np.array(
    [
        order
        for order in itertools.permutations(range(FRAMES))
        if order not in (tuple(range(FRAMES)), tuple(reversed(range(FRAMES))))
    ]
)
TERMS = ('speed', 'order', 'labels', 'patches')


class Questions(nn.Module):
    """What is asked of the network: its features give speed and order, its map, for each place, the
    label or the pixels there. Linear, so that the answers are in what the network gives. Only the
    network is kept.

    Attributes:
        speeds: how many there are to choose from.
        cell: side of a place in pixels.
    """

    speeds: int
    cell: int

    @nn.compact
    def __call__(self, features, maps):
        features = nn.LayerNorm()(features)
        return {
            'speed': nn.Dense(self.speeds)(features),
            'order': nn.Dense(len(ORDERS))(features),
            'labels': nn.Dense(CLASSES)(maps),
            'patches': nn.Dense(self.cell**2 * 3)(maps),
        }


class JudgeTask(Task):
    """Of a clip at 17 frames a second a window of five is drawn: at one of the speeds
    config.loss.speeds (frames from one to the next), in order, backwards or shuffled. The loss is
    the sum of cross-entropies for speed, order and the labels of places (255 ignored), and of the
    squared error of places that were painted grey, a share config.loss.mask of all; each has its
    weight, and 0 turns it off. [O]
    """

    kind = 'judge'
    starts_from = None
    build = VideoNetwork

    def check(self, loaded):
        loss = self.config.loss
        if not any(loss[name] for name in TERMS):
            raise UserError(f'config.loss.{", ".join(TERMS)} are all 0: set one of them above 0')
        if loss.labels and not self.config.data.labels:
            raise UserError(
                'config.data.labels: expected True, for config.loss.labels is above 0; set one'
            )
        self.speeds = tuple(loss.speeds)
        if not self.speeds or min(self.speeds) < 1:
            raise UserError(f'config.loss.speeds = {self.speeds}: expected numbers from 1 on')
        if (needed := (FRAMES - 1) * max(self.speeds) + 1) > self.config.data.frames:
            raise UserError(
                f'config.data.frames = {self.config.data.frames}: {FRAMES} frames at speed '
                f'{max(self.speeds)} take {needed}'
            )
        self.cell = 2 ** max(len(self.net.widths) - 1, 1)
        if any(side % self.cell for side in self.config.data.size):
            raise UserError(
                f'config.data.size = {tuple(self.config.data.size)}: expected multiples of '
                f'{self.cell}'
            )
        self.questions = Questions(len(self.speeds), self.cell)

    def inputs(self):
        return (jnp.zeros((1, FRAMES, *self.config.data.size, 3)),)

    def init(self, key, batch=None):
        keys = jax.random.split(key)
        net = self.net.init(keys[0], *self.inputs())
        found = self.net.apply(net, *self.inputs())
        questions = self.questions.init(keys[1], *found)
        return {'params': {'net': net['params'], 'questions': questions['params']}}

    def loss(self, variables, frozen, batch, key, teacher=None):
        weights, params = self.config.loss, variables['params']
        keys = jax.vmap(lambda key: jax.random.split(key, 5))(clip_keys(key, batch))
        shown, speed, order = jax.vmap(self._window)(keys[:, :4])
        take = jax.vmap(lambda values, places: values[places])
        clips = scaled(take(batch['frames'], shown))
        masked = jax.vmap(self._mask)(keys[:, 4])
        shown_pixels = jnp.where(self._pixels(masked), 0.0, clips) if weights.patches else clips
        found = self.net.apply({'params': params['net']}, shown_pixels)
        answers = self.questions.apply({'params': params['questions']}, *found)
        losses, metrics = {}, {}
        for name, truth in (('speed', speed), ('order', order)):
            losses[name], metrics[f'{name}_accuracy'] = _entropy(answers[name], truth, truth >= 0)
        if weights.labels:
            middle = slice(self.cell // 2, None, self.cell)
            labels = take(batch['labels'][:, :, middle, middle], shown)
            losses['labels'], metrics['labels_accuracy'] = _entropy(
                answers['labels'], labels, labels != IGNORE
            )
        if weights.patches:
            error = jnp.square(answers['patches'] - self._patches(clips)).mean(-1)
            losses['patches'] = (error * masked).sum() / jnp.maximum(masked.sum(), 1)
        loss = sum(weights[name] * value for name, value in losses.items())
        return loss, (losses | metrics, {})

    def _window(self, keys):
        """(places of the five frames, number of the speed, number of the order) of a clip; four
        keys.
        """
        speed = jax.random.randint(keys[0], (), 0, len(self.speeds))
        order = jax.random.randint(keys[1], (), 0, len(ORDERS))
        step = jnp.array(self.speeds)[speed]
        spare = self.config.data.frames - (FRAMES - 1) * step
        first = jax.random.randint(keys[2], (), 0, spare)
        shuffled = jnp.array(SHUFFLES)[jax.random.randint(keys[3], (), 0, len(SHUFFLES))]
        forwards = jnp.arange(FRAMES)
        return first + step * jnp.stack([forwards, forwards[::-1], shuffled])[order], speed, order

    def _mask(self, key):
        """bool [T, h, w]: the places of a clip that are painted over, others in every frame, so
        that motion says what was there.
        """
        grid = [side // self.cell for side in self.config.data.size]
        return jax.random.uniform(key, (FRAMES, *grid)) < self.config.loss.mask

    def _pixels(self, masked):
        return masked.repeat(self.cell, 2).repeat(self.cell, 3)[..., None]

    def _patches(self, clips):
        """[B, T, H, W, 3] → the pixels of every place, [B, T, h, w, cell² · 3]."""
        return einops.rearrange(
            clips, 'b t (h p) (w q) c -> b t h w (p q c)', p=self.cell, q=self.cell
        )

    def part(self, variables, batches=None):
        return Judge(params={'params': variables['params']['net']}, net=self.net)


def _entropy(logits, truth, known):
    """(mean cross-entropy, share of right answers), of what is known."""
    count = jnp.maximum(known.sum(), 1)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(known, truth, 0).astype(jnp.int32)
    )
    right = (logits.argmax(-1) == truth) & known
    return (losses * known).sum() / count, right.sum() / count
