"""Bundles: folders that hold a trained part, or a model made of parts.

    config.json          {"format": 1, "kind": ..., "network": {...}, "storage": "float32", "parts":
    {"encoder": "../encoder"}, ...} weights.safetensors  tensors by '/'-joined path in the parameter
    tree
    MODEL_CARD.md        what people should know before they use it

A part is named by a path relative to the bundle, an absolute path, a shipped name or
"hf:owner/repo"; where nothing else is
said it is saved inside. Loading is strict: every tensor is used, every parameter is filled.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import shutil

import jax
import numpy as np

from re2pix_jax.bundles import hub
from re2pix_jax.bundles.kinds import KINDS, flatten, kind_of, tuples, unflatten, unmatched
from re2pix_jax.bundles.stored import read_safetensors, write_safetensors
from re2pix_jax.bundles.upgrade import stacked
from re2pix_jax.errors import UserError

FORMAT = 2
SHIPPED = pathlib.Path(__file__).parent / 'shipped'
STORAGES = ('float32', 'float16')
OWN_KEYS = ('format', 'kind', 'network', 'storage', 'parts', 'about')


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle as it lies on disk.

    Attributes:
        path: its folder.
        kind, network, storage, parts, card: as in `save`.
        extras: everything else in config.json.
        tensors: flat dict of `Stored` tensors, in storage precision.
    """

    path: pathlib.Path
    kind: str
    network: dict
    tensors: dict
    parts: dict
    extras: dict
    storage: str
    card: str


