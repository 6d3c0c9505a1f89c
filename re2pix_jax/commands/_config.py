"""`--config`: where config files are found, and what can be wrong with one and with its overrides,
each said in a line; ml_collections itself would end in tracebacks.
"""

import ast
import difflib
import os
import pathlib
import re

from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

import re2pix_jax
from re2pix_jax.errors import UserError
from re2pix_jax.training import mesh
from re2pix_jax.training.defaults import flatten


def folder() -> pathlib.Path:
    """Where the shipped configs are: inside an installed package, beside it in a checkout."""
    package = pathlib.Path(re2pix_jax.__file__).parent
    inside = package / 'configs'
    return inside if inside.is_dir() else package.parent / 'configs'


def names() -> list[str]:
    """The shipped configs, as --config takes them."""
    return sorted(file.stem for file in folder().glob('[!_]*.py'))


def located(value: str) -> str:
    """`FILE.py[:variant]` of what --config was given, which may be a shipped config's name.

    Raises:
        UserError: no such file, or no such name.
    """
    name, colon, variant = value.partition(':')
    if not name.endswith('.py') and os.sep not in name:
        if name not in names():
            near = difflib.get_close_matches(name, names(), n=1)
            hint = f'did you mean {near[0]}? There' if near else 'there'
            raise UserError(
                f'no config {name!r}; {hint} are {", ".join(names())}; another is given as '
                '--config=FILE.py'
            )
        return f'{folder() / name}.py{colon}{variant}'
    if not os.path.isfile(name):
        stem = pathlib.Path(name).stem
        hint = f'; the shipped one is --config={stem}{colon}{variant}' if stem in names() else ''
        raise UserError(
            f'config file {name} not found; --config=NAME[:variant] or --config=FILE.py[:variant] '
            f'expected{hint}'
        )
    return value


def _named(path: str) -> str:
    """A `located` config as --config takes it."""
    name, colon, variant = path.partition(':')
    file = pathlib.Path(name)
    return f'{file.stem if file.parent == folder() else name}{colon}{variant}'


def check_fields(config: ConfigDict, like: str, *fields: str) -> None:
    """Refuses a config that has not all `fields`, as one of another command.

    Raises:
        UserError: it names them, and the config that has them.
    """
    if missing := [field for field in fields if field not in config]:
        raise UserError(
            f'the config has no {", ".join(missing)}: it describes something else; give '
            f'--config={like}'
        )


def checked(argv: list[str]) -> list[str]:
    """`argv` with the path of the config in place of its name, when config and overrides fit.

    Raises:
        UserError: the config can't be found or used, or an override doesn't fit into it.
    """
    given = [(first, last, located(value)) for first, last, value in _values(argv)]
    overrides = list(_overrides(argv))
    if not given:
        for _, name, _ in overrides:
            raise UserError(f'--config.{name} is given without --config=NAME')
        return argv
    config = _load(given[-1][2])
    for position, name, text in overrides:
        if position < given[-1][0]:
            raise UserError(f'--config.{name} stands before --config; put --config=NAME first')
        _check_override(config, name, text)
    for first, last, path in reversed(given):
        argv = [*argv[:first], f'--config={path}', *argv[last + 1 :]]
    return argv


def _values(argv):
    """(first position, last position, text) of each --config."""
    for index, argument in enumerate(argv):
        match = re.fullmatch(r'--?config(?:=(.*))?', argument, re.DOTALL)
        if match:
            last = index + (match.group(1) is None)
            value = argv[last] if last > index and last < len(argv) else match.group(1)
            if not value or value.startswith('-'):
                raise UserError('--config needs a value: --config=NAME or --config=FILE.py')
            yield index, last, value


def _overrides(argv):
    """(position, field, text or None) of each --config.field=text; None where a switch stands
    without a value.
    """
    for index, argument in enumerate(argv):
        match = re.fullmatch(r'--?(no)?config\.([^=]+)(?:=(.*))?', argument, re.DOTALL)
        if match:
            text = match.group(3)
            if match.group(1):
                text = 'false'
            elif text is None and index + 1 < len(argv) and not argv[index + 1].startswith('-'):
                text = argv[index + 1]
            yield index, match.group(2), text


def load(name: str) -> ConfigDict:
    """The config that --config=NAME[:variant] would give."""
    return _load(located(name))


def _load(value):
    try:
        config = config_flags.ConfigFileFlagParser('config').parse(value)
    except Exception as error:  # noqa: BLE001 (the user's own code: all is a mistake)
        # ml_collections wraps ValueError and TypeError around a traceback; the cause is behind it.
        wrapped = isinstance(error, (ValueError, TypeError)) and error.__context__
        cause, name = wrapped or error, _named(value)
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError) and 'get_config() takes 0 pos' in str(cause):
            name = name.rpartition(':')[0]
            raise UserError(f'config {name} has no variants: give --config={name}') from cause
        raise UserError(f'config {name} cannot be used: {type(cause).__name__}: {cause}') from cause
    if not isinstance(config, ConfigDict):
        raise UserError(
            f'config {_named(value)}: get_config() must return a ConfigDict, not '
            f'{type(config).__name__}'
        )
    return config


def _check_override(config, name, text):
    fields = flatten(config)
    if name not in fields:
        if any(field.startswith(name + '.') for field in fields):
            raise UserError(
                f'--config.{name} is a group of fields: set one of them, e.g. '
                f'--config.{next(field for field in fields if field.startswith(name + "."))}=...'
            )
        if name in mesh.FORMER:
            raise UserError(f'--{mesh.former(name)}')
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.0)
        hint = f'; did you mean --config.{near[0]}?' if near else ''
        raise UserError(f'the config has no field {name}{hint}')
    holder = config
    *groups, last = name.split('.')
    for group in groups:
        holder = holder[group]
    expected, present = holder.get_type(last), holder[last]
    if text is None:
        if expected is not bool:
            raise UserError(f'--config.{name} needs a value: {_type_name(expected, present)}')
    elif not _fits(expected, present, text):
        raise UserError(f'--config.{name} expects {_type_name(expected, present)}, got {text!r}')


def _fits(expected, present, text):
    if expected is bool:
        return text.lower() in ('true', 'false', 't', 'f', '1', '0')
    if expected in (int, float):
        try:
            expected(text)
        except ValueError:
            return False
        return True
    if expected is not tuple:
        return expected is str
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text if not re.search(r'[,() ]', text) else None
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    kinds = {type(item) for item in present}
    if kinds == {float}:
        kinds.add(int)
    return None not in items and (not kinds or all(type(item) in kinds for item in items))


def _type_name(expected, present):
    names = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a text'}
    if expected is tuple:
        kinds = ' or '.join(sorted({type(item).__name__ for item in present}))
        return f'a tuple{" of " + kinds if kinds else ""} such as "{present!r}"'
    return names.get(expected, f'nothing from the command line (its type is {expected.__name__})')
