"""Stage 2: render the future in latent space, given the past and the semantics of past and future."""

import functools

import flax.struct
import jax

from re2pix_jax.errors import UserError
from re2pix_jax.generator import flow
from re2pix_jax.generator.conditioning import limit
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.guidance import combine, double, full_and_coarse
from re2pix_jax.generator.sampler import SAMPLERS

__all__ = ['Generator', 'SpaceTimeDiT']


class Generator(flax.struct.PyTreeNode):
    """A trained generator: samples future latents by integrating the flow that its network predicts."""

    params: dict
    net: SpaceTimeDiT = flax.struct.field(pytree_node=False)

    @functools.partial(jax.jit, static_argnames=('steps', 'guidance', 'guidance_channels', 'channels', 'method'))
    def sample(self, context_latents, context_components, future_components, keys, steps=15, guidance=0.0,
               guidance_channels=8, channels=None, method='euler'):
        """Draw one future per sample of the batch.

        Args:
            context_latents: [B, M, H, W, c], clean.
            context_components, future_components: [B, M, h, w, P] and [B, F, h, w, P]; None for a baseline generator.
            keys: typed PRNG keys [B] of the initial noise, one per sample: a future does not depend on its batch.
            steps: sampler steps, 15 [R] to 50; at least 1.
            guidance: weight w of representation guidance, 0 for none; the paper explores 0.4 with 8 channels [P].
            guidance_channels: how many leading components the coarse prediction keeps.
            channels: how many leading components the generator is given at all, the others being zero; None for all [P].
            method: 'euler' or 'heun'.

        Returns:
            Future latents, float32 [B, F, H, W, c]. Raises UserError for a bad option or shapes that do not fit.
        """
        net = self.net
        if method not in SAMPLERS:
            raise UserError(f"sampler '{method}' is unknown; choose one of {', '.join(SAMPLERS)}")
        if guidance and not net.components:
            raise UserError('representation guidance needs a generator with components; this one is a baseline without '
                            'them: set guidance to 0')
        context_components, future_components = jax.tree.map(
            lambda x: limit(x, channels), (context_components, future_components))
        widen, narrow = (double, functools.partial(combine, weight=guidance)) if guidance else (lambda x: x,) * 2
        if guidance:
            # A map over a tree leaves a missing (None) entry as it is, for the network to complain about.
            context_components, future_components = jax.tree.map(
                lambda x: full_and_coarse(x, guidance_channels), (context_components, future_components))
        cache = net.apply(self.params, widen(context_latents), context_components, method='context')

        def velocity(z, t):
            prediction = net.apply(self.params, cache, widen(z), widen(t), future_components, method='denoise')
            return flow.velocity(narrow(prediction), z, t)

        shape = (net.future_frames, *net.latent_grid, net.latent_channels)
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return SAMPLERS[method](velocity, noise, steps)
