"""The rows of `re2pix benchmark gpu_suite`, each for a process of its own:

    python -m re2pix_jax.benchmarks.gpu_rows NAME FILE

writes a row's numbers to FILE, JSON. On a CPU all sizes are tiny: that goes through, no more.
"""

import functools
import json
import pathlib
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax import bundles, files
from re2pix_jax.benchmarks import (
    attention,
    attention_candidates,
    forecaster_step,
    forecaster_work,
    generator_prediction,
    generator_step,
    layer_candidates,
    measuring,
    prediction,
)
from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.nn.attention import attend
from re2pix_jax.training import hardware

REPEATS, STEPS = 5, 20
BATCH = {'b': 8, 'l': 8, 'xl': 4}
TINY_FORECASTER = dict(
    ENCODER_WIDTH=48, ENCODER_DEPTH=2, ENCODER_HEADS=2, LAYERS=(0, 1), WIDTH=48, HEADS=2
) | dict(DEPTH=2, COMPONENTS=48)


def _timed(call, flops, dtype) -> dict:
    """Calls once, which may compile, then `REPEATS` times, of which the fastest counts."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - began
    seconds = measuring.seconds_of(call, 1 if measuring.on_cpu() else REPEATS)
    found = {'seconds': seconds, 'first_seconds': first}
    if flops:
        peak = measuring.peak(dtype)
        found |= {'flops': flops, 'share': flops / seconds / peak.flops, 'of': peak.about}
    return found


def step(size, side):
    """A training step of the DiT."""
    tiny = measuring.on_cpu()
    batch, fields = (1, dict(work.SMALL)) if tiny else (BATCH[size], {})
    depth = fields.pop('depth', None)
    task = generator_step.make_task(size, depth, batch, **fields, unroll=True)
    parts = work.flops(task.net)
    flops = batch * sum(parts[name] for name in ('context', 'denoise', 'backward'))
    drawn = work.draw(batch, task.net.context_frames + task.net.future_frames, task.net)
    if side == 'torch':
        from re2pix_jax.benchmarks import plain_dit

        call = plain_dit.Step(task.net, 1, task.counts, *drawn)
        flops = batch * 3 * parts['peer']
    else:
        data = dict(zip(('latents', 'components'), map(jnp.asarray, drawn)))
        call = measuring.Stepper(task, generator_step.lower_step(task).compile(), data)
    return _timed(call, flops, task.config.dtype) | {'batch': batch}


def predicted(size, side):
    """The DiT's part in a prediction of 8 frames, one clip."""
    tiny = measuring.on_cpu()
    net = SpaceTimeDiT(**work.SMALL, unroll=True) if tiny else work.make_net(size)
    steps = 2 if tiny else STEPS
    latents, components, keys = generator_prediction.draw(net, 1)
    params = work.draw_params(net)
    if side == 'torch':
        from re2pix_jax.benchmarks import plain_dit

        noise = generator_prediction.noise_of(net, keys)
        model = plain_dit.DiT(net).load(params)
        other = plain_dit.Prediction(model, 1, latents, components, noise)
        flops = generator_prediction.peer_work(net, steps)
        return _timed(lambda: other(steps).numpy(), flops, net.dtype) | {'steps': steps}
    model = jax.device_put(generator_prediction.make_model(net, params, latents, components))
    frames = jnp.zeros((1, net.context_frames, *generator_prediction.FRAMES, 3), jnp.uint8)
    program = generator_prediction.compiled(net, 1, steps)
    flops = generator_prediction.work_of(net, work.flops(net), steps)
    return _timed(lambda: program(model, frames, keys), flops, net.dtype) | {'steps': steps}


