"""Addresses on a command line: said before anything runs when one leads nowhere, or into a bucket
where the command takes a path of this machine only.
"""

from absl import flags
from ml_collections import ConfigDict

from re2pix_jax import remote
from re2pix_jax.data.sources import PUBLISHED
from re2pix_jax.errors import UserError
from re2pix_jax.training.defaults import flatten

IN_BUCKETS = ('records', 'encoded')
"""Kinds of sources that are read from buckets; the others are footage, and need a disk."""
SOURCES = (*IN_BUCKETS, 'videos', 'table', *PUBLISHED)


def check(module, argv: list[str]) -> None:
    """Looks at the positional arguments, flags and config of a command.

    Args:
        module: of the command; its REMOTE names the flags and arguments that may lie in a bucket,
            its NO_PATHS flags that are not looked at, its CHECKS what says more of a flag's place.
        argv: without the flags.

    Raises:
        UserError: an address of no known scheme, one in a bucket where REMOTE does not allow it, or
            one whose client is not installed.
    """
    allowed = getattr(module, 'REMOTE', ())
    expected = [name.strip('[]') for name in getattr(module, 'ARGUMENTS', None) or ()]
    for position, value in enumerate(argv[1:]):
        name = expected[position] if position < len(expected) else 'arguments'
        _check(value, name.upper(), name in allowed)
    for flag in flags.FLAGS.get_key_flags_for_module(module.__name__):
        if isinstance(flag.value, ConfigDict):
            check_config(flag.value, flag.name)
        # Not of an override, whose value is in the config.
        elif '.' not in flag.name and flag.name not in getattr(module, 'NO_PATHS', ()):
            for text in _texts(flag.value):
                getattr(module, 'CHECKS', {}).get(flag.name, lambda _: None)(text)
                _check(text, f'--{flag.name}', flag.name in allowed)


def check_config(config: ConfigDict, flag: str = 'config') -> None:
    """The same for the fields of a config: bundles may lie in buckets, and sources that are
    prepared.
    """
    for name, value in flatten(config).items():
        for text in _texts(value):
            _check(text, f'--{flag}.{name}', allowed=True)


def _texts(value):
    values = value if isinstance(value, list | tuple) else (value,)
    return [item for item in values if isinstance(item, str)]


def _check(value, name, allowed):
    kind, _, path = value.partition(':')
    of_source = kind in SOURCES
    path = path if of_source else value
    in_bucket = remote.is_remote(path)
    if in_bucket and of_source and kind not in IN_BUCKETS:
        raise UserError(
            f'{name}={value}: footage is read from a disk of this machine; copy it there, or '
            'prepare it and give records:gs://BUCKET/FOLDER'
        )
    if in_bucket and not allowed:
        raise UserError(
            f'{name}={value}: expected a path of this machine; copy from there, or upload it '
            'afterwards'
        )
    remote.check(path, name)
