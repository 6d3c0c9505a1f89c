"""Stage 2's part in a prediction of 8 frames, by sampler steps, beside plain PyTorch.

    re2pix benchmark generator_prediction --sampler_steps=10,20

Arithmetic, time, memory, at 256x512. Ours is the pipeline's own program, in which stage 1 and the
VAE are replaced by what they would have given.
"""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.benchmarks import measuring
from re2pix_jax.generator import Generator, SpaceTimeDiT
from re2pix_jax.model import Re2Pix
from re2pix_jax.report.table import table

HORIZON, FRAMES = 8, (256, 512)


class GivenForecast(flax.struct.PyTreeNode):
    """Stage 1 that has finished: components [B, M + HORIZON, h, w, P]."""

    components: jax.Array
    past: int = flax.struct.field(pytree_node=False, default=4)

    def encode(self, frames):
        return self.components[:, : self.past]

    def forecast(self, context, horizon):
        return self.components[:, self.past : self.past + horizon]


class GivenLatents(flax.struct.PyTreeNode):
    """A VAE that has encoded the context, and leaves the future in latents [B, M, H, W, c]."""

    latents: jax.Array

    def encode(self, frames):
        return self.latents

    def decode(self, latents):
        return latents


def make_model(net, params, latents, components):
    return Re2Pix(
        GivenForecast(components, net.context_frames), GivenLatents(latents), Generator(params, net)
    )


def draw(net, batch):
    """(latents [B, M, H, W, c], components [B, M + HORIZON, h, w, P], keys [B])."""
    latents, components = work.draw(batch, net.context_frames + HORIZON, net)
    return latents[:, : net.context_frames], components, jax.random.split(jax.random.key(0), batch)


def noise_of(net, keys):
    """The noise [chunks, B, F, H, W, c] that the pipeline starts its chunks from."""
    shape = (net.future_frames, *net.latent_grid, net.latent_channels)
    draw = lambda key, start: jax.random.normal(jax.random.fold_in(key, start), shape)
    return np.stack(
        [jax.vmap(draw, (0, None))(keys, start) for start in range(0, HORIZON, net.future_frames)]
    )


def compiled(net, batch, steps):
    """The program of (model, context frames, keys), from shapes alone."""

    def arguments():
        latents = jnp.zeros((batch, net.context_frames, *net.latent_grid, net.latent_channels))
        components = jnp.zeros(
            (batch, net.context_frames + HORIZON, *net.token_grid, net.components)
        )
        model = make_model(net, net.init(jax.random.key(0), *net.example()), latents, components)
        return (
            model,
            jnp.zeros((batch, net.context_frames, *FRAMES, 3), jnp.uint8),
            jax.random.split(jax.random.key(0), batch),
        )

    predict = lambda model, frames, keys: model.rollout(frames, keys, HORIZON, sampler_steps=steps)
    return jax.jit(predict).lower(*jax.eval_shape(arguments)).compile()


def run(
    batch: int,
    size: str,
    depth: int | None,
    sampler_steps: Sequence[int],
    threads: int,
    repeats: int,
) -> None:
    """Prints everything; `depth` layers, None for what the size has."""
    measuring.share_gpu()
    net = work.make_net(size, depth)
    print(
        f'{work.describe(size, net)}; {HORIZON} frames in {HORIZON // net.future_frames} chunks; '
        f'batch {batch}\n'
    )
    _arithmetic(net, sampler_steps)
    _agreement(threads)
    _time(net, batch, sampler_steps, threads, repeats)
    _memory(net.clone(unroll=False), sampler_steps[0])


def work_of(net, parts, steps):
    """Of a clip's prediction: the context once a chunk, and as many evaluations as steps."""
    return HORIZON // net.future_frames * (parts['context'] + steps * parts['denoise'])


def peer_work(net, steps):
    return HORIZON // net.future_frames * steps * work.flops(net)['peer']


