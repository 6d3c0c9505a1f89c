"""A prediction from frames to frames, beside the video's own time, and where its time goes.

    re2pix benchmark prediction --sampler_steps=10        (on a CPU: minutes)

Random weights of published sizes: DINOv2-B/14 with 4 registers on 224x448, 1152 principal
components, the masked feature transformer, the DiT and Stable Diffusion's VAE on 256x512. float32
on a CPU, bfloat16 elsewhere.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.benchmarks import forecaster_work as stage1
from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.benchmarks import measuring
from re2pix_jax.benchmarks.generator_prediction import FRAMES, HORIZON
from re2pix_jax.encoder import Encoder, Principal
from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer
from re2pix_jax.generator import Generator
from re2pix_jax.model import Re2Pix
from re2pix_jax.nn.precision import with_dtype
from re2pix_jax.report.table import table
from re2pix_jax.vae import Autoencoder, AutoencoderKL


def make_model(size, depth) -> Re2Pix:
    """The model with random weights; `depth` of the generator, None for the size's own."""
    keys = (jax.random.key(number) for number in itertools.count())

    def draw(net, *example):
        key = next(keys)
        shapes = jax.eval_shape(net.init, key, *example)
        leaves, structure = jax.tree.flatten(shapes)
        scale = lambda shape: 0.02 + 0.2 / math.sqrt(shape[-1])
        return jax.tree.unflatten(
            structure,
            [
                scale(leaf.shape) * jax.random.normal(jax.random.fold_in(key, number), leaf.shape)
                for number, leaf in enumerate(leaves)
            ],
        )

    def parts():
        channels = len(stage1.LAYERS) * stage1.ENCODER_WIDTH
        directions = jax.random.normal(next(keys), (stage1.COMPONENTS, channels)) / math.sqrt(
            channels
        )
        principal = Principal(
            jnp.zeros(channels),
            jnp.ones(channels),
            jnp.zeros(channels),
            directions,
            jnp.ones(stage1.COMPONENTS),
        )
        vit, forecaster = (
            stage1.encoder_net(),
            MaskedFeatureTransformer(**stage1.FORECASTER, depth=stage1.DEPTH),
        )
        vae, dit = AutoencoderKL(), work.make_net(size, depth)
        encoder = Encoder(draw(vit, jnp.zeros((1, *stage1.FRAMES, 3))), vit)
        example = jnp.zeros((1, stage1.TIME - 1, *stage1.GRID, stage1.COMPONENTS))
        return Re2Pix(
            Forecaster(draw(forecaster, example), forecaster, encoder, principal),
            Autoencoder(draw(vae, jnp.zeros((1, 64, 64, 3))), vae),
            Generator(draw(dit, *dit.example()), dit),
        )

    return with_dtype(jax.jit(parts)(), measuring.compute_dtype())


def run(
    batch: int, size: str, depth: int | None, sampler_steps: Sequence[int], repeats: int
) -> None:
    """Prints everything; `depth` layers of the generator, None for what the size has."""
    model = make_model(size, depth)
    print(
        f'{work.describe(size, model.generator.net)}; {HORIZON} frames of {FRAMES[0]}x{FRAMES[1]} '
        'after '
        f'{model.context_frames}, {HORIZON / model.fps:.2f} s of video at {model.fps:.3g} frames '
        f'a second; batch {batch}\n'
    )
    random = np.random.default_rng(0)
    context = jnp.asarray(
        random.integers(0, 256, (batch, model.context_frames, *FRAMES, 3), np.uint8)
    )
    keys = jax.random.split(jax.random.key(0), batch)
    rows = []
    for steps in sampler_steps:
        seconds = _seconds(
            functools.partial(model.rollout, context, keys, HORIZON, sampler_steps=steps), repeats
        )
        rows.append(
            [str(steps), seconds, batch * HORIZON / seconds, batch * HORIZON / model.fps / seconds]
        )
    print(
        table(
            [
                'sampler\nsteps',
                f'seconds for\n{HORIZON} frames',
                'frames\na second',
                'video seconds\na second',
            ],
            rows,
        )
    )
    print()

    components = model.forecaster.encode(context)
    future = model.forecaster.forecast(components, HORIZON)
    latents = model.vae.encode(context)
    chunk, steps = model.generator.net.future_frames, sampler_steps[0]
    chunks = HORIZON // chunk
    parts = {
        'encoder, principal components': lambda: model.forecaster.encode(context),
        f'forecast of {HORIZON} frames': lambda: model.forecaster.forecast(components, HORIZON),
        'VAE, encoding': lambda: model.vae.encode(context),
        f'generator, {chunks} x {steps} steps': lambda: model.generator.sample(
            latents, components, future[:, :chunk], keys, steps=steps
        ),
        f'VAE, decoding {HORIZON} frames': lambda: model.vae.decode(
            jnp.repeat(latents, HORIZON // latents.shape[1], axis=1)
        ),
    }
    seconds = {
        name: _seconds(part, repeats) * (chunks if name.startswith('generator') else 1)
        for name, part in parts.items()
    }
    print(
        table(
            ['where the time goes', 'seconds', 'share'],
            [[name, value, value / sum(seconds.values())] for name, value in seconds.items()],
        )
    )
    print('each part by itself\n')


def _seconds(compute, repeats):
    jax.block_until_ready(compute())  # compiles
    return measuring.seconds_of(compute, repeats)
