"""The figure of the method, in order: clip → features → forecast → latents → frames. The only place
where the stages meet.
"""

import functools
import numbers
import os
import time
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.data import video, windows
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.generator import Generator
from re2pix_jax.generator.sampler import evaluations, times
from re2pix_jax.heads import Head
from re2pix_jax.nn.summary import origin, remember, summary
from re2pix_jax.report.future import Future
from re2pix_jax.vae import Autoencoder

SAMPLING = (
    *('guidance', 'guidance_channels', 'channels'),
    *('sampler', 'sampler_steps', 'sampler_grid', 'context_noise'),
)
"""Options of a roll-out that say how stage 2 draws."""


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

    def rollout(self, context, keys, horizon, **options):
        """`rollout_encoded` of contexts uint8 [B, M, H, W, 3], with its options."""
        components, latents = self.forecaster.encode(context), self.vae.encode(context)
        return self.rollout_encoded(components, latents, keys, horizon, **options)

    def rollout_encoded(
        self,
        context_components,
        context_latents,
        keys,
        horizon,
        future_components=None,
        **drawing,
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
            future_components: [B, horizon, h, w, P] that stage 2 is given; None for the forecast of
                stage 1.
            drawing: how stage 2 draws, as of `drawing`.

        Returns:
            {'frames' uint8 [B n, horizon, H, W, 3], 'components' [B n, horizon, h, w, P], 'latents'
            [B n, horizon, H/f, W/f, c]}. Raises ValueError for a horizon or an option out of range,
            and keys that do not fit the contexts.
        """
        batch = context_components.shape[0]
        _whole('horizon', horizon, 1)
        if not keys.shape[0] or keys.shape[0] % batch:
            raise ValueError(
                f'keys: expected as many as contexts or a multiple, got {keys.shape[0]} for {batch}'
            )
        drawing, sampling = self.drawing(**drawing)
        context = context_components, context_latents
        return self._roll(*context, keys, future_components, drawing, sampling, horizon=horizon)

    def drawing(
        self,
        guidance=0.0,
        guidance_channels=8,
        channels=None,
        sampler=None,
        sampler_steps=None,
        sampler_grid=None,
        context_noise=0.0,
    ):
        """The options of a roll-out as its programs take them: (weights, noise), which are traced,
        and (method, steps, grid), which are compiled in. ValueError for one that is out of range.

        Args:
            guidance, guidance_channels, channels: as in `Generator.sample`.
            sampler, sampler_steps, sampler_grid: its method, steps and grid; each the model's own
                where it is None.
            context_noise: how far from t = 1 a context's latents are noised where they are the
                model's own, in all chunks but the first; the generator is told [O]. No further than
                it was trained for.
        """
        _whole('guidance_channels', guidance_channels, 0)
        if channels is not None:
            _whole('channels', channels, 1)
        trained = self.generator.context_noise
        if not 0 <= context_noise <= trained:
            told = f'up to {trained:g}' if trained else 'none: train one with loss.context_noise'
            raise ValueError(
                f'context_noise is {context_noise:g}; this generator was trained for {told}'
            )
        method, steps, grid = self.sampling(sampler, sampler_steps, sampler_grid)
        evaluations(method, steps)
        times(steps, grid)
        noise = float(context_noise) if context_noise else None
        weights = self.generator.weights(guidance, guidance_channels, channels)
        return (weights, noise), (method, steps, grid)

    @functools.partial(jax.jit, static_argnames=('sampling', 'horizon'))
    def _roll(self, components, latents, keys, future_components, drawing, sampling, horizon):
        # Stage 1: what will be where.
        if future_components is None:
            future_components = self.forecaster.forecast(components, horizon)

        # Stage 2: what it looks like, chunk by chunk.
        net, futures = self.generator.net, keys.shape[0] // components.shape[0]
        past, chunk = net.context_frames, net.future_frames
        chunks = -(-horizon // chunk)
        latents = jnp.repeat(latents[:, -past:], futures, axis=0)
        future_components = jnp.repeat(future_components, futures, axis=0)
        components = jnp.concatenate(
            [jnp.repeat(components[:, -past:], futures, axis=0), future_components], axis=1
        )
        components = _pad_time(components, past + chunks * chunk)

        def step(latents, start):
            window = jax.lax.dynamic_slice_in_dim(components, start, past + chunk, axis=1)
            return self._render(latents, window, keys, start, drawing, sampling)

        _, chunked = jax.lax.scan(step, latents, chunk * jnp.arange(chunks))
        latents, frames = (
            jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :horizon]
            for x in chunked
        )
        return {'frames': frames, 'components': future_components, 'latents': latents}

    def _render(self, latents, components, keys, start, drawing, sampling):
        """Stage 2 of the chunk that begins `start` frames after the context: latents [B, M, ...]
        before it and components [B, M + F, ...] → the latents before the next, and its (latents,
        frames).
        """
        past, (weights, noise) = self.generator.net.context_frames, drawing
        own = jnp.arange(past) + start >= past
        future = self.generator.draw(
            latents,
            components[:, :past],
            components[:, past:],
            jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, start),
            weights,
            None if noise is None else jnp.where(own, 1.0 - noise, 1.0),
            sampling=sampling,
        )
        latents = jnp.concatenate([latents, future], axis=1)[:, -past:]
        return latents, (future, self.vae.decode(future))

    @jax.jit
    def _begin(self, context, keys):
        """What `_next` goes on from: components of contexts, and latents, once for each key."""
        latents = self.vae.encode(context)[:, -self.context_frames :]
        return (
            self.forecaster.encode(context),
            jnp.repeat(latents, keys.shape[0] // latents.shape[0], axis=0),
        )

    @functools.partial(jax.jit, static_argnames='sampling')
    def _next(self, components, latents, keys, start, left, drawing, sampling):
        """A step of `_roll` with its part of stage 1, for a loop on the host: one program for all
        chunks of all horizons.

        Args:
            components, latents: before the chunk, from `_begin` or this.
            start: frames from the context to the chunk; left: from there to the horizon.

        Returns:
            ((components, latents) before the next chunk, {name: arrays} of this one).
        """
        net, futures = self.generator.net, keys.shape[0] // components.shape[0]
        forecast = self.forecaster.forecast(components, net.future_frames)
        # The last step before the horizon is repeated beyond it, as `_pad_time` does.
        seen = forecast[:, jnp.minimum(jnp.arange(net.future_frames), left - 1)]
        window = jnp.concatenate([components[:, -net.context_frames :], seen], axis=1)
        window = jnp.repeat(window, futures, axis=0)
        latents, (future, frames) = self._render(latents, window, keys, start, drawing, sampling)
        after = jnp.concatenate([components, forecast], axis=1)[:, -components.shape[1] :]
        features = self.forecaster.features(forecast)
        chunk = {'frames': frames, 'components': forecast, 'features': features, 'latents': future}
        return (after, latents), chunk

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
        horizon: int = 8,
        seed: int = 0,
        num_futures: int | None = None,
        start: float = 0.0,
        *,
        folder_fps: float = windows.BASE_FPS,
        guidance: float = 0.0,
        guidance_channels: int = 8,
        channels: int | None = None,
        sampler: str | None = None,
        sampler_steps: int | None = None,
        sampler_grid: str | None = None,
        context_noise: float = 0.0,
    ) -> Future | list[Future]:
        """Predicts the frames that follow a clip.

        What is compiled at the first call serves all horizons, guidance weights (but 0, which
        takes half the work) and channels; another number of clips or futures is compiled anew.

        Args:
            clip: a video file or a folder of images, of which the M frames from `start` seconds on
                are the context; or frames [T, height, width, 3] of any size at `self.fps` frames
                per second, whose last M are, RGB as uint8, other whole numbers up to 255, or
                floats from 0 to 1. They are centre-cropped and resized to `self.size`. Or a list
                of such clips, predicted as one batch, each as it would be alone.
            folder_fps: frames a second of a folder of images.
            num_futures: None for one future without a leading axis, n for n of distinct noise.
            guidance, ..., context_noise: as of `drawing`.

        Raises:
            UserError: a file that can't be read.
            ValueError: a clip shorter than the context, frames of another kind, an option out of
                range.
        """
        several = isinstance(clip, Sequence) and not isinstance(clip, str | bytes)
        if several and not len(clip):
            raise ValueError('clip: expected a video or a list of videos, got an empty list')
        _whole('horizon', horizon, 1)
        _whole('seed', seed, 0)
        count = 1 if num_futures is None else _whole('num_futures', num_futures, 1)
        drawing = self.drawing(
            guidance,
            guidance_channels,
            channels,
            sampler,
            sampler_steps,
            sampler_grid,
            context_noise,
        )
        given = self.context_frames, self.fps, self.size, start, folder_fps
        clips = clip if several else [clip]
        contexts = np.stack([video.context(one, *given) for one in clips])
        keys = jnp.tile(jax.random.split(jax.random.key(seed), count), len(contexts))
        chunks, state = [], self._begin(contexts, keys)
        for first in range(0, horizon, self.generator.net.future_frames):
            state, chunk = self._next(*state, keys, first, horizon - first, *drawing)
            # While this one is at work, the one before it comes to the host.
            chunks[-1:] = jax.device_get(chunks[-1:])
            chunks.append(chunk)
        chunks[-1:] = jax.device_get(chunks[-1:])
        whole = {
            name: np.concatenate([chunk[name] for chunk in chunks], axis=1)[:, :horizon]
            for name in chunks[0]
        }
        futures = []
        for number, context in enumerate(contexts):
            of_clip = slice(number * count, (number + 1) * count)
            # Stage 1 knows no chance: its part is the same in every future.
            arrays = {
                name: array[of_clip]
                if name in ('frames', 'latents')
                else np.broadcast_to(array[number], (count, *array.shape[1:]))
                for name, array in whole.items()
            }
            if num_futures is None:
                arrays = {name: array[0] for name, array in arrays.items()}
            futures.append(Future(**arrays, context=context, fps=self.fps))
            remember(futures[-1], origin(self))
        return futures if several else futures[0]

    def info(self, num_futures: int = 1) -> None:
        """Prints what predicting `num_futures` futures of a clip takes on this device: memory as
        the compiler counts it, time as the clock does. Compiles what `predict` then uses.
        """
        keys = jax.random.split(jax.random.key(0), _whole('num_futures', num_futures, 1))
        context = np.zeros((1, self.context_frames, *self.size, 3), np.uint8)
        net, drawing = self.generator.net, self.drawing(guidance_channels=0)
        chunk, device = net.future_frames, jax.devices()[0]
        began = time.perf_counter()
        state = jax.block_until_ready(self._begin(context, keys))
        compiled = Re2Pix._next.lower(self, *state, keys, 0, chunk, *drawing).compile()
        jax.block_until_ready(self._next(*state, keys, 0, chunk, *drawing))
        compiling = time.perf_counter() - began
        seconds = [
            _seconds(lambda: self._begin(context, keys)),
            _seconds(lambda: self._next(*state, keys, 0, chunk, *drawing)),
        ]
        memory = compiled.memory_analysis()
        work = memory.temp_size_in_bytes + memory.output_size_in_bytes
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(self))
        limit = (device.memory_stats() or {}).get('bytes_limit')
        print(
            f'{len(jax.devices())} x {device.device_kind}'
            + (f', {limit / 1e9:.0f} GB' if limit else '')
            + f'; one is used, computing in {net.dtype}\n'
            f'memory: {weights / 1e6:.0f} MB of weights, {work / 1e6:.0f} MB at work on {chunk} '
            f'frames of {num_futures} future{"s" * (num_futures > 1)}\n'
            f'time: {seconds[0]:.3g} s for a context and {seconds[1]:.3g} s for every {chunk} '
            f'frames, {chunk / self.fps:.2g} s of video; once {compiling:.1f} s to compile'
        )

    def segment(self, frames):
        """Labels uint8 [B, T, H, W] (Cityscapes train ids) that the head gives frames uint8 [B, T,
        H, W, 3]; ValueError where the model has no head, or what it is given are no frames.

        The head is trained on features that went through the principal components, so it sees such
        features here too [R].
        """
        if self.head is None:
            raise ValueError(
                'this model has no head: load one, and model.replace(head=head).segment(frames)'
            )
        features = self.forecaster.features(self.forecaster.encode(frames))
        return self.head.labels(features, frames.shape[2:4])


def _pad_time(array, length):
    """Repeats the last step up to `length` steps: the last chunk may reach beyond the horizon."""
    missing = length - array.shape[1]
    return jnp.pad(array, [(0, 0), (0, max(missing, 0))] + [(0, 0)] * (array.ndim - 2), mode='edge')


def _seconds(compute) -> float:
    began = time.perf_counter()
    jax.block_until_ready(compute())
    return time.perf_counter() - began


def _whole(name, value, least) -> int:
    """`value`, or a ValueError that names what is no whole number from `least` to 2**32 - 1."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= value < 2**32:  # a larger seed would be taken for a smaller one
        most = ' and below 2**32' if whole and value >= least else ''
        raise ValueError(f'{name}: expected a whole number, at least {least}{most}, got {value!r}')
    return int(value)
