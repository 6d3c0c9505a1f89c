"""How arrays lie on the devices: by name.

Beside each network stands an ordered list SHARDING of (regular expression, PartitionSpec). The
first that is found in a parameter's '/'-joined path says which axes are cut over the mesh's 'fsdp',
its 'tensor' or both. A spec shorter than the array counts from its last axes, so that one rule
serves a layer and a stack of them. Averages and the optimiser's moments lie like the parameter
whose path theirs ends in. Arrays under `SMALLEST` bytes stay whole, and so does an axis that does
not divide. How networks lie while they compute is said in nn/layout.py.
"""

import math
import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from re2pix_jax.report.table import table

SMALLEST = 4 << 20


class Placed(NamedTuple):
    """Where a parameter lies."""

    shape: tuple[int, ...]
    spec: P  # over the axes of the mesh
    bytes: int  # on each device
    note: str  # why it is whole, where a rule or its size would have it cut


def rules_of(net, name: str = 'SHARDING') -> tuple:
    """The list of that name beside the class of `net`; () where there is none."""
    return getattr(sys.modules[type(net).__module__], name, ())


def place(params, rules: Iterable, mesh: Mesh | AbstractMesh) -> dict[str, Placed]:
    """{path: Placed} of a tree of parameters (or of their shapes).

    Args:
      params: the tree, without the outer 'params'.
      rules: (regular expression, PartitionSpec over 'fsdp' and 'tensor') in order.
      mesh: from `mesh.create`; an abstract one serves.
    """
    return {
        _join(path): _place(_join(path), leaf, rules, mesh)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def _place(path, leaf, rules, mesh):
    size = math.prod(leaf.shape) * leaf.dtype.itemsize
    rule = next((spec for pattern, spec in rules if re.search(pattern, path)), None)
    if mesh.size == mesh.shape['data'] or size < SMALLEST:
        return Placed(leaf.shape, P(), size, '')
    if rule is None:
        return Placed(leaf.shape, P(), size, 'no rule names it')
    if len(rule) > len(leaf.shape):
        raise ValueError(f'the sharding rule {rule} has more axes than {path} {leaf.shape}')
    spec, notes = [None] * (len(leaf.shape) - len(rule)), []
    for length, names in zip(leaf.shape[len(spec) :], rule, strict=True):
        names = (names,) if isinstance(names, str) else names or ()
        axes = tuple(name for name in names if mesh.shape[name] > 1)
        devices = math.prod(mesh.shape[axis] for axis in axes)
        if length % devices:
            notes.append(f'{length} does not divide by {devices}')
            axes, devices = (), 1
        spec.append(axes if len(axes) > 1 else axes[0] if axes else None)
        size //= devices
    return Placed(leaf.shape, P(*spec), size, '; '.join(notes))


def shardings(tree, placed: dict[str, Placed], mesh: Mesh):
    """The NamedSharding of every array of `tree`: that of the parameter in whose path its own ends,
    if their shapes agree too; whole otherwise.
    """

    def of(path, leaf):
        for start in range(len(path)):
            known = placed.get(_join(path[start:]))
            if known and known.shape == leaf.shape:
                return NamedSharding(mesh, known.spec)
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(of, tree)


def of_parts(tree, mesh: Mesh):
    """The NamedShardings of frozen parts, nested as they may be: a part's `params` by the rules
    beside its `net`, whatever else it holds whole.
    """
    if isinstance(tree, dict):
        return {name: of_parts(value, mesh) for name, value in tree.items()}
    if not hasattr(tree, '__dataclass_fields__'):
        return jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)
    changes = {
        name: of_parts(getattr(tree, name), mesh)
        for name, field in tree.__dataclass_fields__.items()
        if field.metadata.get('pytree_node', True)
    }
    if 'params' in changes and tree.params is not None:
        params = tree.params['params']
        placed = place(params, rules_of(tree.net), mesh)
        changes['params'] = shardings(tree.params, placed, mesh)
    return tree.replace(**changes)


def describe(placed: dict[str, Placed], moments: int = 2) -> str:
    """A table of parameters, how they are cut, and what a device holds of them, in text.

    Args:
      placed: from `place`.
      moments: of the optimiser, for each parameter.
    """
    rows = [
        [path, 'x'.join(map(str, at.shape)), _text(at.spec), f'{at.bytes:,}', at.note]
        for path, at in placed.items()
    ]
    held = sum(at.bytes for at in placed.values())
    total = sum(4 * math.prod(at.shape) for at in placed.values())
    text = table(['parameter', 'shape', 'cut over', 'bytes a device', ''], rows)
    return (
        f'{text}\n\n{total / 1e6:.1f} MB of parameters, {held / 1e6:.1f} MB on each device; with '
        f'their average and {moments} moments {(2 + moments) * held / 1e6:.1f} MB'
    )


def _text(spec):
    names = ['+'.join((name,) if isinstance(name, str) else name or '-') for name in spec]
    return ', '.join(names) or 'whole'


def _join(path):
    return jax.tree_util.keystr(path, simple=True, separator='/')
