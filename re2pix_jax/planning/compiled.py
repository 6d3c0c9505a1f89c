"""What a compiler made of a program, kept on disk: minutes each, and the same as long as program,
devices and compiler are. jax's own cache keeps nothing that is compiled for devices that are not
here.
"""

import gzip
import hashlib
import json
import os
import pathlib
import re
from importlib.metadata import version as _version
from typing import NamedTuple

import jax

from re2pix_jax import files, remote
from re2pix_jax.planning.chips import Topology

_FLAGS = 'XLA_FLAGS', 'LIBTPU_INIT_ARGS'
_OWN = re.compile(r'--fibers_\S+')  # what every command sets, which changes no program
_AMOUNT = r'([\d.]+)([KMGT]?)'
_WANTED = re.compile(rf'Used {_AMOUNT} of {_AMOUNT} hbm|\({_AMOUNT}\) exceeds available HBM')
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


class Compiled(NamedTuple):
    """Of one device.

    Attributes:
        text: the compiled module's, '' where there is none: too little memory for it.
        peak: bytes at the most, all arguments and results included.
    """

    text: str
    peak: int


def compiled(lowered: jax.stages.Lowered, topology: Topology) -> Compiled:
    """Compiles a program for devices of `topology`, or reads what it became before."""
    place = remote.cache('plans') / f'{_key(lowered, topology)}.json.gz'
    if place.is_file():
        return _read(place)
    found = _compile(lowered)
    # By a name of its own: another process may be at the same program.
    own = place.with_name(f'{place.name}.{os.getpid()}')
    files.write_bytes(own, gzip.compress(json.dumps(found._asdict()).encode()))
    own.replace(place)
    return found


def _compile(lowered):
    try:
        made = lowered.compile()
    except jax.errors.JaxRuntimeError as error:  # a TPU's compiler gives up where memory ends
        if not (wanted := _WANTED.search(str(error))):
            raise
        number, unit = wanted.group(1, 2) if wanted[1] else wanted.group(5, 6)
        return Compiled('', int(float(number) * _UNITS[unit]))
    memory = made.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + results
    return Compiled(made.as_text(), peak)


def _read(place: pathlib.Path) -> Compiled:
    return Compiled(**json.loads(gzip.decompress(place.read_bytes())))


def _key(lowered, topology):
    """A digest of all that the outcome follows from. GPUs are compiled for as CPUs, of any name."""
    tpu = topology.chip.platform == 'tpu'
    told = [
        topology.name if tpu else f'cpu:{topology.count}',
        f'jax {jax.__version__}',
        f'libtpu {_version("libtpu")}' if tpu else 'cpu',
        *(f'{name}={_OWN.sub("", os.environ.get(name, "")).strip()}' for name in _FLAGS),
    ]
    digest = hashlib.sha256('\n'.join(told).encode())
    digest.update(lowered.as_text().encode())
    return digest.hexdigest()[:32]
