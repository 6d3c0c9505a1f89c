"""What benchmarks share: the fastest run of each side, the device's peak, memory by XLA's plans."""

import contextlib
import math
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.nn import attention
from re2pix_jax.report.table import table
from re2pix_jax.training import hardware, resume
from re2pix_jax.training import state as states

DEVICE = 80e9  # bytes


def on_cpu():
    return jax.default_backend() == 'cpu'


def compute_dtype():
    return 'float32' if on_cpu() else 'bfloat16'


def seconds_of(run, repeats=2):
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run())
        best = min(best, time.perf_counter() - began)
    return best


def in_turn(ours, theirs, repeats: int) -> tuple[float, float]:
    """Seconds of the fastest run of each, after one that does not count; taken in turn, so that a
    busy machine hits both.
    """
    best = [math.inf, math.inf]
    for number in range(repeats + 1):
        for side, run in enumerate((ours, theirs)):
            began = time.perf_counter()
            run()
            if number:
                best[side] = min(best[side], time.perf_counter() - began)
    return tuple(best)


def report(rows, header=('', 'ours', 'other', 'other / ours')) -> None:
    print(table(list(header), rows))


def share_gpu() -> None:
    """Before JAX starts: it takes most of a GPU's memory then, where torch needs some too."""
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')


class Peak(NamedTuple):
    """What a device can do."""

    flops: float  # operations a second
    share: str  # what a share of it is called
    about: str


def peak(dtype: str) -> Peak:
    """The nominal peak where it is known, else that of a large matrix product on this device."""
    kind = jax.devices()[0].device_kind
    nominal = hardware.peak_tflops(kind) if dtype == 'bfloat16' else None
    if nominal:
        return Peak(nominal * 1e12, 'MFU', f'MFU: of the nominal {nominal:.0f} TFLOP/s of {kind}')
    size = 2048 if on_cpu() else 8192
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    flops = 2 * size**3 / seconds_of(lambda: product(x), 6)
    about = f'{flops / 1e9:.0f} GFLOP/s of a large matrix product by XLA on this device, {dtype}'
    return Peak(flops, 'of a product', f'of a product: of the {about}')


@contextlib.contextmanager
def plain_attention():
    """Attention as products that XLA sees, all scores at once: it counts the body of a loop once,
    and a GPU's own kernel not at all.
    """
    usual, attention.LARGE = attention.LARGE, math.inf
    try:
        yield
    finally:
        attention.LARGE = usual


def lower_step(task, data):
    """The training step of the task for the abstract batch `data`, not yet compiled; its state is
    donated.
    """
    config = task.config
    transform, rate = resume.make_optimizer(task, config)
    state = jax.eval_shape(lambda data: states.create(task, transform, config.seed, data), data)
    step = jax.jit(
        states.make_step(task, transform, rate, config.seed, config.ema), donate_argnums=0
    )
    return step.lower(state, task.frozen, data, jax.ShapeDtypeStruct((), jnp.int32))


class Stepper:
    """Calls a compiled step on the same batch again and again: () -> metrics, when they are
    there.
    """

    def __init__(self, task, step, data):
        transform, _ = resume.make_optimizer(task, task.config)
        self.state = jax.jit(lambda: states.create(task, transform, 0, None))()
        self.task, self.step, self.data, self.number = task, step, data, 0

    def __call__(self):
        self.state, metrics, _ = self.step(
            self.state, self.task.frozen, self.data, np.int32(self.number)
        )
        self.number += 1
        return jax.block_until_ready(metrics)


def speed_table(seconds, work, peak):
    """The text of a table of (our, their) seconds for `work` operations."""
    rates = [work / value for value in seconds]
    return table(
        ['', 'ours', 'torch', 'torch / ours'],
        [
            ['seconds a step', *seconds, seconds[1] / seconds[0]],
            ['GFLOP/s', *(rate / 1e9 for rate in rates), rates[1] / rates[0]],
            [peak.share, *(rate / peak.flops for rate in rates), rates[1] / rates[0]],
        ],
    )


def bytes_by_clip(compiled):
    """(bytes whatever the batch, bytes of each clip) by the plans of the programs `compiled(clips)`
    for one and two clips.

    On a CPU attention is planned as devices without a kernel for it compute it.
    """
    with plain_attention() if on_cpu() else contextlib.nullcontext():
        plans = [compiled(clips).memory_analysis() for clips in (1, 2)]
    one, two = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
        for plan in plans
    )
    return 2 * one - two, two - one


def memory_table(needs):
    """The text of a table of {name: (bytes whatever the batch, bytes of each clip)}, with the clips
    that fit in `DEVICE`.
    """
    rows = [
        [name, rest / 1e9, each / 1e9, int((DEVICE - rest) // each)]
        for name, (rest, each) in needs.items()
    ]
    return table(
        ['memory, GB', 'without clips', 'each clip', f'clips in {DEVICE / 1e9:.0f} GB'], rows
    )
