"""Bundles read: a folder's files as they are, and opened as the part that their kind says.

Loading is strict: every tensor is used, every parameter is filled.
"""

import dataclasses
import pathlib

import jax
import numpy as np
from flax import traverse_util

from re2pix_jax.bundles.kinds import KINDS, check_forecaster, unmatched
from re2pix_jax.bundles.naming import CARD, CONFIG, WEIGHTS, find, place_of, read_config, resolve
from re2pix_jax.bundles.stored import is_floating, read_safetensors
from re2pix_jax.bundles.upgrade import stacked
from re2pix_jax.errors import UserError
from re2pix_jax.nn.summary import remember


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle as it lies on disk.

    Attributes:
        path: its folder.
        kind: a key of `kinds.KINDS`.
        network: the static fields of its network.
        tensors: flat dict of `Stored` tensors, in storage precision.
        parts: {name: where the part's bundle lies}.
        extras: everything else in config.json.
        storage: 'float32' or 'float16'.
        card: the text of its model card.
    """

    path: pathlib.Path
    kind: str
    network: dict
    tensors: dict
    parts: dict
    extras: dict
    storage: str
    card: str


def read(name) -> Bundle:
    """Reads a bundle's files and checks them, without opening its parts.

    Raises:
        UserError: if there is no such bundle, or a file of it is missing, damaged or of a newer
            format.
    """
    path = resolve(name)
    config = read_config(path)
    named = {field: config.pop(field) for field in ('kind', 'network', 'parts', 'storage')}
    del config['format']
    card = path / CARD
    return Bundle(
        path=path,
        **named,
        tensors=stacked(named['kind'], read_safetensors(path / WEIGHTS)),
        extras=config,
        card=card.read_text(errors='replace') if card.is_file() else '',
    )


def load(name, kind: str | tuple[str, ...] | None = None):
    """Opens a bundle as the part that its kind says, with float32 parameters.

    Args:
        name: a shipped name ("tiny", "tiny/encoder"), a folder or "hf:owner/repo".
        kind: the kind that is needed, several that will do, or None for any. A larger bundle that
            is made of one such part gives that part.

    Raises:
        UserError: as `read`, and if kinds, sizes or tensors do not fit. All tensors that do not are
            in one message.
    """
    bundle = read(find(name, kind))
    rules, config = KINDS[bundle.kind], bundle.path / CONFIG
    net = rules.build_net(bundle.network, config)
    unmatched(
        bundle.path / WEIGHTS,
        rules.expected(net, bundle.network, bundle.tensors, config),
        bundle.tensors,
    )
    # Not by jnp.asarray, which compiles a program for each shape.
    arrays = {path: _single(array) for path, array in bundle.tensors.items()}
    tensors = jax.device_put(arrays, may_alias=False)
    tree = traverse_util.unflatten_dict(tensors, sep='/')
    fields = rules.read_extras(bundle.extras, config)
    fields |= tree if net is None else {'params': tree, 'net': net}
    absent = [
        part for part in rules.parts if part not in bundle.parts and part not in rules.optional
    ]
    beyond = [part for part in bundle.parts if part not in rules.parts + rules.references]
    if absent or beyond:
        raise UserError(
            f'{config}: "parts" of kind {bundle.kind} are {", ".join(rules.parts) or "none"}; '
            f'absent: {", ".join(absent) or "none"}, unknown: {", ".join(beyond) or "none"}'
        )
    fields |= {
        part: load(place_of(bundle.path, bundle.parts[part]), part)
        for part in rules.parts
        if part in bundle.parts
    }
    try:
        part = rules.part_class()(**fields)
    except ValueError as error:
        raise UserError(f'{config}: {error}') from error
    if bundle.kind == 'forecaster':
        check_forecaster(bundle.path, part)
    remember(part, str(name))
    return part


def _single(array) -> np.ndarray:
    return np.asarray(array, np.float32 if is_floating(array) else None)
