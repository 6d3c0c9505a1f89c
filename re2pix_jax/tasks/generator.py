"""Trains stage 2: latents of future frames, denoised under the guidance of forecast semantics."""

import jax
import jax.numpy as jnp

from re2pix_jax import errors
from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.generator import Generator, backbone, conditioning, flow, sampler
from re2pix_jax.model import Re2Pix
from re2pix_jax.tasks.task import Task, clip_keys

MIXED = ('slice', 'per_sample')


class GeneratorTask(Task):
    """Diffusion on future latents, by default rectified flow, with nested dropout and mixed
    supervision (the paper's strategies) [P].
    """

    kind = 're2pix'
    frozen_parts = ('forecaster', 'vae')
    carried_parts = ('head',)
    starts_from = 'generator'
    build = staticmethod(backbone.create)
    untold = ('heads', 'patch_size', 'head', 'groups')

    @property
    def untold_of_loss(self):
        return ('path', 'target') + (('schedule',) if self.diffusion.path == 'ddpm' else ())

    def check(self, loaded):
        settings, components = self.config.loss, self.net.components
        with errors.blaming('config.loss'):
            self.counts = (
                conditioning.nested_counts(settings.nested_counts, components) if components else ()
            )
            conditioning.mixed_places(self.config.batch_size, settings.predicted_fraction)
            self.diffusion = flow.Diffusion(settings.path, settings.target, settings.schedule)
            self.diffusion.check()
            flow.check_times(settings.times)
            sampler.find(settings.sampler)
            sampler.times(settings.sampler_steps, settings.get('sampler_grid', 'even'))
            self.context_noise = settings.get('context_noise', 0.0)
            if not 0 <= self.context_noise < 1:
                raise ValueError(f'context_noise is {self.context_noise}; it must lie in [0, 1)')
            self.nested_share = settings.get('nested_share', 1.0)
            if not 0 <= self.nested_share <= 1:
                raise ValueError(
                    f'nested_share is {self.nested_share}; it must lie between 0 and 1'
                )
        if settings.mixed not in MIXED:
            raise errors.UserError(
                f"config.loss.mixed: '{settings.mixed}' is unknown; choose one of "
                f'{", ".join(MIXED)}'
            )
        if 'head' in self.carried:
            self._check_head(self.carried['head'])

    def _check_head(self, head):
        name = f'config.frozen.head: {self.config.frozen.head}'
        channels = self.frozen['forecaster'].principal.components.shape[1]
        if head.reads != 'segmentation':
            raise errors.UserError(
                f'{name} reads {head.reads}; give a head that reads segmentation, or leave it empty'
            )
        if head.channels != channels:
            raise errors.UserError(
                f'{name} takes features of {head.channels} channels, the encoder of '
                f'config.frozen.forecaster gives {channels}; give a head for that encoder, or '
                'leave it empty'
            )

    def inputs(self):
        return self.net.example()

    def load(self, name):
        """A generator without features serves one with them as well: their embedding starts at
        zero, so that at first the two compute the same. [O]
        """
        loaded = self.start(name)
        if loaded.net.components or not self.net.components:
            return loaded.params
        new = {'fusion': self.shapes['params']['fusion']}
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), new)
        return {**loaded.params, 'params': {**loaded.params['params'], **zeros}}

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

    def loss(self, variables, frozen, batch, key, teacher=None):
        (context, target), (context_components, future_components) = self._conditions(frozen, batch)
        settings = self.config.loss
        # By the clip: however the batch is cut, each has the same noise.
        nested_keys, time_keys, noise_keys, mixed_keys = jax.vmap(
            lambda key: jax.random.split(key, 4), out_axes=1
        )(clip_keys(key, batch))
        if self.net.components:
            future_components = conditioning.mixed_supervision(
                lambda context: frozen['forecaster'].forecast(context, self.net.future_frames),
                context_components,
                future_components,
                settings.predicted_fraction,
                batch.get('place'),
                self.config.batch_size,
                mixed_keys if settings.mixed == 'per_sample' else None,
            )
            if settings.nested_dropout:
                components = jnp.concatenate([context_components, future_components], axis=1)
                kept = jax.vmap(
                    lambda key, x: conditioning.nested_dropout(key, x[None], self.counts)[0]
                )(nested_keys, components)
                if self.nested_share < 1:
                    undropped = batch['step'] >= round(self.nested_share * self.config.steps)
                    kept = jnp.where(undropped.reshape(-1, 1, 1, 1, 1), components, kept)
                context_components, future_components = self._split(kept)
        t = jax.vmap(
            lambda key: flow.sample_time(
                key, (), settings.time_mean, settings.time_std, settings.times
            )
        )(time_keys)
        noise = jax.vmap(lambda key: jax.random.normal(key, target.shape[1:]))(noise_keys)
        noisy = flow.interpolate(target, noise, t, self.diffusion)
        context_t = None
        if self.context_noise:
            draw = lambda key: conditioning.context_times(
                jax.random.fold_in(key, 2), self.net.context_frames, self.context_noise
            )
            context_t = jax.vmap(draw)(noise_keys)
            context = conditioning.noised(noise_keys, context, context_t, self.diffusion)
        prediction = self.net.apply(
            variables,
            context,
            noisy,
            t,
            context_components,
            future_components,
            context_t=context_t,
        )
        loss = flow.loss(prediction, target, noise, noisy, t, self.diffusion)
        x = flow.ends(
            flow.velocity(prediction, noisy, t, self.diffusion), noisy, t, self.diffusion
        )[0]
        return loss, ({'x_mse': jnp.square(x - target).mean()}, {})

    def part(self, variables, batches=None) -> Re2Pix:
        """The whole model, both stages and the networks between them; with a head where
        config.frozen names one.
        """
        data, settings = self.config.data, self.config.loss
        return Re2Pix(
            forecaster=self.frozen['forecaster'],
            vae=self.frozen['vae'],
            generator=Generator(
                params=variables,
                net=self.net,
                context_noise=self.context_noise,
                **self.diffusion._asdict(),
            ),
            head=self.carried.get('head'),
            size=tuple(data.size),
            fps=BASE_FPS / data.strides[len(data.strides) // 2],
            sampler=settings.sampler,
            sampler_steps=settings.sampler_steps,
            sampler_grid=settings.get('sampler_grid', 'even'),
        )
