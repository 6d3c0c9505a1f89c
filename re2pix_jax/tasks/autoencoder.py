"""Trains the VAE: pixels to latents and back."""

import einops
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.tasks.task import Task, clip_keys
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import AutoencoderKL


class AutoencoderTask(Task):
    """Reconstruction by L1 and squared error with a light KL term (config.loss.l2, config.loss.kl)
    [O].

    Stable Diffusion's VAE adds LPIPS and an adversary [R]; neither is possible without downloaded
    weights, so ours is smoother.
    """

    kind = 'vae'
    measured = True
    build = AutoencoderKL

    def inputs(self):
        return (jnp.zeros((1, *self.config.data.size, 3)),)

    def loss(self, variables, frozen, batch, key, teacher=None):
        images = _images(batch)
        mean, logvar = self.net.apply(variables, images, method='encode')
        of_clip = (images.shape[0] // batch['frames'].shape[0], *mean.shape[1:])
        noise = jax.vmap(lambda key: jax.random.normal(key, of_clip))(clip_keys(key, batch))
        latents = mean + jnp.exp(0.5 * logvar) * noise.reshape(mean.shape)
        error = self.net.apply(variables, latents, method='decode') - images
        l1, l2 = jnp.abs(error).mean(), jnp.square(error).mean()
        kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
        loss = l1 + self.config.loss.l2 * l2 + self.config.loss.kl * kl
        return loss, ({'l1': l1, 'kl': kl, 'psnr': 10 * jnp.log10(4.0 / l2)}, {})

    def part(self, variables, batches=None):
        """The shift and scale that bring latents to mean 0 and deviation 1 are measured on
        `batches`; without them they are 0 and 1, with which frames are rendered just so.
        """
        shift, scale = (0.0, 1.0) if batches is None else self._moments(variables, batches)
        return Autoencoder(params=variables, net=self.net, scaling_factor=scale, shift_factor=shift)

    def _moments(self, variables, batches):
        encode = jax.jit(lambda variables, x: self.net.apply(variables, x, method='encode')[0])
        means, squares = [], []
        for batch in batches:
            frames = batch['frames'][batch['known']]  # what could not be read is no picture
            if not len(frames):
                continue
            images = _images({'frames': frames})
            latents = np.asarray(encode(variables, images), np.float64)
            means.append(latents.mean())
            squares.append(np.square(latents).mean())
        shift = float(np.mean(means))
        return shift, float(1.0 / np.sqrt(np.mean(squares) - shift**2))


def _images(batch):
    """uint8 [B, T, H, W, 3] → float [B·T, H, W, 3] in [-1, 1]."""
    return (
        einops.rearrange(batch['frames'], 'b t h w c -> (b t) h w c').astype(jnp.float32) / 127.5
        - 1.0
    )
