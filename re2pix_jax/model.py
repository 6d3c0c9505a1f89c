"""The figure of the method, in order: clip → features → forecast → latents → frames. The only place
where the stages meet.
"""

import functools
import os
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.data import video
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.generator import Generator
from re2pix_jax.generator.sampler import evaluations
from re2pix_jax.heads import Head
from re2pix_jax.nn.summary import summary
from re2pix_jax.report.future import Future
from re2pix_jax.vae import Autoencoder

SAMPLING = (
    *('guidance', 'guidance_channels', 'channels'),
    *('sampler', 'sampler_steps', 'sampler_grid', 'context_noise'),
)
"""Options of a roll-out that say how stage 2 draws."""
_STATIC = ('horizon', *SAMPLING)


@flax.struct.dataclass
class Re2Pix:
    """Both stages and the frozen networks between them; a pytree, so that it passes through jit as
    an argument.

    size: (H, W) of the frames in pixels; fps: frames per second of context and future (17 / 3:
        stride 3 at Cityscapes' rate [R]). sampler, sampler_steps, sampler_grid: how it draws where
        it is not told otherwise; chosen by `re2pix samplers`.
    """

    forecaster: Forecaster
    vae: Autoencoder
    generator: Generator
    head: Head | None = None
    size: tuple[int, int] = flax.struct.field(pytree_node=False, default=(256, 512))
    fps: float = flax.struct.field(pytree_node=False, default=17 / 3)
    sampler: str = flax.struct.field(pytree_node=False, default='euler')
    sampler_steps: int = flax.struct.field(pytree_node=False, default=20)
    sampler_grid: str = flax.struct.field(pytree_node=False, default='even')

    __repr__ = summary

    @property
    def context_frames(self) -> int:
        return self.generator.net.context_frames

    @functools.partial(jax.jit, static_argnames=_STATIC)
    def rollout(self, context, keys, horizon, **options):
        """`rollout_encoded` of contexts uint8 [B, M, H, W, 3], with its options."""
        latents = self.vae.encode(context)
        return self.rollout_encoded(
            self.forecaster.encode(context), latents, keys, horizon, **options
        )

    @functools.partial(jax.jit, static_argnames=_STATIC)
    def rollout_encoded(
        self,
        context_components,
        context_latents,
        keys,
        horizon,
        guidance=0.0,
        guidance_channels=8,
        channels=None,
        sampler=None,
        sampler_steps=None,
        sampler_grid=None,
        context_noise=0.0,
        future_components=None,
    ):
        """Predicts `horizon` frames after a batch of contexts, under one compiled program.

        Longer horizons than a chunk of F frames slide the window in latent and component space;
        nothing is decoded and encoded again between chunks [O]. The chunks are steps of one loop,
        so that neither compile time nor the memory of what is in work grows with the horizon.

        Args:
            context_components: [B, M, h, w, P]; context_latents: [B, M, H/f, W/f, c]: contexts as
                the encoder and the VAE see them.
            keys: typed PRNG keys [B], one per clip, so that a clip's future does not depend on its
                batch; or [B n] for n futures of each context, those of one context next to each
                other: a context is encoded, and its semantics forecast, only once.
            horizon: frames, at least 1; static.
            guidance, guidance_channels, channels: as in `Generator.sample`.
            sampler, sampler_steps, sampler_grid: its method, steps and grid; each the model's own
                where it is None.
            context_noise: how far from t = 1 a context's latents are noised where they are the
                model's own, in all chunks but the first; the generator is told [O]. No further than
                it was trained for.
            future_components: [B, horizon, h, w, P] that stage 2 is given; None for the forecast of
                stage 1.

        Returns:
            {'frames' uint8 [B n, horizon, H, W, 3], 'components' [B n, horizon, h, w, P], 'latents'
            [B n, horizon, H/f, W/f, c]}. Raises ValueError for a horizon or an option out of range,
            and keys that do not fit the contexts.
        """
        batch = context_components.shape[0]
        if horizon < 1:
            raise ValueError(f'horizon: expected at least 1, got {horizon}')
        if not keys.shape[0] or keys.shape[0] % batch:
            raise ValueError(
                f'keys: expected as many as contexts or a multiple, got {keys.shape[0]} for {batch}'
            )

        trained = self.generator.context_noise
        if not 0 <= context_noise <= trained:
            raise ValueError(
                f'context_noise is {context_noise:g}; this generator was trained for 0 to '
                f'{trained:g}' + ('' if trained else ': train one with loss.context_noise')
            )
        method, steps, grid = self.sampling(sampler, sampler_steps, sampler_grid)

        # Stage 1: what will be where.
        if future_components is None:
            future_components = self.forecaster.forecast(context_components, horizon)

        # Stage 2: what it looks like, chunk by chunk.
        net, futures = self.generator.net, keys.shape[0] // batch
        past, chunk = net.context_frames, net.future_frames
        chunks = -(-horizon // chunk)
        latents = jnp.repeat(context_latents[:, -past:], futures, axis=0)
        future_components = jnp.repeat(future_components, futures, axis=0)
        components = jnp.concatenate(
            [jnp.repeat(context_components[:, -past:], futures, axis=0), future_components], axis=1
        )
        components = _pad_time(components, past + chunks * chunk)

        def step(past_latents, number):
            window = jax.lax.dynamic_slice_in_dim(components, number * chunk, past + chunk, axis=1)
            noise_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number * chunk)
            own = jnp.arange(past) + number * chunk >= past
            future = self.generator.sample(
                past_latents,
                window[:, :past],
                window[:, past:],
                noise_keys,
                steps=steps,
                guidance=guidance,
                guidance_channels=guidance_channels,
                channels=channels,
                method=method,
                grid=grid,
                context_t=jnp.where(own, 1.0 - context_noise, 1.0) if context_noise else None,
            )
            return jnp.concatenate([past_latents, future], axis=1)[:, -past:], (
                future,
                self.vae.decode(future),
            )

        _, chunked = jax.lax.scan(step, latents, jnp.arange(chunks))
        latents, frames = (
            jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :horizon]
            for x in chunked
        )
        return {'frames': frames, 'components': future_components, 'latents': latents}

    def sampling(self, sampler=None, sampler_steps=None, sampler_grid=None) -> tuple:
        """(sampler, steps, grid), each the model's own where it is None."""
        asked = {'sampler': sampler, 'sampler_steps': sampler_steps, 'sampler_grid': sampler_grid}
        return tuple(
            getattr(self, name) if value is None else value for name, value in asked.items()
        )

    def evaluations(self, horizon, guidance=0.0, **sampling):
        """How often the generator's network denoises for one future of `horizon` frames, exactly;
        ValueError as in `rollout`. `sampling`: as of the method.
        """
        method, steps, _ = self.sampling(**sampling)
        chunks = -(-horizon // self.generator.net.future_frames)
        return chunks * evaluations(method, steps, guidance)

    def predict(
        self,
        clip: str | os.PathLike | np.ndarray | Sequence,
        horizon=8,
        seed=0,
        num_futures=None,
        start=0.0,
        **options,
    ) -> Future | list[Future]:
        """Predicts the frames that follow a clip.

        Args:
            clip: a video file or a folder of images, of which the M frames from `start` seconds on
                are the context; or frames [T, height, width, 3] of any size at `self.fps` frames
                per second, whose last M are, RGB as uint8, other whole numbers up to 255, or
                floats from 0 to 1. They are centre-cropped and resized to `self.size`. Or a list
                of such clips, predicted as one batch, each as it would be alone.
            num_futures: None for one future without a leading axis, n for n of distinct noise.
            options: as in `rollout_encoded`, from guidance to context_noise.

        Raises:
            UserError: a file that can't be read.
            ValueError: a clip shorter than the context, frames of another kind or too small, an
                option out of range.
        """
        several = isinstance(clip, Sequence) and not isinstance(clip, str)
        contexts = np.stack([self._context(one, start) for one in (clip if several else [clip])])
        count = 1 if num_futures is None else num_futures
        if count < 1:
            raise ValueError(f'num_futures: expected at least 1, got {count}')
        keys = jnp.tile(jax.random.split(jax.random.key(seed), count), len(contexts))
        out = self.rollout(contexts, keys, horizon, **options)
        # Stage 1 knows no chance: its features are the same in every future, and large.
        features = self.forecaster.features(out['components'][::count])
        futures = []
        for number, context in enumerate(contexts):
            of_clip = slice(number * count, (number + 1) * count)
            arrays = [np.asarray(out[name][of_clip]) for name in ('frames', 'components')]
            arrays.append(np.broadcast_to(features[number], (count, *features.shape[1:])))
            arrays.append(np.asarray(out['latents'][of_clip]))
            arrays = arrays if num_futures else [array[0] for array in arrays]
            futures.append(Future(*arrays, context=context, fps=self.fps))
        return futures if several else futures[0]

    def _context(self, clip, start):
        """The context uint8 [M, H, W, 3] of what `predict` takes."""
        frames = self.context_frames
        if isinstance(clip, str | os.PathLike):
            return video.read(clip, self.fps, start, frames, size=self.size, min_frames=frames)
        clip = video.whole_numbers(np.asarray(clip))
        if len(clip) < frames:
            raise ValueError(
                f'clip: {len(clip)} frames, but {frames} context frames are needed; give a longer '
                'clip'
            )
        return video.fit(clip[-frames:], self.size)

    @jax.jit
    def segment(self, frames):
        """Labels uint8 [B, T, H, W] (Cityscapes train ids) that the head gives frames uint8 [B, T,
        H, W, 3].

        The head is trained on features that went through the principal components, so it sees such
        features here too [R].
        """
        features = self.forecaster.features(self.forecaster.encode(frames))
        return self.head.labels(features, frames.shape[2:4])


def _pad_time(array, length):
    """Repeats the last step up to `length` steps: the last chunk may reach beyond the horizon."""
    missing = length - array.shape[1]
    return jnp.pad(array, [(0, 0), (0, max(missing, 0))] + [(0, 0)] * (array.ndim - 2), mode='edge')
