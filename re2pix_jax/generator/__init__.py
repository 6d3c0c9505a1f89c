"""Stage 2: render the future in latent space, given the past and the semantics of past and
future.
"""

import functools
import math
import numbers
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.generator import conditioning, flow, sampler
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.guidance import check_coarse, combine, double, full_and_coarse
from re2pix_jax.nn.summary import summary

__all__ = ['Generator', 'SpaceTimeDiT']


class Weights(NamedTuple):
    """How components are weighed, checked by `Generator.weights`; numbers or traced.

    Attributes:
        guidance, guidance_channels: None where nothing is guided.
        channels: None for a baseline, which is given none.
    """

    guidance: Any = None
    guidance_channels: Any = None
    channels: Any = None


class Generator(flax.struct.PyTreeNode):
    """A trained generator: samples future latents by following the velocities that its network
    predicts.

    path, target, schedule: the `flow.Diffusion` that the network was trained with.
    context_noise: how far from t = 1 the context was noised in training; 0 for not at all.
    """

    params: dict
    net: SpaceTimeDiT = flax.struct.field(pytree_node=False)
    path: str = flax.struct.field(pytree_node=False, default=flow.FLOW.path)
    target: str = flax.struct.field(pytree_node=False, default=flow.FLOW.target)
    schedule: str = flax.struct.field(pytree_node=False, default=flow.FLOW.schedule)
    context_noise: float = flax.struct.field(pytree_node=False, default=0.0)

    __repr__ = summary

    def sample(
        self,
        context_latents,
        context_components,
        future_components,
        keys,
        steps=15,
        guidance=0.0,
        guidance_channels=8,
        channels=None,
        method='euler',
        grid='even',
        context_t=None,
    ):
        """Draw one future per sample of the batch.

        Args:
            context_latents: [B, M, H, W, c], clean.
            context_components, future_components: [B, M, h, w, P] and [B, F, h, w, P]; None for a
                baseline generator.
            keys: typed PRNG keys [B] of the initial noise, one per sample: a future does not depend
                on its batch.
            steps: sampler steps, at least 1: 5 by Heun [O], 15 [R] to 50 by Euler.
            guidance: weight w of representation guidance, 0 for none; the paper explores 0.4 with 8
                channels [P].
            guidance_channels: how many leading components the coarse prediction keeps, at most
                `channels`.
            channels: how many leading components the generator is given at all, the rest being
                zero; None for all [P].
            method: 'euler', 'heun' or 'ddim'; for the path 'ddpm' the last suits best.
            grid: of the times, as of `sampler.times`.
            context_t: [M], the times to which context frames are noised: 1 for those that stay
                clean, at least 1 - `context_noise` for others; None for all clean.

        Returns:
            Future latents, float32 [B, F, H, W, c]. Raises ValueError for a bad option or shapes
            that do not fit.
        """
        weights = self.weights(guidance, guidance_channels, channels)
        self._check(context_latents, (context_components, future_components), keys)
        return self.draw(
            context_latents,
            context_components,
            future_components,
            keys,
            weights,
            context_t,
            sampling=(method, steps, grid),
        )

    def weights(self, guidance=0.0, guidance_channels=8, channels=None) -> Weights:
        """What `draw` is given for these options of `sample`; ValueError for those out of range."""
        if not (isinstance(guidance, numbers.Real) and 0 <= guidance < math.inf):
            raise ValueError(
                f'guidance: expected a weight from 0 (none) on, as in 0.4, got {guidance!r}'
            )
        known = self.net.components
        for option, value in (('guidance', guidance), ('channels', channels)):
            if value and not known:
                raise ValueError(
                    f'{option} = {value} needs a generator with components; this one is a '
                    'baseline without them: leave it out'
                )
        if not known:
            return Weights()
        kept = conditioning.check_channels(channels, known)
        if not guidance:
            return Weights(channels=int(kept))
        check_coarse(guidance_channels, known)
        if channels and guidance_channels > channels:
            raise ValueError(
                f'representation guidance keeps {guidance_channels} components of the {channels} '
                'that are given; lower guidance_channels or raise channels'
            )
        return Weights(float(guidance), int(guidance_channels), int(kept))

    @functools.partial(jax.jit, static_argnames='sampling')
    def draw(
        self,
        context_latents,
        context_components,
        future_components,
        keys,
        weights,
        context_t=None,
        *,
        sampling,
    ):
        """`sample`, with its options as one program takes them.

        Args:
            weights: of `weights`, traced: all guidance weights and numbers of channels are served
                by one program, and none at all by another, which computes half as much.
            sampling: (method, steps, grid).
        """
        net, diffusion = self.net, flow.Diffusion(self.path, self.target, self.schedule)
        diffusion.check()
        method, steps, grid = sampling
        integrate, components = sampler.find(method), (context_components, future_components)
        repeat, merge = (lambda x: x,) * 2
        # A map over a tree leaves a missing (None) entry as it is, for the network to complain
        # about.
        if weights.channels is not None:
            limit = lambda x: conditioning.keep_first(x, weights.channels)
            components = jax.tree.map(limit, components)
        if weights.guidance is not None:
            coarse = functools.partial(full_and_coarse, channels=weights.guidance_channels)
            components = jax.tree.map(coarse, components)
            repeat, merge = double, functools.partial(combine, weight=weights.guidance)
        params = net.for_sampling(self.params)
        if context_t is not None:
            context_t = jnp.broadcast_to(context_t, context_latents.shape[:2])
            context_latents = conditioning.noised(keys, context_latents, context_t, diffusion)
            context_t = repeat(context_t)
        cache = net.apply(
            params, repeat(context_latents), components[0], context_t, method='context'
        )

        def velocity(z, t):
            prediction = net.apply(
                params, cache, repeat(z), repeat(t), components[1], method='denoise'
            )
            return flow.velocity(merge(prediction), z, t, diffusion)

        shape = (net.future_frames, *net.latent_grid, net.latent_channels)
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return integrate(velocity, noise, steps, diffusion, grid)

    def _check(self, latents, components, keys):
        net, batch = self.net, latents.shape[0]
        if keys.shape != (batch,):
            raise ValueError(
                f'the generator expected one key for each of {batch} samples, got keys of shape '
                f'{keys.shape}'
            )
        for name, array, frames in zip(
            ('context', 'future'), components, (net.context_frames, net.future_frames)
        ):
            if net.components and array is not None and array.shape[:2] != (batch, frames):
                raise ValueError(
                    f'the generator expected {name} components of {frames} frames for each of '
                    f'{batch} samples of latents, got {array.shape[1]} frames for '
                    f'{array.shape[0]}; cut both to one length'
                )
