"""Trains a small encoder where no published one fits: self-distillation, dense supervision from the
driving world, or both.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from re2pix_jax.cityscapes import CLASSES, IGNORE
from re2pix_jax.encoder import Encoder, normalise
from re2pix_jax.encoder.vit import VisionTransformer
from re2pix_jax.errors import UserError
from re2pix_jax.tasks.task import Task, clip_keys


class PrototypeProjector(nn.Module):
    """Scores of tokens [..., C] against prototypes on the unit sphere: the projection head of DINO
    and iBOT [R].
    """

    prototypes: int
    hidden: int = 256
    bottleneck: int = 64

    @nn.compact
    def __call__(self, tokens):
        x = nn.gelu(nn.Dense(self.hidden)(tokens))
        x = nn.Dense(self.bottleneck)(x)
        x = x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-6)
        table = self.param(
            'prototypes', nn.initializers.normal(1.0), (self.bottleneck, self.prototypes)
        )
        return x @ (table / jnp.linalg.norm(table, axis=0, keepdims=True))


class DenseDecoder(nn.Module):
    """One linear map from a patch's features to class logits and log-depth on `cells` × `cells`
    points of the patch [O].
    """

    cells: int

    @nn.compact
    def __call__(self, features):
        x = nn.Dense(self.cells**2 * (CLASSES + 1))(features)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height, width, self.cells, self.cells, CLASSES + 1).swapaxes(2, 3)
        x = x.reshape(batch, height * self.cells, width * self.cells, CLASSES + 1)
        return x[..., :CLASSES], x[..., CLASSES]


class EncoderTask(Task):
    """Self-distillation (config.loss.distill): a student that sees masked patches matches prototype
    assignments of its own moving average on the whole image, as iBOT and DINOv2 do, balanced by
    Sinkhorn-Knopp [R]. Dense supervision (config.loss.dense): labels and depth of the world by a
    linear map of the very features that the method uses [O]. Only the encoder is saved.
    """

    kind = 'encoder'
    starts_from = None
    build = VisionTransformer

    def check(self, loaded):
        loss = self.config.loss
        if loss.cells < 1 or self.net.patch_size % loss.cells:
            raise UserError(
                f'config.loss.cells: expected a divisor of the patch size {self.net.patch_size}, '
                f'got {loss.cells}'
            )
        if not (loss.dense or loss.distill):
            raise UserError(
                'config.loss.dense and config.loss.distill are both 0: set one of them above 0'
            )
        self.projector = PrototypeProjector(loss.prototypes)
        self.decoder = DenseDecoder(loss.cells)

    def depth_kind(self):
        return 'metres' if self.config.loss.dense and self.config.loss.depth else ''

    def inputs(self):
        images = jnp.zeros((1, *self.config.data.size, 3))
        return images, jnp.zeros((1, *self._grid(images)), bool)

    def init(self, key, batch=None):
        images, mask = self.inputs()
        keys = jax.random.split(key, 3)
        net = self.net.init(keys[0], images, mask, method='tokens')
        features = self.net.apply(net, images)
        inits = {
            'net': net,
            'projector': self.projector.init(keys[1], features[..., : self.net.width]),
            'decoder': self.decoder.init(keys[2], features),
        }
        return {'params': {name: variables['params'] for name, variables in inits.items()}}

    def _grid(self, images):
        return images.shape[1] // self.net.patch_size, images.shape[2] // self.net.patch_size

    def loss(self, variables, frozen, batch, key, teacher=None):
        clips = normalise(batch['frames'])
        images = clips.reshape(-1, *clips.shape[2:])
        mask_keys, colour_keys = jax.vmap(jax.random.split, out_axes=1)(clip_keys(key, batch))
        jitter = lambda key, images: _jitter_colours(key, images, self.config.loss.jitter)
        student_images = jax.vmap(jitter)(colour_keys, clips).reshape(images.shape)
        params, loss, metrics = variables['params'], 0.0, {}
        if self.config.loss.dense:
            metrics |= self._dense(params, student_images, batch)
            loss += self.config.loss.dense * (
                metrics['cross_entropy'] + self.config.loss.depth * metrics['log_depth']
            )
        if self.config.loss.distill:
            grid, ratio = self._grid(images), self.config.loss.mask
            blocks = lambda key: random_blocks(key, clips.shape[1], grid, ratio)
            mask = jax.vmap(blocks)(mask_keys).reshape(-1, *grid)
            metrics['distillation'] = self._distillation(
                params, teacher['params'], student_images, images, mask
            )
            loss += self.config.loss.distill * metrics['distillation']
        return loss, (metrics, {})

    def _dense(self, params, images, batch):
        """Labels and depth are read on the decoder's own points: the centre pixel of each cell."""
        logits, log_depth = self.decoder.apply(
            {'params': params['decoder']}, self.net.apply({'params': params['net']}, images)
        )
        step = images.shape[1] // logits.shape[1]
        labels, depth = (
            batch[name].reshape(-1, *images.shape[1:3])[:, step // 2 :: step, step // 2 :: step]
            for name in ('labels', 'depth')
        )
        known = labels != IGNORE
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(known, labels, 0).astype(jnp.int32)
        )
        weights = known * class_weights(labels, self.config.loss.balance)
        measured = depth > 0
        depth_error = jnp.abs(log_depth - jnp.log(jnp.where(measured, depth, 1.0)))
        return {
            'cross_entropy': (losses * weights).sum() / jnp.maximum(weights.sum(), 1e-6),
            'log_depth': (depth_error * measured).sum() / jnp.maximum(measured.sum(), 1),
            'accuracy': ((logits.argmax(-1) == labels) & known).sum() / jnp.maximum(known.sum(), 1),
        }

    def _distillation(self, params, teacher, student_images, images, mask):
        student_cls, student = self.net.apply(
            {'params': params['net']}, student_images, mask, method='tokens'
        )
        teacher_cls, target = self.net.apply({'params': teacher['net']}, images, method='tokens')
        scores = self.projector.apply({'params': params['projector']}, _join(student_cls, student))
        targets = self.projector.apply({'params': teacher['projector']}, _join(teacher_cls, target))
        targets = jax.lax.stop_gradient(
            sinkhorn(targets.reshape(-1, targets.shape[-1]) / self.config.loss.teacher_temperature)
        )
        losses = optax.softmax_cross_entropy(
            scores / self.config.loss.student_temperature, targets.reshape(scores.shape)
        )
        mask = mask.reshape(mask.shape[0], -1)
        return (losses[:, 1:] * mask).sum() / jnp.maximum(mask.sum(), 1) + losses[:, 0].mean()

    def part(self, variables, batches=None):
        return Encoder(params={'params': variables['params']['net']}, net=self.net)


