"""The figure of the method, in order: clip → features → forecast → latents → frames. The only place
where the stages meet.
"""

import functools
import os
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.data import video
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.generator import Generator
from re2pix_jax.generator.sampler import evaluations
from re2pix_jax.heads import Head
from re2pix_jax.vae import Autoencoder

_STATIC = ('horizon', 'guidance', 'guidance_channels', 'sampler_steps', 'channels', 'sampler')


@flax.struct.dataclass
class Future:
    """What `Re2Pix.predict` returns; every array has a leading axis of futures when `num_futures`
    was given.

    frames uint8 [horizon, H, W, 3]; components float32 [horizon, h, w, P] and features float32
    [horizon, h, w, C] of stage 1; latents float32 [horizon, H/f, W/f, c] of stage 2.
    """

    frames: Any
    components: Any
    features: Any
    latents: Any


@flax.struct.dataclass
class Re2Pix:
    """Both stages and the frozen networks between them; a pytree, so that it passes through jit as
    an argument.

    size: (H, W) of the frames in pixels; fps: frames per second of context and future (17 / 3:
        stride 3 at Cityscapes' rate [R]).
    """

    forecaster: Forecaster
    vae: Autoencoder
    generator: Generator
    head: Head | None = None
    size: tuple[int, int] = flax.struct.field(pytree_node=False, default=(256, 512))
    fps: float = flax.struct.field(pytree_node=False, default=17 / 3)
    sampler_steps: int = flax.struct.field(pytree_node=False, default=20)

    @property
    def context_frames(self) -> int:
        return self.generator.net.context_frames

    @functools.partial(jax.jit, static_argnames=_STATIC)
    def rollout(
        self,
        context,
        keys,
        horizon,
        guidance=0.0,
        guidance_channels=8,
        sampler_steps=None,
        channels=None,
        sampler='euler',
    ):
        """Predicts `horizon` frames after a batch of contexts, under one compiled program.

        Longer horizons than a chunk of F frames slide the window in latent and component space;
        nothing is decoded and encoded again between chunks [O]. The chunks are steps of one loop,
        so that neither compile time nor the memory of what is in work grows with the horizon.

        Args:
            context: uint8 [B, M, H, W, 3].
            keys: typed PRNG keys [B], one per clip, so that a clip's future does not depend on its
                batch; or [B n] for n futures of each context, those of one context next to each
                other: a context is encoded, and its semantics forecast, only once.
            horizon: frames, at least 1; static.
            guidance, guidance_channels, channels, sampler: as in `Generator.sample`.
            sampler_steps: None for the model's own number.

        Returns:
            {'frames' uint8 [B n, horizon, H, W, 3], 'components' [B n, horizon, h, w, P], 'latents'
            [B n, horizon, H/f, W/f, c]}. Raises ValueError for a horizon or an option out of range,
            and keys that do not fit the contexts.
        """
        return self.rollout_encoded(
            self.forecaster.encode(context),
            self.vae.encode(context),
            keys,
            horizon,
            guidance,
            guidance_channels,
            sampler_steps,
            channels,
            sampler,
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
        sampler_steps=None,
        channels=None,
        sampler='euler',
        future_components=None,
    ):
        """`rollout` of contexts as the encoder and the VAE see them.

        Args:
            context_components: [B, M, h, w, P]; context_latents: [B, M, H/f, W/f, c].
            future_components: [B, horizon, h, w, P] that stage 2 is given; None for the forecast of
                stage 1.
        """
        batch = context_components.shape[0]
        if horizon < 1:
            raise ValueError(f'horizon: expected at least 1, got {horizon}')
        if not keys.shape[0] or keys.shape[0] % batch:
            raise ValueError(
                f'keys: expected as many as contexts or a multiple, got {keys.shape[0]} for {batch}'
            )

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
            future = self.generator.sample(
                past_latents,
                window[:, :past],
                window[:, past:],
                noise_keys,
                steps=self._steps(sampler_steps),
                guidance=guidance,
                guidance_channels=guidance_channels,
                channels=channels,
                method=sampler,
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

    def evaluations(self, horizon, guidance=0.0, sampler_steps=None, sampler='euler'):
        """How often the generator's network denoises for one future of `horizon` frames, exactly;
        ValueError as in `rollout`.
        """
        chunks = -(-horizon // self.generator.net.future_frames)
        return chunks * evaluations(sampler, self._steps(sampler_steps), guidance)

    def _steps(self, sampler_steps):
        return self.sampler_steps if sampler_steps is None else sampler_steps

    def predict(
        self,
        clip,
        horizon=8,
        seed=0,
        num_futures=None,
        guidance=0.0,
        guidance_channels=8,
        sampler_steps=None,
        channels=None,
        sampler='euler',
    ) -> Future:
        """Predicts the frames that follow a clip.

        Args:
            clip: uint8 [T, height, width, 3], any size, at `self.fps` frames per second; its last M
                frames are the context, centre-cropped and resized to `self.size`. Or the path of a
                video, or of a folder of images, whose end is the context.
            num_futures: None for one future without a leading axis, n for n of distinct noise.
            others: as in `rollout`.

        Raises:
            ValueError: a clip shorter than the context, too small frames, an option out of range.
            UserError: a path that `data.video.read` cannot read.
        """
        if isinstance(clip, str | os.PathLike):
            clip = video.read_end(clip, self.fps, self.context_frames, size=self.size)
        clip = np.asarray(clip)
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8:
            raise ValueError(
                f'clip: expected uint8 frames [time, height, width, 3], got {clip.dtype} '
                f'{list(clip.shape)}'
            )
        if len(clip) < self.context_frames:
            raise ValueError(
                f'clip: {len(clip)} frames, but {self.context_frames} context frames are needed; '
                'give a longer clip'
            )
        count = 1 if num_futures is None else num_futures
        if count < 1:
            raise ValueError(f'num_futures: expected at least 1, got {count}')
        context = video.fit(clip[-self.context_frames :], self.size)
        keys = jax.random.split(jax.random.key(seed), count)
        out = self.rollout(
            context[None],
            keys,
            horizon,
            guidance,
            guidance_channels,
            sampler_steps,
            channels,
            sampler,
        )
        # Stage 1 knows no chance: its features are the same in every future, and large.
        features = np.asarray(self.forecaster.features(out['components'][0]))
        future = Future(
            out['frames'],
            out['components'],
            np.broadcast_to(features, (count, *features.shape)),
            out['latents'],
        )
        return jax.tree.map(lambda array: np.asarray(array if num_futures else array[0]), future)

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
