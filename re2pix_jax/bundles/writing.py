"""Bundles written: a part, whole or not at all, and never over something else."""

import json
import os
import pathlib
import shutil

import flax.traverse_util

from re2pix_jax import files, remote
from re2pix_jax.bundles import hub
from re2pix_jax.bundles.kinds import KINDS, kind_of, tuples
from re2pix_jax.bundles.naming import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    FORMAT,
    WEIGHTS,
    find,
    place_of,
    read_config,
)
from re2pix_jax.bundles.reading import Bundle, load, read
from re2pix_jax.bundles.stored import is_floating, write_safetensors
from re2pix_jax.errors import UserError

STORAGES = ('float32', 'float16')


def check_place(path, kind: str, overwrite: bool = False) -> None:
    """Whether a bundle of `kind` may be written to `path`: `save` asks it, and who works for long
    before asks first.

    Raises:
        UserError: something else is there, a bundle of another kind included; or a bundle of this
            kind, without `overwrite`.
    """
    if remote.is_remote(path):
        remote.check_writable(path)
        held = {name.rstrip('/') for name in remote.names(path, deep=False)}
        held -= {name for name in held if name.startswith('.probe-')}
        own = {WEIGHTS, CARD, *KINDS[kind].parts, *KINDS[kind].references}
        if CONFIG not in held and held <= own:
            return  # what is left of an upload that was cut off: CONFIG comes last
        place = remote.local(path, lambda name: name == CONFIG)
    else:
        remote.check(path)
        path = place = pathlib.Path(path)
        held = {file.name for file in path.iterdir()} if path.is_dir() else {''}
        if not path.exists():
            return
    if not held:
        return
    try:
        there = None if CHECKPOINTS in held else read_config(place)['kind']
    except UserError:
        there = None
    if there is None:
        raise UserError(
            f'{path}: already exists and is not a bundle: choose another folder or remove it'
        )
    if there != kind:
        raise UserError(
            f'{path}: holds a bundle of kind {there}, which one of kind {kind} does not replace: '
            'choose another folder or remove it'
        )
    if not overwrite:
        raise UserError(
            f'{path}: already holds a bundle of kind {kind}: choose another folder, or pass '
            '--overwrite to replace it'
        )


def save(
    path,
    part,
    parts: dict | None = None,
    storage: str | None = None,
    card: str = '',
    about: dict | None = None,
    like=None,
    overwrite: bool = False,
) -> None:
    """Saves a part (Encoder, Forecaster, Re2Pix, ...) as a bundle, beside its place and then
    renamed into it.

    Args:
        path: the folder; one in a bucket gets copies of the parts that lie on this machine.
        part: the part. Parts inside it are saved inside the bundle, unless `parts` names where they
            already are.
        parts: {name: folder, shipped name or "hf:owner/repo"}; of a larger bundle the one part is
            meant that it is made of. Names that this kind of bundle does not hold, and empty paths,
            are left aside, so that a task can hand over all of its frozen bundles.
        storage: 'float32' (None says the same) or 'float16', of floating tensors in the file.
        card: text of MODEL_CARD.md; a short one is made if empty.
        about: anything JSON can hold, for the reader: data, scores, training.
        like: the bundle that the part was opened from: storage, card and about are as there (in the
            parts inside too) where none is given. A part that was not changed is then saved to the
            same bytes.
        overwrite: replace a bundle of the same kind, with all that its folder holds.

    Raises:
        UserError: as `check_place`; a part is named that is not there; values beyond float16; or
            the folder cannot be written.
    """
    kind, source = kind_of(part), None if like is None else read(like)
    check_place(path, kind.name, overwrite)
    if source is not None:
        storage, about, card = (
            storage or source.storage,
            about or source.extras.get('about'),
            card or _own_card(source),
        )
    storage = storage or 'float32'
    if storage not in STORAGES:
        raise UserError(f'{path}: storage {storage!r}: expected one of {", ".join(STORAGES)}')
    named = {name: place for name, place in (parts or {}).items() if place}
    held = {
        name: named.get(name, getattr(part, name))
        for name in kind.parts
        if getattr(part, name) is not None
    }
    held |= {name: named[name] for name in kind.references if name in named}
    tensors = flax.traverse_util.flatten_dict(kind.tensors_of(part), sep='/')
    with files.replacing_folder(path) as partial:
        references = {
            name: _place_part(name, inner, path, partial, storage, source)
            for name, inner in held.items()
        }
        config = {
            'format': FORMAT,
            'kind': kind.name,
            'network': _network_of(kind, part, source),
            'storage': storage,
            **({'parts': references} if references else {}),
            **{
                name: getattr(part, name)
                for name, default in kind.extras().items()
                if getattr(part, name) != default
            },
            **({'about': about} if about else {}),
        }
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + '\n')
        write_safetensors(
            partial / WEIGHTS,
            tensors,
            lambda _, array: storage if is_floating(array) else array.dtype,
        )
        (partial / CARD).write_text(card or _default_card(config, tensors))


def _network_of(kind, part, source: Bundle | None) -> dict:
    """The "network" of config.json. What `source` says may be the same in fewer words: fields that
    the network has gained since are not written down.
    """
    if (
        source is not None
        and kind.net is not None
        and source.kind == kind.name
        and kind.build_net(source.network, source.path) == part.net
    ):
        return {name: tuples(value) for name, value in source.network.items()}
    return kind.describe_net(part)


def _place_part(
    name: str, part, path, partial: pathlib.Path, storage: str, source: Bundle | None
) -> str:
    """Saves a part object inside the bundle, or says how the config should name a bundle that is
    elsewhere.
    """
    if not isinstance(part, str | os.PathLike):
        held = source is not None and name in source.parts
        like = place_of(source.path, source.parts[name]) if held else None
        save(partial / name, part, storage=storage, like=like)
        return name
    text = os.fspath(find(part, name))  # a name that leads nowhere must not be written down
    if remote.is_remote(text):
        beside = remote.is_remote(path) and remote.relative(text, path)
        return beside or remote.address(text)
    if text.startswith(hub.PREFIX) or not os.path.isdir(text):
        return hub.pinned(text)
    if remote.is_remote(path):  # whoever opens it there cannot follow a path of this machine
        save(partial / name, load(text), storage=storage, like=text)
        return name
    inside = os.path.relpath(os.path.abspath(text), os.path.abspath(path))
    if not inside.startswith('..') and inside != '.':
        shutil.copytree(text, partial / inside)  # the folder it is in now is about to be replaced
    return inside


def _own_card(bundle: Bundle) -> str:
    """A bundle's card if somebody wrote it; '' for one that was made of its config."""
    network = {name: tuples(value) for name, value in bundle.network.items()}
    config = {
        'kind': bundle.kind,
        'network': network,
        'storage': bundle.storage,
        'parts': bundle.parts,
    }
    return '' if bundle.card == _default_card(config, bundle.tensors) else bundle.card


def _default_card(config: dict, tensors: dict) -> str:
    count = sum(array.size for array in tensors.values())
    lines = [f'# {config["kind"]}', '', f'{count:,} parameters, stored in {config["storage"]}.', '']
    lines += [f'- {name}: {value}' for name, value in config['network'].items()]
    lines += [f'- part {name}: {place}' for name, place in config.get('parts', {}).items()]
    return '\n'.join(lines) + '\n'
