"""What every network of the generator offers, so that the task, the sampler and bundles need not
know which one it is.
"""

import flax.linen as nn
import jax.numpy as jnp

from re2pix_jax.nn.dense import in_compute_dtype


class Backbone(nn.Module):
    """Base of the networks; all predict the same thing from the same inputs.

    A subclass has the fields latent_channels, latent_grid, components, context_frames,
    future_frames, dtype and remat, and

        context(latents [B, M, H, W, c], components [B, M, h, w, P], t [B, M]) -> cache
        denoise(cache, latents [B, F, H, W, c], t [B], components [B, F, h, w, P]) -> prediction,
        float32 [B, F, H, W, c]

    The context never sees the future, so its cache is computed once and serves every sampler step
    [O]. What the cache holds is the network's own affair. The context's t is None where it is
    clean, as it is but for `conditioning.noised`. Components are None where `components` is 0: the
    baseline, which ignores any it is given.
    """

    def __call__(
        self,
        context_latents,
        noisy_latents,
        t,
        context_components=None,
        future_components=None,
        context_t=None,
    ):
        """Both streams, as in training: `denoise` on the `context` of the same sample."""
        cache = self.context(context_latents, context_components, context_t)
        return self.denoise(cache, noisy_latents, t, future_components)

    @nn.nowrap
    def for_sampling(self, params):
        """The parameters as a loop of many evaluations reads them fastest; what they compute is the
        same.
        """
        return in_compute_dtype(params, self.dtype)

    @property
    def token_grid(self):
        """(rows, columns) at which latents and components meet."""
        return tuple(self.latent_grid)

    def example(self, batch=1):
        """Zeros of the shapes and order that `__call__` takes, for `init`."""
        frames = self.context_frames, self.future_frames
        latents = [
            jnp.zeros((batch, count, *self.latent_grid, self.latent_channels)) for count in frames
        ]
        if not self.components:
            return *latents, jnp.zeros(batch), None, None
        components = [
            jnp.zeros((batch, count, *self.token_grid, self.components)) for count in frames
        ]
        return *latents, jnp.zeros(batch), *components

    def check_latents(self, latents, frames, name):
        """ValueError unless latents are [B, frames, *latent_grid, latent_channels]."""
        expected = (frames, *self.latent_grid, self.latent_channels)
        if latents.ndim != 5 or latents.shape[1:] != expected:
            raise ValueError(
                f'the generator expected {name} latents [B, T, H, W, c] of shape (B, '
                f'{", ".join(map(str, expected))}), got {latents.shape}; match frames and '
                'resolution to the model'
            )