def _arithmetic(net, sampler_steps):
    by_hand, counted = work.flops(net), work.counted(net)
    rows = []
    for steps in sampler_steps:
        ours, xla, theirs = (
            work_of(net, by_hand, steps),
            work_of(net, counted, steps),
            peer_work(net, steps),
        )
        rows.append([str(steps), ours / 1e12, xla / 1e12, xla / ours, theirs / 1e12, theirs / ours])
    print(
        table(
            [
                'TFLOP a clip, by sampler steps',
                'by hand',
                "XLA's count",
                'XLA / hand',
                'torch by hand',
                'torch / ours',
            ],
            rows,
        )
    )
    print(
        'by hand: matrix products alone; XLA counts elementwise work too, and is asked about the '
        'context and about one evaluation, as it '
        'counts a loop once; torch computes the context again at every step\n'
    )


def _agreement(threads):
    """The sampled latents at a small size, in float32: ours beside the peer's, from the same
    parameters and noise.
    """
    from re2pix_jax.benchmarks import plain_dit

    net, steps = SpaceTimeDiT(**work.SMALL), 3
    params, (latents, components, keys) = work.draw_params(net), draw(net, 2)
    model = make_model(net, params, latents, components)
    frames = jnp.zeros((2, net.context_frames, *FRAMES, 3), jnp.uint8)
    with jax.default_matmul_precision('highest'):  # accelerators round float32 otherwise
        ours = model.rollout(frames, keys, horizon=HORIZON, sampler_steps=steps)['latents']
    theirs = plain_dit.Prediction(
        plain_dit.DiT(net).load(params), threads, latents, components, noise_of(net, keys)
    )(steps)
    print(
        f'largest difference to the peer at a small size, relative: {HORIZON} predicted frames of '
        'latents '
        f'{work.difference(np.asarray(ours), theirs.numpy()):.1e}\n'
    )


def _time(net, batch, sampler_steps, threads, repeats):
    from re2pix_jax.benchmarks import plain_dit

    latents, components, keys = draw(net, batch)
    params = work.draw_params(net)
    other = plain_dit.Prediction(
        plain_dit.DiT(net).load(params), threads, latents, components, noise_of(net, keys)
    )
    model = jax.device_put(make_model(net, params, latents, components))
    context, peak, rows = (
        jnp.zeros((batch, net.context_frames, *FRAMES, 3), jnp.uint8),
        measuring.peak(net.dtype),
        [],
    )
    for steps in sampler_steps:
        predict = functools.partial(compiled(net, batch, steps), model, context, keys)
        seconds = measuring.in_turn(
            lambda predict=predict: jax.block_until_ready(predict()),
            functools.partial(other, steps),
            repeats,
        )
        total = work_of(net, work.flops(net), steps) * batch, peer_work(net, steps) * batch
        shares = [amount / value / peak.flops for amount, value in zip(total, seconds)]
        rows.append(
            [
                str(steps),
                *seconds,
                seconds[1] / seconds[0],
                *(batch * HORIZON / value for value in seconds),
                *shares,
            ]
        )
    print(
        table(
            [
                'sampler\nsteps',
                'seconds\nours',
                '\ntorch',
                '\ntorch / ours',
                'frames a second\nours',
                '\ntorch',
                f'{peak.share}\nours',
                '\ntorch',
            ],
            rows,
        )
    )
    print(f"{peak.about}; each side's own arithmetic\n")


def _memory(net, steps):
    """What a prediction needs at a time: parameters, and for each clip, from XLA's plans for one
    and two clips.
    """
    print(
        measuring.memory_table(
            {
                f'{HORIZON} frames': measuring.bytes_by_clip(
                    lambda clips: compiled(net, clips, steps)
                )
            }
        )
    )
    print(
        f"from XLA's plan of the whole prediction for {jax.default_backend()}, {net.dtype}, the "
        'layers a loop; parameters are float32'
    )
