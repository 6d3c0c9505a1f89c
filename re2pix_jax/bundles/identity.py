"""What a network is called by what it computes: one name for all copies of it, however they are
stored.

It is made of the kind, the static fields that are not at their default (so that a field which
networks get one day makes no strangers of all before it), the parameters in half precision, and the
same of the parts. Cards and notes do not count, nor does what says how to compute and not what.
"""

import functools
import hashlib
import json
import math
import os
import re

import flax.traverse_util
import numpy as np

from re2pix_jax.bundles.kinds import KINDS, Kind, kind_of
from re2pix_jax.bundles.naming import CONFIG, WEIGHTS, find, place_of, read_config, resolve
from re2pix_jax.bundles.stored import is_floating, read_safetensors

ASIDE = ('remat', 'keep', 'unroll', 'dropout', 'frames_at_once', 'image_size', 'encoder')
"""Fields that do not say what is computed of a given input: how the work is cut, what is left to
chance in training, the size an encoder's frames come in, the encoder that a head was trained on."""


def identity(part) -> str:
    """The identity of a part in memory (Encoder, Principal, Re2Pix, ...): a sha256."""
    kind = kind_of(part)
    tensors = flax.traverse_util.flatten_dict(kind.tensors_of(part), sep='/')
    return _combined(
        kind,
        None if kind.net is None else part.net,
        {name: getattr(part, name) for name in kind.extras()},
        contents(tensors),
        {
            name: identity(getattr(part, name))
            for name in kind.parts
            if getattr(part, name) is not None
        },
    )


def digest(name, kind: str | tuple[str, ...] | None = None) -> str:
    """The `identity` of a bundle on disk, or of the one part of a kind that it is made of (as
    `load`), one tensor in memory at a time.
    """
    path = resolve(find(name, kind))
    config = read_config(path)
    rules = KINDS[config['kind']]
    about = os.stat(path / WEIGHTS) if os.path.isfile(path / WEIGHTS) else None
    return _combined(
        rules,
        rules.build_net(config['network'], path / CONFIG),
        rules.read_extras(config, path / CONFIG),
        _contents_of_file(
            path / WEIGHTS, about and (about.st_ino, about.st_size, about.st_mtime_ns)
        ),
        {part: digest(place, part) for part, place in _parts_of(path, config)},
    )


def part_digests(name, kind: str | tuple[str, ...] | None = None) -> dict[str, str]:
    """`digest` of every part that a bundle holds or refers to, and of theirs: {'encoder': ...,
    'principal': ...}.
    """
    path = resolve(find(name, kind))
    found = {}
    for part, place in _parts_of(path, read_config(path)):
        found |= {part: digest(place, part), **part_digests(place, part)}
    return found


def _parts_of(path, config) -> list[tuple]:
    """(name, where its bundle lies) of the parts of the bundle at `path`."""
    return [
        (part, place_of(path, reference))
        for part, reference in config['parts'].items()
        if part in KINDS[config['kind']].parts
    ]


def _combined(kind: Kind, net, extras: dict, tensors: str, parts: dict[str, str]) -> str:
    network = kind.fields_of(net, changed=True) if net is not None else {}
    defaults = kind.extras()
    extras = {name: value for name, value in extras.items() if value != defaults[name]}
    described = {
        'kind': kind.name,
        'network': _compared(network),
        'extras': _compared(extras),
        'tensors': tensors,
        'parts': parts,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _compared(fields: dict) -> dict:
    """The fields that count; a number is the same one as an integer and as a float."""

    def one(value):
        if isinstance(value, list | tuple):
            return [one(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return {name: one(value) for name, value in fields.items() if name not in ASIDE}


@functools.lru_cache(64)
def _contents_of_file(path, stat) -> str:
    del stat  # of a file that is written anew
    return contents(read_safetensors(path))


def contents(tensors: dict) -> str:
    """sha256 over tensors by '/'-joined path, in half precision.

    The layers of a stack, `blocks_0/...`, `blocks_1/...`, count as one array `blocks/...` of them
    all, so that a stack has one identity whether its layers are stored apart or together. Shapes
    follow from the network's fields and the number of values.
    """
    stacks: dict[str, list[str]] = {}
    for path in tensors:
        stacks.setdefault(re.sub(r'_\d+(?=/)', '', path), []).append(path)
    found = hashlib.sha256()
    for stack, paths in sorted(stacks.items()):
        count = sum(math.prod(tensors[path].shape) for path in paths)
        found.update(f'{stack} {count}\n'.encode())
        for path in sorted(
            paths, key=lambda path: ([*map(int, re.findall(r'_(\d+)/', path))], path)
        ):
            found.update(_halved(np.asarray(tensors[path])))
    return found.hexdigest()


def _halved(array: np.ndarray) -> bytes:
    with np.errstate(over='ignore'):
        return (array.astype(np.float16) if is_floating(array) else array).tobytes()
