"""The generator at base size: its network, and its arithmetic by hand.

A space-time DiT on the latents of 256x512 frames (32x64x4, in patches of 2), 4 frames of context
and 4 to come, and 1152 components on the grid of the patches. float32 on a CPU, bfloat16 elsewhere.
"""

import math

import jax
import numpy as np

from re2pix_jax.benchmarks import measuring
from re2pix_jax.generator import SpaceTimeDiT
from re2pix_jax.generator.dit import FREQUENCIES, SIZES

BASE = dict(
    latent_channels=4,
    latent_grid=(32, 64),
    patch_size=2,
    components=1152,
    context_frames=4,
    future_frames=4,
)
SMALL = dict(
    latent_channels=4,
    latent_grid=(8, 16),
    patch_size=2,
    components=48,
    context_frames=4,
    future_frames=4,
    width=64,
    depth=3,
    heads=4,
)  # where our numbers and the peer's are compared


def fields(size, depth=None):
    """The network's fields: `size` is one of S, B, L and XL; fewer layers than it has where `depth`
    is given.
    """
    return BASE | SIZES[size.upper()] | ({'depth': depth} if depth else {})


def make_net(size, depth=None, **changes):
    """Unrolled, as in configs/generator.py; XLA's cost analysis counts the body of a loop once,
    too.
    """
    return SpaceTimeDiT(
        **fields(size, depth) | dict(unroll=True, dtype=measuring.compute_dtype()) | changes
    )


def describe(size, net):
    layers = f'{net.depth} layers of width {net.width}, each compiled by itself'
    return f'DiT-{size.upper()}: {layers}; {net.dtype}'


def hidden(net):
    """Width of the two halves of the SwiGLU."""
    return math.ceil(8 * net.width / 3 / net.ffn_multiple) * net.ffn_multiple


def flops(net) -> dict[str, float]:
    """Floating-point operations for one clip, by hand.

    Counted are matrix products alone, 2 for each multiplication and addition: 2 a weight and token,
    and 4 a channel, query and key in attention. Backward products are two for each forward one, but
    one where data comes in.

    Returns:
        context: once a chunk, of the last layer nothing but its keys and values. denoise: at every
        step of the sampler. backward: of both. peer: of the PyTorch peer at every step, which has
        all frames in one sequence.
    """
    places, past, future = math.prod(net.token_grid), net.context_frames, net.future_frames
    patch = net.patch_size**2 * net.latent_channels
    embed = lambda frames: frames * places * 2 * net.width * (patch + net.components)
    projections = 16 * net.width**2 + 6 * net.width * hidden(
        net
    )  # a token: twice qkv and out; three of the SwiGLU
    layer = lambda frames, keys: frames * places * (projections + 4 * net.width * (keys + places))
    times = (
        2 * net.width * (FREQUENCIES + 12 * net.width)
    )  # a sample: embedding, modulation of layers and of the output
    keys = past * places * 6 * net.width**2  # one product makes queries too
    ends = future * places * 2 * net.width * patch + times
    context = embed(past) + (net.depth - 1) * layer(past, past) + keys
    denoise = embed(future) + net.depth * layer(future, past + future) + ends
    return {
        'context': context,
        'denoise': denoise,
        'backward': 2 * (context + denoise) - embed(past + future),
        'peer': embed(past + future) + net.depth * layer(past + future, past + future) + ends,
    }


def draw_params(net, seed=0):
    """Parameters (numpy) of the usual size but without zeros, under which nothing of a network
    would be seen from outside.
    """
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *net.example())
    return jax.tree.map(
        lambda leaf: random.normal(0, 0.02 + 0.2 / math.sqrt(leaf.shape[-1]), leaf.shape).astype(
            np.float32
        ),
        shapes,
    )


def draw(batch, frames, net, seed=0):
    """(latents [B, T, H, W, c], components [B, T, h, w, P]), float32."""
    random = np.random.default_rng(seed)
    shapes = (*net.latent_grid, net.latent_channels), (*net.token_grid, net.components)
    return tuple(random.standard_normal((batch, frames, *shape), np.float32) for shape in shapes)


def counted(net, batch=1):
    """XLA's counts for one sample: {'context', 'denoise'} of the programs; nothing is compiled, run
    or allocated.
    """
    context_latents, latents, t, context_components, components = jax.eval_shape(
        lambda: net.example(batch)
    )
    params = jax.eval_shape(net.init, jax.random.key(0), *net.example())
    context = jax.jit(lambda *arguments: net.apply(*arguments, method='context'))
    denoise = jax.jit(lambda *arguments: net.apply(*arguments, method='denoise'))
    given = params, context_latents, context_components
    cache = jax.eval_shape(context, *given)
    with measuring.plain_attention():
        programs = {
            'context': context.lower(*given),
            'denoise': denoise.lower(params, cache, latents, t, components),
        }
    return {name: program.cost_analysis()['flops'] / batch for name, program in programs.items()}


def difference(ours, theirs):
    """Largest difference of two arrays, as a share of the largest entry."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
