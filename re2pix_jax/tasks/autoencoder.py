"""Trains the VAE: pixels to latents and back."""

import einops
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.encoder import standardise
from re2pix_jax.errors import UserError
from re2pix_jax.tasks.task import Task, clip_keys
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import DECODER, AutoencoderKL
from re2pix_jax.vae.discriminator import PatchDiscriminator


class AutoencoderTask(Task):
    """Reconstruction by L1 and squared error with a light KL term (config.loss.l2, config.loss.kl)
    [O]; with config.frozen.encoder, by the features of that encoder too (config.loss.features), in
    the place of Stable Diffusion's LPIPS [O]; and with config.loss.adversary, against a
    discriminator, by the hinge loss [R].

    The discriminator learns from the first step on; from step config.loss.adversary_start its
    gradient pulls at each image config.loss.adversary times as strongly as the other terms do. So
    its weight is adaptive as in VQGAN [R], but by image and not by the last layer's kernel: how a
    batch is cut does not change it [O]. Gradients do not pass between the two: one optimiser serves
    both. The bundle has no discriminator.

    With config.frozen.vae only the decoder is trained: latents stay those of that bundle, bit for
    bit, and what was trained on them still fits [O].
    """

    kind = 'vae'
    measured = True
    build = AutoencoderKL
    untold = ('norm_groups',)

    @property
    def frozen_parts(self):
        return tuple(name for name in ('encoder', 'vae') if self.config.frozen.get(name))

    def check(self, loaded):
        self.adversary = self.config.loss.get('adversary', 0.0)
        if self.adversary < 0:
            raise UserError(f'config.loss.adversary is {self.adversary}: at least 0 expected')
        if self.adversary:
            self.discriminator = PatchDiscriminator(
                tuple(self.config.loss.discriminator), self.config.dtype
            )
        if 'vae' in self.frozen and self.frozen['vae'].net != self.net:
            raise UserError(
                f'config.model: expected the sizes of config.frozen.vae, {self.config.frozen.vae}, '
                'whose latents are to be kept; set them, or leave that empty'
            )

    def inputs(self):
        return (jnp.zeros((1, *self.config.data.size, 3)),)

    def init(self, key, batch=None):
        return self._with_adversary(self._trained(self.net.init(key, *self.inputs())), key)

    def load(self, name):
        """Those of the VAE; bundles have no discriminator, it starts from random ones."""
        return self._with_adversary(
            self._trained(super().load(name)), jax.random.key(self.config.seed)
        )

    def _trained(self, variables):
        """Without what config.frozen.vae holds."""
        kept = DECODER if self.config.frozen.get('vae') else variables['params']
        return {'params': {k: v for k, v in variables['params'].items() if k in kept}}

    def _with_adversary(self, variables, key):
        if not self.adversary:
            return variables
        adversary = self.discriminator.init(jax.random.fold_in(key, 1), *self.inputs())
        return {'params': {**variables['params'], 'discriminator': adversary['params']}}

    def loss(self, variables, frozen, batch, key, teacher=None):
        images = _images(batch)
        encoding = frozen['vae'].params if 'vae' in frozen else variables
        mean, logvar = self.net.apply(encoding, images, method='encode')
        of_clip = (images.shape[0] // batch['frames'].shape[0], *mean.shape[1:])
        noise = jax.vmap(lambda key: jax.random.normal(key, of_clip))(clip_keys(key, batch))
        latents = mean + jnp.exp(0.5 * logvar) * noise.reshape(mean.shape)
        decoded = self.net.apply(variables, latents, method='decode')
        kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
        # The gradient at the decoded images, of every term: their strengths are compared there.
        found = jax.lax.stop_gradient(decoded)
        (loss, metrics), pull = jax.value_and_grad(self._error, has_aux=True)(
            found, images, frozen.get('encoder')
        )
        if self.adversary:
            judge = lambda images: self.discriminator.apply(
                {'params': variables['params']['discriminator']}, images
            )
            push = jax.grad(lambda images: -judge(images).mean())(found)
            begun = batch['step'][0] >= self.config.loss.adversary_start
            strength = self.adversary * begun * _length(pull) / (_length(push) + 1e-12)
            pull += jax.lax.stop_gradient(strength * push)
            real, false = judge(images), judge(found)
            hinge = 0.5 * (jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + false)).mean()
            metrics |= {'hinge': hinge, 'told': 0.5 * ((real > 0).mean() + (false < 0).mean())}
            loss += hinge
        loss += self.config.loss.kl * kl + (pull * (decoded - found)).sum()  # the sum is 0
        return loss, ({**metrics, 'kl': kl}, {})

    def _error(self, found, images, encoder):
        """(loss, metrics) of images against the true ones."""
        l1, l2 = jnp.abs(found - images).mean(), jnp.square(found - images).mean()
        loss, metrics = l1 + self.config.loss.l2 * l2, {'l1': l1, 'psnr': 10 * jnp.log10(4.0 / l2)}
        if encoder is not None:
            one, other = (_directions(encoder, x) for x in (found, images))
            metrics['features'] = jnp.square(one - other).sum(-1).mean()
            loss += self.config.loss.features * metrics['features']
        return loss, metrics

    def part(self, variables, batches=None):
        """The shift and scale that bring each channel of the latents to mean 0 and deviation 1 are
        measured on `batches`; without them they are 0 and 1, with which frames are rendered just
        so. With config.frozen.vae, they are its own.
        """
        params = {k: v for k, v in variables['params'].items() if k != 'discriminator'}
        if (kept := self.frozen.get('vae')) is not None:
            return kept.replace(params={'params': {**kept.params['params'], **params}})
        part = Autoencoder(params={'params': params}, net=self.net)
        if batches is None:
            return part
        shift, scale = _moments(part, batches)
        return part.replace(scaling_factor=scale, shift_factor=shift)


def _moments(part, batches):
    """(mean, 1 / deviation) of each channel of the unscaled latents."""
    means, squares = [], []
    for batch in batches:
        frames = batch['frames'][
            batch.get('known', slice(None))
        ]  # what could not be read is no picture
        if not len(frames):
            continue
        latents = np.asarray(part.moments(frames)[0], np.float64)
        means.append(latents.mean((0, 1, 2, 3)))
        squares.append(np.square(latents).mean((0, 1, 2, 3)))
    shift = np.mean(means, axis=0)
    deviation = np.sqrt(np.mean(squares, axis=0) - np.square(shift))
    return tuple(shift.tolist()), tuple((1.0 / deviation).tolist())


def _images(batch):
    """uint8 [B, T, H, W, 3] → float [B·T, H, W, 3] in [-1, 1]."""
    return (
        einops.rearrange(batch['frames'], 'b t h w c -> (b t) h w c').astype(jnp.float32) / 127.5
        - 1.0
    )


def _directions(encoder, images):
    """Features [B, h, w, layers, C] of images in [-1, 1], of unit length in each layer."""
    features = encoder.net.apply(encoder.params, standardise((images + 1.0) / 2.0))
    features = features.reshape(*features.shape[:3], len(encoder.net.layers), -1)
    return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-6)


def _length(gradient):
    """Of that at each image: [B, 1, 1, 1]."""
    return jnp.sqrt(jnp.square(gradient).sum((1, 2, 3), keepdims=True))
