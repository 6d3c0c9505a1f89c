"""Stage 2: render the future in latent space, given the past and the semantics of past and
future.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.generator import conditioning, flow, sampler
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.guidance import combine, double, full_and_coarse
from re2pix_jax.nn.summary import summary

__all__ = ['Generator', 'SpaceTimeDiT']


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

    @functools.partial(
        jax.jit,
        static_argnames=('steps', 'guidance', 'guidance_channels', 'channels', 'method', 'grid'),
    )
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
        net, diffusion = self.net, flow.Diffusion(self.path, self.target, self.schedule)
        diffusion.check()
        integrate = sampler.find(method)
        components = context_components, future_components
        self._check(context_latents, components, keys, guidance, guidance_channels, channels)
        # A map over a tree leaves a missing (None) entry as it is, for the network to complain
        # about.
        components = jax.tree.map(lambda x: conditioning.limit(x, channels), components)
        repeat, merge = (
            (double, functools.partial(combine, weight=guidance))
            if guidance
            else (lambda x: x,) * 2
        )
        if guidance:
            components = jax.tree.map(lambda x: full_and_coarse(x, guidance_channels), components)
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

    def _check(self, latents, components, keys, guidance, guidance_channels, channels):
        net, batch = self.net, latents.shape[0]
        if keys.shape != (batch,):
            raise ValueError(
                f'the generator expected one key for each of {batch} samples, got keys of shape '
                f'{keys.shape}'
            )
        if not net.components:
            for option, value in (('guidance', guidance), ('channels', channels)):
                if value:
                    raise ValueError(
                        f'{option} = {value} needs a generator with components; this one is a '
                        'baseline without them: leave it out'
                    )
            return
        if guidance and channels and guidance_channels > channels:
            raise ValueError(
                f'representation guidance keeps {guidance_channels} components of the {channels} '
                'that are given; lower guidance_channels or raise channels'
            )
        for name, array, frames in zip(
            ('context', 'future'), components, (net.context_frames, net.future_frames)
        ):
            if array is not None and array.shape[:2] != (batch, frames):
                raise ValueError(
                    f'the generator expected {name} components of {frames} frames for each of '
                    f'{batch} samples of latents, got {array.shape[1]} frames for '
                    f'{array.shape[0]}; cut both to one length'
                )
