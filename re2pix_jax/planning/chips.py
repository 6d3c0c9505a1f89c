"""Nominal figures of devices, and the slices and hosts that they are rented in."""

import math
import re
from typing import NamedTuple

from re2pix_jax.errors import UserError
from re2pix_jax.training import hardware


class Chip(NamedTuple):
    """A device as its maker describes it.

    Attributes:
        kind: its name to jax, by which its peak is known.
        platform: 'tpu' | 'gpu' | 'cpu'.
        memory: bytes that a program may use.
        bandwidth: of its memory, bytes a second.
        link: to the other devices, bytes a second in one direction, all its links together.
        host: how many a host of several has.
        alone: how many a host has that is alone, where those are more.
    """

    kind: str
    platform: str
    memory: float
    bandwidth: float
    link: float
    host: int
    alone: int = 0

    @property
    def flops(self) -> float:
        """Nominal peak in bfloat16, a second; of a CPU one core's in float32."""
        return 1e12 * (hardware.peak_tflops(self.kind) or hardware.CARDS['CPU core'][0])


GIB = 2.0**30
CHIPS = {
    'v5e': Chip('TPU v5 lite', 'tpu', 15.75 * GIB, 819e9, 200e9, 4, 8),
    'v5p': Chip('TPU v5', 'tpu', 95 * GIB, 2765e9, 600e9, 4),
    'v6e': Chip('TPU v6 lite', 'tpu', 31.25 * GIB, 1640e9, 400e9, 4, 8),
    'h100': Chip('H100', 'gpu', 79 * GIB, 3350e9, 450e9, 8),
    'h200': Chip('H200', 'gpu', 140 * GIB, 4800e9, 450e9, 8),
    'a100': Chip('A100', 'gpu', 79 * GIB, 2039e9, 300e9, 8),
    'rtx4090': Chip('RTX 4090', 'gpu', 23.5 * GIB, 1008e9, 32e9, 8),
    'rtx4080': Chip('RTX 4080', 'gpu', 15.5 * GIB, 717e9, 32e9, 8),
    'rtx4060': Chip('RTX 4060', 'gpu', 7.5 * GIB, 272e9, 16e9, 8),
    'cpu': Chip('cpu', 'cpu', 16 * GIB, 20e9, 10e9, 1),
}
"""By the name of a topology. Of a CPU: a core of a common machine, roughly."""


class Topology(NamedTuple):
    """So many devices of one kind.

    Attributes:
        name: as it was asked for, 'v5e:4x4' | 'h100:8'.
        chip: the devices.
        count: how many.
    """

    name: str
    chip: Chip
    count: int

    @property
    def hosts(self) -> int:
        return 1 if self.count <= self.chip.alone else -(-self.count // self.chip.host)


def parse(name: str) -> Topology:
    """'v5e:4x4', 'v5p:4x4x4', 'h100:8', 'cpu' → what it stands for.

    Raises:
        UserError: another name, or a shape that such a slice does not have.
    """
    kind, _, shape = name.partition(':')
    if kind not in CHIPS:
        raise UserError(
            f'--topology={name}: expected one of {", ".join(CHIPS)}, with a shape or a number as '
            'in v5e:4x4 and h100:8'
        )
    chip = CHIPS[kind]
    axes = {'v5e': 2, 'v6e': 2, 'v5p': 3}.get(kind, 1)
    pattern = 'x'.join([r'[1-9]\d{0,3}'] * axes)
    if not re.fullmatch(pattern, shape or ('1' if axes == 1 else '')):
        example = {2: '4x4', 3: '4x4x4', 1: '8'}[axes]
        raise UserError(f'--topology={name}: expected a shape as in {kind}:{example}')
    return Topology(name, chip, math.prod(map(int, (shape or '1').split('x'))))
