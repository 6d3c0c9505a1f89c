"""What the devices could do, what a step asks of them, and how fast it goes."""

import contextlib
import math
import resource
import sys
import time

import jax
import numpy as np

# Nominal bf16 peaks, TFLOP/s, by what a device's kind holds; the first that is found counts.
PEAKS = (
    ('h100 pcie', 756.0),
    ('h100 nvl', 835.0),
    ('h100', 989.0),
    ('h200', 989.0),
    ('a100', 312.0),
    ('4090', 165.0),
    ('4080', 97.5),
    ('4060 ti', 44.0),
    ('4060', 30.2),
    ('v5 lite', 197.0),
    ('v5e', 197.0),
    ('v5', 459.0),
    ('v6', 918.0),
)
CARDS = {
    'H100': (989.0, 'cards'),
    'A100': (312.0, 'cards'),
    'RTX 4090': (165.0, 'cards'),
    'TPU v5e': (197.0, 'cards'),
    'CPU core': (0.1, 'cores'),
}
"""Nominal dense peaks, TFLOP/s, by which recipes count hours: of cards in bf16 with float32 sums;
of a CPU core in float32, two 256-bit FMAs a cycle at 3 GHz.
"""
H100_BANDWIDTH = 3.35
"""Nominal TB/s of its memory."""
_ATTENTION = {'dot_product_attention_fwd': 4, 'dot_product_attention_bwd': 10}


def peak_tflops(kind: str) -> float | None:
    """The nominal bf16 peak of a device of that kind, None where it is not known."""
    return next((peak for name, peak in PEAKS if name in kind.lower()), None)