def save(
    path,
    kind: str,
    network: dict,
    tree: dict,
    parts: dict | None = None,
    extras: dict | None = None,
    storage: str = 'float32',
    card: str = '',
    source: Bundle | None = None,
) -> None:
    """Writes a bundle folder, beside its place and then renamed into it; a bundle already there is
    replaced.

    Args:
        path: the folder.
        kind: a key of `kinds.KINDS`.
        network: the network's static fields.
        tree: nested dict of arrays.
        parts: {name: path or name of its bundle, or a part object, which is saved inside}.
        extras: further entries of config.json; 'about' may hold anything.
        storage: 'float32' or 'float16', of floating tensors in the file.
        card: text of MODEL_CARD.md; a short one is made if empty.
        source: the bundle that parts inside are saved like.
    """
    path = pathlib.Path(path)
    if kind not in KINDS or storage not in STORAGES:
        raise UserError(
            f'{path}: cannot save kind {kind!r} in {storage!r}: kinds are {", ".join(KINDS)}, '
            f'storages {", ".join(STORAGES)}'
        )
    if (
        path.exists()
        and not (path / 'config.json').is_file()
        and (not path.is_dir() or any(path.iterdir()))
    ):
        raise UserError(
            f'{path}: already exists and is not a bundle: choose another folder or remove it'
        )
    tensors = flatten(tree)
    partial = path.with_name(path.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        references = {
            name: _place_part(name, part, path, partial, storage, source)
            for name, part in (parts or {}).items()
        }
        config = {'format': FORMAT, 'kind': kind, 'network': network, 'storage': storage}
        config |= ({'parts': references} if references else {}) | (extras or {})
        (partial / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        write_safetensors(
            partial / 'weights.safetensors',
            tensors,
            lambda _, array: storage if _floating(array) else array.dtype,
        )
        (partial / 'MODEL_CARD.md').write_text(card or _default_card(config, tensors))
        if path.exists():
            old = path.with_name(path.name + '.old')
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f'{path}: the bundle could not be written: {error.strerror or error}'
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_part(
    path,
    part,
    parts: dict | None = None,
    storage: str | None = None,
    card: str = '',
    about: dict | None = None,
    like=None,
) -> None:
    """Saves a part (Encoder, Forecaster, Re2Pix, ...) as a bundle.

    Args:
        path: the folder.
        part: the part. Parts inside it are saved inside the bundle, unless `parts` names where they
            already are.
        parts: {name: folder, shipped name or "hf:owner/repo"}. Names that this kind of bundle does
            not hold, and empty paths, are left aside, so that a task can hand over all of its
            frozen bundles.
        storage: 'float32' (None says the same) or 'float16'.
        card: text of MODEL_CARD.md.
        about: anything JSON can hold, for the reader: data, scores, training.
        like: the bundle that the part was opened from: storage, card and about are as there (in the
            parts inside too) where none is given. A part that was not changed is then saved to the
            same bytes.
    """
    kind = kind_of(part)
    named = {name: value for name, value in (parts or {}).items() if value}
    held = {
        name: named.get(name, getattr(part, name))
        for name in kind.parts
        if getattr(part, name) is not None
    }
    held |= {name: named[name] for name in kind.references if name in named}
    extras = {
        name: getattr(part, name)
        for name, default in kind.extras().items()
        if getattr(part, name) != default
    }
    network, source = kind.describe_net(part), None if like is None else read(like)
    if source is not None:
        storage, about, card = (
            storage or source.storage,
            about or source.extras.get('about'),
            card or _own_card(source),
        )
        # What it says may be the same in fewer words: fields that the network has gained since are
        # not written down.
        if (
            kind.net is not None
            and source.kind == kind.name
            and kind.build_net(source.network, str(source.path)) == part.net
        ):
            network = {name: tuples(value) for name, value in source.network.items()}
    extras |= {'about': about} if about else {}
    save(
        path,
        kind.name,
        network,
        kind.tensors_of(part),
        held,
        extras,
        storage or 'float32',
        card,
        source,
    )


def read(name) -> Bundle:
    """Reads a bundle's files and checks them, without opening its parts.

    Raises:
        UserError: if there is no such bundle, or a file of it is missing, damaged or of a newer
            format.
    """
    path = resolve(name)
    config = _read_config(path)
    tensors = stacked(config['kind'], read_safetensors(path / 'weights.safetensors'))
    card = path / 'MODEL_CARD.md'
    extras = {key: value for key, value in config.items() if key not in OWN_KEYS[:-1]}
    return Bundle(
        path,
        config['kind'],
        config['network'],
        tensors,
        config.get('parts', {}),
        extras,
        config['storage'],
        card.read_text() if card.is_file() else '',
    )


def load(name, kind: str | tuple[str, ...] | None = None):
    """Opens a bundle as the part that its kind says, with float32 parameters.

    Args:
        name: a shipped name ("tiny", "tiny/encoder"), a folder or "hf:owner/repo".
        kind: the kind it has to be, several that it may be, or None for any.

    Raises:
        UserError: as `read`, and if kinds, sizes or tensors do not fit. All tensors that do not are
            in one message.
    """
    bundle = read(name)
    wanted = (kind,) if isinstance(kind, str) else kind
    if wanted is not None and bundle.kind not in wanted:
        raise UserError(
            f'{bundle.path}: holds kind {bundle.kind}, where kind {" or ".join(wanted)} is needed'
        )
    rules = KINDS[bundle.kind]
    known = rules.extras()
    strange = sorted(set(bundle.extras) - set(known) - {'about'})
    if strange:
        raise UserError(
            f'{bundle.path}/config.json: unknown entries {", ".join(strange)}; kind {bundle.kind} '
            'may have '
            f'{", ".join([*known, "about"])}'
        )
    net = rules.build_net(bundle.network, f'{bundle.path}/config.json')
    unmatched(
        f'{bundle.path}/weights.safetensors',
        rules.expected(net, bundle.network, bundle.tensors, str(bundle.path)),
        bundle.tensors,
    )
    tree = unflatten(
        {name: jax.numpy.asarray(_single(array)) for name, array in bundle.tensors.items()}
    )
    fields = {key: tuples(value) for key, value in bundle.extras.items() if key in known}
    fields |= tree if net is None else {'params': tree, 'net': net}
    absent = [
        part for part in rules.parts if part not in bundle.parts and part not in rules.optional
    ]
    beyond = [part for part in bundle.parts if part not in rules.parts + rules.references]
    if absent or beyond:
        raise UserError(
            f'{bundle.path}/config.json: "parts" of kind {bundle.kind} are '
            f'{", ".join(rules.parts) or "none"}; '
            f'absent: {", ".join(absent) or "none"}, unknown: {", ".join(beyond) or "none"}'
        )
    fields |= {
        part: load(_reference(bundle.path, bundle.parts[part]), part)
        for part in rules.parts
        if part in bundle.parts
    }
    part = rules.part_class()(**fields)
    if bundle.kind == 'forecaster':
        check_forecaster(bundle.path, part)
    return part


def digest(name) -> str:
    """sha256 over what a bundle computes: its config, tensors and parts, wherever those lie. Cards
    and notes do not count.
    """
    path = resolve(name)
    config = _read_config(path)
    parts = {
        part: digest(_reference(path, reference))
        for part, reference in config.get('parts', {}).items()
        if part in KINDS[config['kind']].parts
    }
    shown = {key: value for key, value in config.items() if key not in ('parts', 'about')}
    with open(path / 'weights.safetensors', 'rb') as file:
        tensors = hashlib.file_digest(file, 'sha256').hexdigest()
    text = json.dumps({'config': shown, 'tensors': tensors, 'parts': parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def part_digests(name) -> dict[str, str]:
    """`digest` of every part that a bundle holds or refers to, and of theirs: {'encoder': ...,
    'principal': ...}.
    """
    path = resolve(name)
    config = _read_config(path)
    found = {}
    for part, reference in config.get('parts', {}).items():
        if part in KINDS[config['kind']].parts:
            inner = _reference(path, reference)
            found |= {part: digest(inner), **part_digests(inner)}
    return found


def shipped() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(file.parent.name for file in SHIPPED.glob('*/config.json'))


def resolve(name) -> pathlib.Path:
    """The folder of a bundle, given its folder, shipped name or "hf:owner/repo" (fetched on first
    use).
    """
    text = os.fspath(name)
    if text.startswith('hf:'):
        return resolve(hub.fetch(text))
    if (pathlib.Path(text) / 'config.json').is_file():
        return pathlib.Path(text)
    if not os.path.isabs(text) and (SHIPPED / text / 'config.json').is_file():
        return SHIPPED / text
    if os.path.isdir(text):
        raise UserError(
            f'{text}: is a folder without config.json: a bundle folder holds config.json and '
            'weights.safetensors'
        )
    near = difflib.get_close_matches(text, shipped(), n=1)
    raise UserError(
        f'{text}: no such model{f", did you mean {near[0]!r}" if near else ""}: give a bundle '
        'folder, '
        f'"hf:owner/repo" or a shipped name ({", ".join(shipped()) or "none is shipped"})'
    )


def _reference(path: pathlib.Path, reference: str):
    """Where a part of the bundle at `path` lies: a folder relative to it, else whatever `resolve`
    takes.
    """
    relative = path / reference
    return relative if not reference.startswith('hf:') and relative.is_dir() else reference


def _read_config(path: pathlib.Path) -> dict:
    file = path / 'config.json'
    try:
        config = json.loads(file.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f'{file}: is not readable JSON ({error}): fetch or export the bundle again'
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get('format'), int):
        raise UserError(
            f'{file}: is not a bundle\'s config: it needs "format", "kind" and "network"'
        )
    if config['format'] > FORMAT:
        raise UserError(
            f'{file}: has format {config["format"]} and this version reads up to {FORMAT}: update '
            're2pix_jax'
        )
    if config.get('kind') not in KINDS:
        raise UserError(
            f'{file}: unknown kind {config.get("kind")!r}: expected one of {", ".join(KINDS)}'
        )
    config.setdefault('storage', 'float32')
    if (
        config['storage'] not in STORAGES
        or not isinstance(config.get('network'), dict)
        or not isinstance(config.get('parts', {}), dict)
    ):
        raise UserError(
            f'{file}: needs "network" (an object), "parts" (an object, if any) and "storage" '
            f'({" or ".join(STORAGES)})'
        )
    return config


def _place_part(
    name: str, part, path: pathlib.Path, partial: pathlib.Path, storage: str, source: Bundle | None
) -> str:
    """Saves a part object inside the bundle, or says how the config should name a bundle that is
    elsewhere.
    """
    if not isinstance(part, str | os.PathLike):
        like = (
            _reference(source.path, source.parts[name])
            if source is not None and name in source.parts
            else None
        )
        save_part(partial / name, part, storage=storage, like=like)
        return name
    text = os.fspath(part)
    if text.startswith('hf:') or not os.path.isdir(text):
        resolve(text)  # a name that leads nowhere must not be written down
        return text
    inside = os.path.relpath(os.path.abspath(text), os.path.abspath(path))
    if not inside.startswith('..') and inside != '.':
        shutil.copytree(text, partial / inside)  # the folder it is in now is about to be replaced
    return inside


def _floating(array) -> bool:
    return np.issubdtype(array.dtype, np.floating) or array.dtype.name == 'bfloat16'


def _single(array) -> np.ndarray:
    return np.asarray(array, np.float32 if _floating(array) else None)


def check_forecaster(where, part) -> None:
    """Refuses a forecaster whose encoder or principal components belong to another one."""
    channels = len(part.encoder.net.layers) * part.encoder.net.width
    count, features = part.principal.components.shape
    if (features, count) != (channels, part.net.components):
        raise UserError(
            f'{where}: its parts do not fit: the encoder gives {channels} channels, the principal '
            'components turn '
            f'{features} into {count}, the forecaster takes {part.net.components}; expected those '
            'that it was trained on'
        )


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