def forecaster(frames, batch, side):
    """A training step of stage 1, frozen encoder included."""
    if measuring.on_cpu():
        frames, batch = tuple(side // 8 for side in frames), 1
        forecaster_work.resize(frames, **TINY_FORECASTER)
    else:
        forecaster_work.resize(frames)
    depth = forecaster_work.DEPTH
    random = np.random.default_rng(0)
    shape = batch, forecaster_work.TIME, *forecaster_work.FRAMES, 3
    clips = random.integers(0, 256, shape, np.uint8)
    flops = batch * sum(forecaster_work.flops(depth).values())
    if side == 'torch':
        from re2pix_jax.benchmarks import plain_torch

        call = plain_torch.Step(depth, 1, clips)
    else:
        with tempfile.TemporaryDirectory() as folder:
            task, program = forecaster_step.make_step(
                depth, False, batch, forecaster_step.save_frozen(folder)
            )
        data = {'frames': jnp.asarray(clips), 'record': jnp.arange(batch, dtype=jnp.int32)}
        call = measuring.Stepper(task, program.compile(), data)
    return _timed(call, flops, measuring.compute_dtype()) | {'batch': batch}


def whole():
    """From frames to frames: both stages and the VAE, one clip, 8 frames."""
    tiny = measuring.on_cpu()
    model, steps = (bundles.load('tiny'), 2) if tiny else (prediction.make_model('b', None), STEPS)
    size = model.size if tiny else generator_prediction.FRAMES
    context = jnp.zeros((1, model.context_frames, *size, 3), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 1)
    horizon = generator_prediction.HORIZON
    call = functools.partial(model.rollout, context, keys, horizon, sampler_steps=steps)
    return _timed(call, None, None) | {'steps': steps, 'video_seconds': horizon / model.fps}


def differentiated(functions, shapes, name):
    """A candidate of attention, a norm or a gated unit, forward and with gradients."""
    tiny = measuring.on_cpu()
    dtype = measuring.compute_dtype()
    random = np.random.default_rng(0)
    arrays = [
        jnp.asarray(random.standard_normal([min(n, 16) if tiny else n for n in shape]), dtype)
        for shape in shapes
    ]
    function = functions[name]
    forward, both = jax.jit(function), jax.jit(attention.with_gradients(function))
    given = jax.block_until_ready(forward(*arrays))
    alone = measuring.seconds_of(lambda: forward(*arrays), REPEATS)
    return _timed(lambda: both(given, *arrays), None, None) | {'forward_seconds': alone}


def rows() -> dict:
    """{name: function that measures it}; what stands before the slash is compared."""
    found = {}
    for size in BATCH:
        for side in ('ours', 'torch'):
            found[f'step-{size}/{side}'] = functools.partial(step, size, side)
    for size in BATCH:
        for side in ('ours', 'torch'):
            found[f'predict-{size}/{side}'] = functools.partial(predicted, size, side)
    for name, frames, batch in (('low', (224, 448), 8), ('high', (448, 896), 2)):
        for side in ('ours', 'torch'):
            found[f'forecaster-{name}/{side}'] = functools.partial(forecaster, frames, batch, side)
    found['whole/ours'] = whole
    space, time_query, time_key = (8, 4, 512, 12, 64), (8, 512, 4, 12, 64), (8, 512, 8, 12, 64)
    clips, ours = (8, 4, 512, 768), {'ours': attend}
    cases = {
        'attention-space': (attention_candidates.ON_GPUS | ours, 3 * [space]),
        'attention-time': (
            attention_candidates.SHORT_ON_GPUS | ours,
            [time_query, time_key, time_key],
        ),
        'modulated-norm': (
            layer_candidates.MODULATED_NORMS,
            [clips, (768,), *2 * [(8, 1, 1, 768)]],
        ),
        'norm': (layer_candidates.NORMS, [clips, (768,), (768,)]),
        'gated-unit': (layer_candidates.GATED_UNITS, [clips, (768, 4096)]),
    }
    for case, (functions, shapes) in cases.items():
        for name in functions:
            found[f'{case}/{name}'] = functools.partial(differentiated, functions, shapes, name)
    return found


def _memory(side):
    """Bytes at most, of the device's memory or, on a CPU, of the process."""
    if not measuring.on_cpu() and side == 'torch':
        import torch

        return torch.cuda.max_memory_allocated()
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get('peak_bytes_in_use') or hardware.memory_bytes()


def main(name, file):
    measuring.share_gpu()
    found = rows()[name]()
    device = jax.devices()[0].device_kind
    found |= {'memory': _memory(name.rpartition('/')[2]), 'device': device}
    files.write_text(pathlib.Path(file), json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
