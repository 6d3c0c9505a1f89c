"""What the compiler for TPUs says of a program, without a TPU: its final schedule, and memory.

The schedule is a text for each operation of the compiled module, kernels included: a line is a
bundle, which takes a cycle where nothing is waited for, and a loop ends with the number of its
rounds. So cycles are a lower bound: they have no time for memory. XLA's own 'optimal_seconds' is
below zero for most programs here, and knows nothing of kernels.
"""

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from re2pix_jax.errors import UserError
from re2pix_jax.training import hardware

UNITS = 4 * 128 * 128  # multiplications and additions a cycle of a v5e
CLOCK = hardware.peak_tflops('v5e') * 1e12 / (2 * UNITS)
BANDWIDTH = 819e9  # nominal bytes a second of its memory


class Estimate(NamedTuple):
    """Of one program on one core.

    Attributes:
        cycles: of its schedule.
        bytes: that its operations read and write, in whichever memory.
        temporaries: bytes of the device's memory at most, beside arguments and results.
    """

    cycles: int
    bytes: float
    temporaries: int

    @property
    def scheduled(self) -> float:
        """Seconds, were there nothing to wait for."""
        return self.cycles / CLOCK

    @property
    def moving(self) -> float:
        """Seconds, were all bytes in the device's memory and all else hidden behind them."""
        return self.bytes / BANDWIDTH


def cycles(text: str) -> int:
    """Cycles of the final bundles of one operation, a loop's as often as it runs."""
    open_loops = [[0, 1]]
    for line in text.splitlines():
        if not re.match(r'\s*(0x[0-9a-f]+|0)\s.*\{', line):
            continue
        if re.match(r'\s*\S+\s+[A-Z, ]*\bLB\b', line):
            open_loops.append([0, None])
        open_loops[-1][0] += 1
        rounds = re.search(r'(\d+) /\* loop exit test', line)
        if rounds and len(open_loops) > 1:
            open_loops[-1][1] = int(rounds[1])
        if open_loops[-1][1] and len(open_loops) > 1 and 'sbr.rel' in line:
            own, times = open_loops.pop()
            open_loops[-1][0] += own * times
    return sum(own for own, _ in open_loops)


@contextlib.contextmanager
def compiler() -> Iterator[Callable[[Callable, Sequence], Estimate]]:
    """(function, abstract arguments) -> Estimate, for one core of a v5e; no devices are used.

    Raises:
        UserError: libtpu is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
        asked = f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true'
        only = '--xla_jf_dump_llo_pass_label_regex=final_bundles'
        # Read when the library is loaded, which the topology does.
        os.environ['LIBTPU_INIT_ARGS'] = (
            f'{os.environ.get("LIBTPU_INIT_ARGS", "")} {asked} {only}'.strip()
        )
        try:
            found = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x2')
        except Exception as error:  # whatever the plugin raises
            raise UserError(
                f'TPUs cannot be compiled for ({str(error).splitlines()[0]}); pip install libtpu'
            ) from error
        kinds = 2 * (jax.sharding.AxisType.Auto,)
        mesh = jax.sharding.Mesh(
            np.array(found.devices[:1]).reshape(1, 1), ('data', 'tensor'), axis_types=kinds
        )
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

        def estimate(function, arguments):
            for file in pathlib.Path(folder).iterdir():
                file.unlink()
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for x in arguments]
            with jax.set_mesh(mesh):
                lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=('tpu',))
                program = lowered.compile()
            return Estimate(
                sum(cycles(file.read_text()) for file in _operations(folder)),
                program.cost_analysis()['bytes accessed'],
                program.memory_analysis().temp_size_in_bytes,
            )

        yield estimate


def _operations(folder) -> Iterator[pathlib.Path]:
    """The final bundles of each operation; TLP is the program around them."""
    for file in pathlib.Path(folder).glob('*-final_bundles.txt'):
        name = re.sub(r'^\d+-', '', file.name)
        if 'schedule-analysis' not in name and not name.startswith(('TLP', '<')):
            yield file