def _join(cls, patches):
    """Tokens [B, 1 + h·w, D]: the image's, then the patches'."""
    return jnp.concatenate(
        [cls[:, None], patches.reshape(patches.shape[0], -1, patches.shape[-1])], axis=1
    )


def _jitter_colours(key, images, strength):
    """Scales and shifts every image's channels by up to `strength` deviations: light that the
    features should not follow [O].
    """
    scale_key, shift_key = jax.random.split(key)
    shape = (images.shape[0], 1, 1, images.shape[-1])
    scale = 1.0 + strength * jax.random.uniform(scale_key, shape, minval=-1.0)
    return images * scale + strength * jax.random.uniform(shift_key, shape, minval=-1.0)


def class_weights(labels, balance):
    """Weight of every pixel, (1 / share of its class in the batch) ** balance: 0 treats pixels
    alike, 1 treats classes alike [O].

    A pole is a hundredth of the pixels of a road and just as much worth seeing.
    """
    share = jnp.stack([(labels == index).mean() for index in range(CLASSES)])
    return (jnp.maximum(share, 1e-4) ** -balance)[
        jnp.where(labels == IGNORE, 0, labels).astype(jnp.int32)
    ]


def random_blocks(key, batch, grid, ratio):
    """Masks bool [batch, h, w]: one rectangle per image that covers about `ratio` of the grid,
    anywhere [O].
    """
    height, width = grid
    size_key, row_key, column_key = jax.random.split(key, 3)
    stretch = jnp.exp(jax.random.uniform(size_key, (batch, 1), minval=-0.5, maxval=0.5))
    rows = jnp.clip(jnp.round(height * ratio**0.5 * stretch), 1, height)
    columns = jnp.clip(jnp.round(width * ratio**0.5 / stretch), 1, width)
    top = jnp.floor(jax.random.uniform(row_key, (batch, 1)) * (height - rows + 1))
    left = jnp.floor(jax.random.uniform(column_key, (batch, 1)) * (width - columns + 1))
    y, x = jnp.arange(height), jnp.arange(width)
    inside_y = (y >= top) & (y < top + rows)
    inside_x = (x >= left) & (x < left + columns)
    return inside_y[:, :, None] & inside_x[:, None, :]


def sinkhorn(scores, iterations=3):
    """Assignments [N, K] of N tokens to K prototypes, each row a distribution, each prototype used
    equally (Caron et al. 2020) [R].
    """
    scores = jnp.exp(scores - scores.max())
    for _ in range(iterations):
        scores = scores / (scores.sum(axis=0, keepdims=True) + 1e-9)
        scores = scores / (scores.sum(axis=1, keepdims=True) + 1e-9)
    return scores
