"""Trains stage 2: latents of future frames, denoised under the guidance of forecast semantics."""

import jax
import jax.numpy as jnp

from re2pix_jax import bundles, errors
from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.generator import Generator, backbone, conditioning, flow
from re2pix_jax.model import Re2Pix
from re2pix_jax.tasks.task import Task

MIXED = ('slice', 'per_sample')


class GeneratorTask(Task):
    """Diffusion on future latents, by default rectified flow, with nested dropout and mixed
    supervision (the paper's strategies) [P].
    """

    frozen_parts = ('forecaster', 'vae')

    def __init__(self, config):
        super().__init__(config)
        self.net = backbone.create(**self.network_fields())
        settings = config.loss
        self.counts = (
            conditioning.nested_counts(settings.nested_counts, self.net.components)
            if self.net.components
            else ()
        )
        if settings.mixed not in MIXED:
            raise errors.UserError(
                f"config.loss.mixed: '{settings.mixed}' is unknown; choose one of "
                f'{", ".join(MIXED)}'
            )
        self.diffusion = flow.Diffusion(settings.path, settings.target, settings.schedule)
        self.diffusion.check()

    def init(self, key, batch):
        net = self.net
        latents = jnp.zeros(
            (1, net.context_frames + net.future_frames, *net.latent_grid, net.latent_channels)
        )
        grid = self.frozen['forecaster'].net.grid
        components = (
            jnp.zeros((1, latents.shape[1], *grid, net.components)) if net.components else None
        )
        context, future = self._split(latents), self._split(components)
        return net.init(key, context[0], context[1], jnp.zeros((1,)), future[0], future[1])

    def load_params(self, name):
        part = bundles.load(name, ('re2pix', 'generator'))
        return getattr(part, 'generator', part).params

    def _split(self, array):
        if array is None:
            return None, None
        return array[:, : self.net.context_frames], array[:, self.net.context_frames :]

    def _conditions(self, frozen, batch):
        """Latents, and the components of the true frames (None for the baseline without features),
        split in context and future.
        """
        if 'latents' in batch:  # encoded clips
            latents, components = (
                batch[name].astype(jnp.float32) for name in ('latents', 'components')
            )
        else:
            latents = frozen['vae'].encode(batch['frames'])
            components = (
                frozen['forecaster'].encode(batch['frames']) if self.net.components else None
            )
        return self._split(latents), self._split(components if self.net.components else None)

    def loss(self, params, frozen, batch, key):
        latents, (context_components, future_components) = self._conditions(frozen, batch)
        nested_key, time_key, noise_key, mixed_key = jax.random.split(key, 4)
        settings = self.config.loss
        if self.net.components:
            future_components = conditioning.mixed_supervision(
                lambda context: frozen['forecaster'].forecast(context, self.net.future_frames),
                context_components,
                future_components,
                settings.predicted_fraction,
                mixed_key if settings.mixed == 'per_sample' else None,
            )
            if settings.nested_dropout:
                context_components, future_components = self._split(
                    conditioning.nested_dropout(
                        nested_key,
                        jnp.concatenate([context_components, future_components], axis=1),
                        self.counts,
                    )
                )
        context, target = latents
        t = flow.sample_time(
            time_key, (target.shape[0],), settings.time_mean, settings.time_std, settings.times
        )
        noise = jax.random.normal(noise_key, target.shape)
        noisy = flow.interpolate(target, noise, t, self.diffusion)
        prediction = self.net.apply(
            params, context, noisy, t, context_components, future_components
        )
        loss = flow.loss(prediction, target, noise, noisy, t, self.diffusion)
        x = flow.ends(
            flow.velocity(prediction, noisy, t, self.diffusion), noisy, t, self.diffusion
        )[0]
        return loss, {'x_mse': jnp.square(x - target).mean()}

    def _generator(self, params):
        return Generator(params=params, net=self.net, **self.diffusion._asdict())

    def measure(self, params, frozen, batch, keys):
        """Error of sampled latents under stage 1's own forecast, beside that of repeating the last
        context frame.
        """
        (context, target), (context_components, _) = self._conditions(frozen, batch)
        future_components = None
        if self.net.components:
            future_components = frozen['forecaster'].forecast(
                context_components, self.net.future_frames
            )
        sample = self._generator(params).sample(
            context,
            context_components,
            future_components,
            keys,
            steps=self.config.loss.sampler_steps,
            method=self.config.loss.sampler,
        )
        mean = lambda error: jnp.square(error).mean(axis=(1, 2, 3, 4))
        return {
            'latent_mse': mean(sample - target),
            'copy_last_mse': mean(context[:, -1:] - target),
        }

    def whole(self, params) -> Re2Pix:
        """The whole model, both stages and the networks between them; with a head where
        config.frozen names one.
        """
        data = self.config.data
        return Re2Pix(
            forecaster=self.frozen['forecaster'],
            vae=self.frozen['vae'],
            generator=self._generator(params),
            head=bundles.load(self.config.frozen.head, 'head')
            if self.config.frozen.get('head')
            else None,
            size=tuple(data.size),
            fps=BASE_FPS / data.strides[len(data.strides) // 2],
            sampler_steps=self.config.loss.sampler_steps,
        )

    def save(self, params, path, batches, **saving):
        """Writes the whole model."""
        bundles.save(path, self.whole(params), **saving)
