"""Attention's candidates for TPUs by the compiler's own schedule: no TPU is needed.

    re2pix benchmark attention --batch=8        (pip install libtpu; on a CPU: minutes)

Over space in DiT-B, 512 tokens of each of 4 frames, and over time, 4 queries and 8 keys at each of
512 places; 12 heads of 64, bfloat16, forward alone and with the gradients. The batch is of clips.
"""

import jax
import jax.numpy as jnp

from re2pix_jax.benchmarks import attention_candidates as candidates
from re2pix_jax.benchmarks import tpu_schedule
from re2pix_jax.report.table import Number, table

HEADS, PLACES, FRAMES, KEYS = (12, 64), 512, 4, 8


def cases(batch: int) -> dict:
    """{name: (candidates, shapes of query and of key and value)}."""
    return {
        'over space': (candidates.ON_TPUS, 2 * [(batch, FRAMES, PLACES, *HEADS)]),
        'over time': (
            candidates.SHORT_ON_TPUS,
            [(batch, PLACES, length, *HEADS) for length in (FRAMES, KEYS)],
        ),
    }


def with_gradients(function):
    """(its gradient, *arguments) -> what the function gives, and the arguments' gradients."""

    def compute(given, *arguments):
        result, backward = jax.vjp(function, *arguments)
        return result, backward(given)

    return compute


def run(batch: int) -> None:
    """Prints a table."""
    rows = []
    with tpu_schedule.compiler() as estimate:
        for case, (functions, (query, key)) in cases(batch).items():
            queries, keys = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (query, key))
            arguments = queries, keys, keys
            for name, function in functions.items():
                programs = {
                    'forward': (function, arguments),
                    'with gradients': (with_gradients(function), (queries, *arguments)),
                }
                for what, (program, taken) in programs.items():
                    rows.append([case, what, name, *_columns(estimate(program, taken))])
    rows.sort(key=lambda row: row[:2])
    head = ['attention', '', 'by', 'schedule,\nms', 'moved,\nGB', 'at 819 GB/s,\nms']
    print(table([*head, 'temporaries,\nMB'], rows))
    print(
        f'one core of a TPU v5e, batch {batch}; schedule: cycles of the final bundles at '
        f'{tpu_schedule.CLOCK / 1e9:.3g} GHz, without waiting for memory; moved: operands and '
        "results of every operation by XLA's cost analysis, in whichever memory"
    )


def _columns(found):
    return [
        Number(f'{1e3 * found.scheduled:.3f}'),
        Number(f'{found.bytes / 1e9:.3f}'),
        Number(f'{1e3 * found.moving:.3f}'),
        Number(f'{found.temporaries / 1e6:.0f}'),
    ]
