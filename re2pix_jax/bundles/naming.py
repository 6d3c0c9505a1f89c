"""Where a bundle lies: a folder, also in a bucket, a shipped name or "hf:owner/repo@revision", and
its parts.
"""

import difflib
import os
import pathlib
import posixpath
from collections.abc import Iterable
from typing import Any, Literal, NotRequired, TypedDict

from re2pix_jax import remote, schema
from re2pix_jax.bundles import hub
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.errors import UserError

FORMAT = 2
SHIPPED = pathlib.Path(__file__).parent / 'shipped'
CHECKPOINTS = 'checkpoints'  # what a run's folder holds, and a bundle never
CONFIG, WEIGHTS, CARD = 'config.json', 'weights.safetensors', 'MODEL_CARD.md'
AGAIN = 'fetch or export the bundle again'


class Config(TypedDict):
    """A bundle's config.json; beside these stand the extras of its kind."""

    format: int
    kind: Literal[tuple(KINDS)]
    network: dict[str, Any]
    storage: NotRequired[Literal['float32', 'float16']]
    parts: NotRequired[dict[str, schema.Name]]
    about: NotRequired[Any]


def shipped() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(file.parent.name for file in SHIPPED.glob(f'*/{CONFIG}'))


def resolve(name) -> pathlib.Path:
    """The folder of a bundle, given its folder, shipped name or "hf:owner/repo" (fetched on first
    use). Of one in a bucket, the copy on this machine, brought up to date.

    Raises:
        UserError: there is none.
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(f'expected the name or the folder of a bundle, got {type(name).__name__}')
    text = os.fspath(name)
    if text.startswith(hub.PREFIX):
        return resolve(hub.fetch(text))
    if remote.is_remote(text):
        return _fetched(text)
    remote.check(text)
    if os.path.isdir(os.path.join(text, CHECKPOINTS)):
        raise _is_run(text)
    if is_bundle(text):
        return pathlib.Path(text)
    if not os.path.isabs(text) and is_bundle(SHIPPED / text):
        return SHIPPED / text
    if os.path.isdir(text):
        raise _is_none(text)
    known = [file.parent.relative_to(SHIPPED).as_posix() for file in SHIPPED.rglob(CONFIG)]
    near = difflib.get_close_matches(text, known, n=1)
    raise UserError(
        f'{text}: no such model{f", did you mean {near[0]!r}" if near else ""}: give a bundle '
        f'folder, "hf:owner/repo" or a shipped name ({", ".join(shipped()) or "none is shipped"})'
    )


def _fetched(text) -> pathlib.Path:
    remote.check(text)
    there = remote.names(text, deep=False)
    if f'{CHECKPOINTS}/' in there:  # not fetched: they are large
        raise _is_run(text)
    if CONFIG not in there:
        raise _is_none(text) if there else UserError(f'{text}: no such model; nothing is there')
    return remote.local(text)


def _is_run(text) -> UserError:
    return UserError(
        f'{text}: is the folder of a run and not a bundle: export it first: re2pix export '
        f'--workdir={text} --out=BUNDLE'
    )


def _is_none(text) -> UserError:
    return UserError(
        f'{text}: is a folder without {CONFIG}: a bundle folder holds {CONFIG} and {WEIGHTS}'
    )


def is_bundle(path) -> bool:
    """Whether a folder holds a bundle."""
    return os.path.isfile(os.path.join(path, CONFIG))


def read_config(path: pathlib.Path) -> Config:
    """The config.json of a bundle folder, with its "storage" and "parts" where it has none.

    Raises:
        UserError: it is no such file, or of a newer format.
    """
    file = path / CONFIG
    config = schema.read_json(file, dict, AGAIN)
    if type(config.get('format')) is int and config['format'] > FORMAT:
        raise UserError(
            f'{file}: has format {config["format"]} and this version reads up to {FORMAT}: update '
            're2pix_jax'
        )
    return {'storage': 'float32', 'parts': {}} | schema.check(config, Config, file, AGAIN)


def place_of(path: pathlib.Path, reference: str):
    """Where a part of the bundle at `path` lies: a folder relative to it, else whatever `resolve`
    takes.
    """
    if reference.startswith(hub.PREFIX) or remote.is_remote(reference):
        return reference
    relative = path / reference
    if reference.startswith('..') and (copied := remote.origin(path)):
        return remote.join(copied, reference)  # beside what was fetched
    return relative if os.path.isdir(relative) else reference


def find(name, kinds: str | Iterable[str] | None = None):
    """The bundle of one of `kinds` that `name` is, or that it is made of: "tiny" as an encoder is
    "tiny/forecaster/encoder".

    Raises:
        UserError: there is no such bundle, or it is made of none or of several of these kinds.
    """
    if kinds is None:
        return name
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    found = _holding(name, kinds, set())
    if len(found) == 1:
        return found[0]
    wanted = ' or '.join(kinds)
    if not found:
        path = resolve(name)
        raise UserError(
            f'{path}: holds kind {read_config(path)["kind"]}, where kind {wanted} is needed'
        )
    raise UserError(
        f'{os.fspath(name)}: is made of several of kind {wanted}: name one of '
        f'{", ".join(map(str, found))}'
    )


def _holding(name, kinds: tuple[str, ...], visited: set) -> list:
    """Names of the bundles of one of `kinds` among `name` and the parts it is made of."""
    path = resolve(name)
    real = os.path.realpath(path)
    if real in visited:
        return []
    visited.add(real)
    config = read_config(path)
    if config['kind'] in kinds:
        return [name]
    return [
        found
        for part, reference in config['parts'].items()
        if part in KINDS[config['kind']].parts
        for found in _holding(_inside(name, path, reference), kinds, visited)
    ]


def _inside(name, path: pathlib.Path, reference: str):
    """How to name the part that the bundle `name`, which lies at `path`, refers to."""
    place = place_of(path, reference)
    if place is reference or os.path.isabs(reference):
        return reference
    if remote.is_remote(name):
        return remote.join(name, reference)
    text = f'{os.fspath(name)}/{reference}'
    return posixpath.normpath(text) if text.startswith(hub.PREFIX) else text
