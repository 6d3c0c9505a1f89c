"""Stage 1's training step at 224x448 beside plain PyTorch: arithmetic, time, memory.

    re2pix benchmark forecaster_step --batch=8        (on a CPU minutes a step: --repeats=1)

The published low-resolution size: frozen DINOv2-B/14 with 4 registers on 5 frames, projection to
1152 principal components, masked feature transformer (12 layers of width 1152, dropout 0.1),
SmoothL1, clipping, Adam. float32 on a CPU, bfloat16 elsewhere.
"""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax import bundles, tasks
from re2pix_jax.benchmarks import forecaster_work as work
from re2pix_jax.benchmarks import measuring
from re2pix_jax.encoder import Encoder, Principal
from re2pix_jax.report.table import table
from re2pix_jax.training import defaults


def make_config(depth, remat, batch, frozen):
    config = defaults.defaults()
    config.update(task='forecaster', batch_size=batch, dtype=measuring.compute_dtype())
    config.model.update(work.FORECASTER, depth=depth, remat=remat)
    config.optimizer.update(name='adam', learning_rate=6.4e-4, warmup_steps=0)
    config.frozen.update(frozen)
    return config


def make_step(depth, remat, batch, frozen):
    """(task, step for a batch of so many clips, not yet compiled)."""
    config = make_config(depth, remat, batch, frozen)
    task = tasks.create(config)
    frames = {
        'frames': jax.ShapeDtypeStruct((batch, work.TIME, *work.FRAMES, 3), jnp.uint8),
        'record': jax.ShapeDtypeStruct((batch,), jnp.int32),
    }
    return task, measuring.lower_step(task, frames)


def save_frozen(folder):
    """Bundles of an encoder and principal components with random weights: {name: path}."""
    random = np.random.default_rng(0)
    net = work.encoder_net()
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *work.FRAMES, 3)))
    draw = lambda shape: random.normal(0, 0.02, shape).astype(np.float32)
    channels = len(work.LAYERS) * work.ENCODER_WIDTH
    parts = {
        'encoder': Encoder(params=jax.tree.map(lambda leaf: draw(leaf.shape), shapes), net=net),
        'principal': Principal(
            draw(channels),
            1 + draw(channels),
            draw(channels),
            draw((work.COMPONENTS, channels)),
            np.ones(work.COMPONENTS),
        ),
    }
    for name, part in parts.items():
        bundles.save(pathlib.Path(folder, name), part)
    return {name: str(pathlib.Path(folder, name)) for name in parts}


def run(batch: int, depth: int | None, threads: int, repeats: int) -> None:
    """Prints everything; `depth` of the forecaster, None for the published one."""
    depth = depth or work.DEPTH
    with tempfile.TemporaryDirectory() as folder:
        frozen = save_frozen(folder)
        task, step = make_step(depth, False, batch, frozen)
        step = step.compile()
        _arithmetic(batch, depth, frozen)
        _time(task, step, batch, depth, threads, repeats)
        step = None
        _memory(depth, frozen)


def _arithmetic(batch, depth, frozen):
    ours, theirs = (
        sum(work.flops(depth, all_frames).values()) * batch for all_frames in (False, True)
    )
    with measuring.plain_attention():
        counted = make_step(depth, False, batch, frozen)[1].cost_analysis()['flops']
    print(
        table(
            ['TFLOP a step', 'by hand', "XLA's count", 'XLA / hand'],
            [['ours', ours / 1e12, counted / 1e12, counted / ours]],
        )
    )
    print(
        'by hand: matrix products alone; XLA counts elementwise work and the optimiser too. The '
        "authors' code, which computes "
        f'all {work.TIME} frames in the last layer too, takes {theirs / 1e12:.3f} TFLOP, '
        f'{theirs / ours:.3f} times ours\n'
    )


def _time(task, step, batch, depth, threads, repeats):
    from re2pix_jax.benchmarks import plain_torch

    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (batch, work.TIME, *work.FRAMES, 3), np.uint8)
    data = {'frames': jnp.asarray(frames), 'record': jnp.arange(batch, dtype=jnp.int32)}
    ours, other = measuring.Stepper(task, step, data), plain_torch.Step(depth, threads, frames)
    seconds = measuring.in_turn(ours, other, repeats)
    operations, peak = work.flops(depth), measuring.peak(task.config.dtype)
    print(measuring.speed_table(seconds, sum(operations.values()) * batch, peak))
    print(f'{peak.about}; batch {batch}, {depth} layers\n')
    ours.state = None

    encode = jax.jit(task._components)
    components = encode(task.frozen, data)
    params = jax.jit(lambda: task.init(jax.random.key(0), None))()
    apply = jax.jit(
        lambda params, context: task.net.apply(
            params, context, deterministic=False, rngs={'dropout': jax.random.key(0)}
        )
    )
    parts = {
        'encoder': measuring.seconds_of(lambda: encode(task.frozen, data)),
        'forward': measuring.seconds_of(lambda: apply(params, components[:, :-1])),
    }
    parts['backward'] = max(seconds[0] - sum(parts.values()), 0.0)
    rows = [
        [
            name + (' and update' if name == 'backward' else ''),
            parts[name],
            other.parts[name],
            operations[name] * batch / 1e9 / parts[name] if parts[name] else 0.0,
        ]
        for name in parts
    ]
    print(table(['where the time goes: seconds', 'ours', 'torch', 'ours, GFLOP/s'], rows))
    print()


def _memory(depth, frozen):
    """What a step needs at a time: state, gradients and frozen networks, and for each clip, from
    XLA's plans for one and two clips.
    """
    plan = lambda depth, remat: measuring.bytes_by_clip(
        lambda clips: make_step(depth, remat, clips, frozen)[1].compile()
    )
    fixed, clip = plan(depth, False)
    # XLA drops the barriers of remat there before it schedules: the plan would show the work and
    # not the saving
    if measuring.on_cpu():
        item = 4 * work.TIME * work.PLACES * work.WIDTH
        again = fixed, plan(2, False)[1] + (depth - 2) * item
    else:
        again = plan(depth, True)
    print(measuring.memory_table({'without': (fixed, clip), 'with remat': again}))
    print(
        f"from XLA's plan of the whole step for {jax.default_backend()}, "
        f'{measuring.compute_dtype()}; parameters, their average, both moments and gradients are '
        'float32'
    )
    if measuring.on_cpu():
        print(
            'with remat: by the plan of two layers, whose activations are kept, and the inputs of '
            'all the others'
        )