def memory_bytes() -> int:
    """In use on this process's fullest device; on a CPU, the most that the process has had."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = max(stat.get('bytes_in_use', 0) for stat in stats)
    unit = 1 if sys.platform == 'darwin' else 1024
    return used or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def flops(jaxpr, platform: str | None = None, kernels: bool = True) -> float:
    """Operations of the matrix products and convolutions of a program: a loop's body as often as it
    runs, of branches the largest, recomputation included; products with padding do not count.

    Of what is written once for each of some platforms, that of `platform` ('cpu', 'cuda', 'rocm',
    'tpu') counts, or the largest where it is None. Without `kernels`, what is in those of Pallas
    does not: a compiled program does not tell it.

    XLA's own count takes a loop's body once, and a GPU's attention kernel not at all. Of a loop
    whose length is not known beforehand, one round is counted here too.
    """
    return _count(jaxpr, _flops_of, platform, kernels)


def bytes_moved(jaxpr, platform: str | None = None) -> float:
    """Bytes that those products and convolutions read and write, counted alike: the least that a
    program moves whose other operations are all fused into them.
    """
    return _count(jaxpr, _bytes_of, platform)


def _count(jaxpr, of, platform=None, kernels=True):
    total = 0.0
    for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
        name, own = equation.primitive.name, of(equation)
        if own is not None:
            total += own
        elif name == 'cond':
            branches = _branches(equation.params, platform)
            total += max(_count(branch, of, platform, kernels) for branch in branches)
        else:
            times = equation.params['length'] if name == 'scan' else 1
            if name == 'pallas_call':  # once for each place of its grid
                times = kernels * math.prod(equation.params['grid_mapping'].grid)
            inside = _inner(equation.params.values())
            total += times * sum(_count(inner, of, platform, kernels) for inner in inside)
    return total


def _branches(params, platform):
    """Those that may run on a platform."""
    branches, names = params['branches'], params.get('branches_platforms')
    if not names or platform is None:
        return branches
    own = [branch for branch, of in zip(branches, names, strict=True) if of and platform in of]
    return own or [branch for branch, of in zip(branches, names, strict=True) if of is None]


def _flops_of(equation) -> float | None:
    """None of what is no product."""
    name, out = equation.primitive.name, equation.outvars[0].aval if equation.outvars else None
    if name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        left = equation.invars[0].aval.shape
        return 2.0 * math.prod(out.shape) * math.prod(left[i] for i in contracted)
    if name == 'conv_general_dilated':
        return _of_convolution(equation.params, *(x.aval.shape for x in equation.invars), out.shape)
    if name in _ATTENTION:  # query and key are [B, N, heads, d]
        (batch, queries, heads, width), key = (x.aval.shape for x in equation.invars[:2])
        return float(_ATTENTION[name]) * batch * heads * width * queries * key[1]
    return None


def _of_convolution(params, given, kernel, made):
    numbers = params['dimension_numbers']
    given, kernel, made = (
        [shape[axis] for axis in spec]
        for shape, spec in zip((given, kernel, made), numbers, strict=True)
    )
    total = 2.0 * made[0] * made[1] * kernel[1]
    for axis, (before, _) in enumerate(params['padding']):
        options = (
            params[name][axis] for name in ('window_strides', 'lhs_dilation', 'rhs_dilation')
        )
        total *= met(given[2 + axis], kernel[2 + axis], made[2 + axis], before, *options)
    return total


def met(
    given: int, kernel: int, made: int, before: int, stride: int, apart: int, holes: int
) -> int:
    """Along one axis of a convolution, how many pairs of a place of the result and one of the
    kernel meet an element that is there: neither padding nor a zero between two elements.

    Args:
        given, kernel, made: lengths of input, kernel and result.
        before: padding in front, < 0 where the input is cut.
        stride: from one place of the result to the next.
        apart: from one element of the input to the next, in steps of the kernel.
        holes: from one place of the kernel to the next.
    """
    starts = stride * np.arange(made)[:, None] + holes * np.arange(kernel) - before
    return int(((starts >= 0) & (starts <= (given - 1) * apart) & (starts % apart == 0)).sum())


def _bytes_of(equation) -> float | None:
    if _flops_of(equation) is None and equation.primitive.name != 'pallas_call':
        return None
    arrays = [x.aval for x in (*equation.invars, *equation.outvars)]
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays))


def _inner(values):
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _inner(value)
        elif hasattr(getattr(value, 'jaxpr', value), 'eqns'):
            yield value


class Meter:
    """How fast steps go, between two restarts.

    Args:
      clips: of a step.
      step_flops: operations of a step.
    """

    def __init__(self, clips: int, step_flops: float):
        self._clips, self._flops = clips, step_flops
        self.restart(0)

    def restart(self, step: int) -> None:
        """Measures from now on, after `step` steps."""
        self._began, self._step, self._waited = time.perf_counter(), step, 0.0

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time within as spent waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def read(self, step: int) -> dict[str, float]:
        """Rates up to `step`; 'mfu', a share of 1, is there where the devices' peak is known."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        rate = (step - self._step) / seconds
        values = {
            'steps_per_second': rate,
            'clips_per_second': rate * self._clips,
            'tflops': rate * self._flops / 1e12,
            'memory_gb': memory_bytes() / 1e9,
            'waiting_for_data': self._waited / seconds,
        }
        peak = peak_tflops(jax.devices()[0].device_kind)
        return values | ({'mfu': values['tflops'] / (peak * jax.device_count())} if peak else {})


def describe(values: dict[str, float]) -> str:
    """What `Meter.read` gives, beside the steps a second, for the line of progress."""
    mfu = f'  MFU {values["mfu"]:.1%}' if 'mfu' in values else ''
    return (
        f'{values["clips_per_second"]:.3g} clips/s  {values["tflops"]:.3g} TFLOP/s{mfu}  '
        f'{values["memory_gb"]:.3g} GB  {values["waiting_for_data"]:.0%} waiting for data'
    )


class Profile:
    """A trace of some steps, for xprof and TensorBoard, by the first process.

    Args:
      steps: (first, last), or () for none.
      folder: where to.
    """

    def __init__(self, steps: tuple, folder: str):
        self._steps, self._folder, self._running = steps, folder, False

    def before(self, number: int) -> None:
        """Starts before step `first`."""
        if self._steps and number == self._steps[0] and jax.process_index() == 0:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, number: int, state) -> bool:
        """Ends once step `last`, whose outcome is `state`, is done; whether it ended now."""
        if not self._running or number < self._steps[1]:
            return False
        jax.block_until_ready(state)
        self.close()
        return True

    def close(self) -> None:
        """Ends a trace that is still running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
