"""Trains the VAE: pixels to latents and back."""

import einops
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax import bundles
from re2pix_jax.tasks.task import Task
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import AutoencoderKL


class AutoencoderTask(Task):
    """Reconstruction by L1 and squared error with a light KL term (config.loss.l2, config.loss.kl)
    [O].

    Stable Diffusion's VAE adds LPIPS and an adversary [R]; neither is possible without downloaded
    weights, so ours is smoother.
    """

    kind = 'vae'

    def __init__(self, config):
        super().__init__(config)
        self.net = AutoencoderKL(**self.network_fields())

    def init(self, key, batch):
        return self.net.init(key, _images(batch)[:1])

    def loss(self, params, frozen, batch, key):
        images = _images(batch)
        mean, logvar = self.net.apply(params, images, method='encode')
        latents = mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape)
        error = self.net.apply(params, latents, method='decode') - images
        l1, l2 = jnp.abs(error).mean(), jnp.square(error).mean()
        kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
        loss = l1 + self.config.loss.l2 * l2 + self.config.loss.kl * kl
        return loss, {'l1': l1, 'kl': kl, 'psnr': 10 * jnp.log10(4.0 / l2)}

    def measure(self, params, frozen, batch, keys):
        images = _images(batch)
        mean, _ = self.net.apply(params, images, method='encode')
        error = jnp.clip(self.net.apply(params, mean, method='decode'), -1.0, 1.0) - images
        mse = jnp.square(error).mean(axis=(1, 2, 3)).reshape(len(keys), -1)
        return {
            'psnr': (10 * jnp.log10(4.0 / jnp.maximum(mse, 1e-10))).mean(axis=1),
            'mse': mse.mean(axis=1),
        }

    def save(self, params, path, batches, **saving):
        """Writes the bundle; the shift and scale that bring latents to mean 0 and deviation 1 are
        measured on `batches`.
        """
        encode = jax.jit(lambda params, images: self.net.apply(params, images, method='encode')[0])
        means, squares = [], []
        for batch in batches:
            latents = np.asarray(encode(params, _images(batch)), np.float64)
            means.append(latents.mean())
            squares.append(np.square(latents).mean())
        shift = float(np.mean(means))
        scale = float(1.0 / np.sqrt(np.mean(squares) - shift**2))
        bundles.save(
            path,
            Autoencoder(params=params, net=self.net, scaling_factor=scale, shift_factor=shift),
            **saving,
        )


def _images(batch):
    """uint8 [B, T, H, W, 3] → float [B·T, H, W, 3] in [-1, 1]."""
    return (
        einops.rearrange(batch['frames'], 'b t h w c -> (b t) h w c').astype(jnp.float32) / 127.5
        - 1.0
    )
