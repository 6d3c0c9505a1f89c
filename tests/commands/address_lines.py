"""What every command says of addresses, in one process: `python -m tests.commands.address_lines`
prints {command: {flag or argument: {address: [exit status, message]}}} as JSON.
"""

import contextlib
import importlib
import io
import json
import sys

from absl import flags

from re2pix_jax import remote
from re2pix_jax.commands import cli

# Packages that are there, whether the clients are installed or not.
remote.CLIENTS = {scheme: ('json', extra) for scheme, (_, extra) in remote.CLIENTS.items()}
ADDRESSES = ('ftp://host/folder', 'gs://', 'gs://bucket/folder')
CONFIGS = {
    'damages': 'damages',
    'evaluate': 'evaluate',
    'fit_pca': 'principal:tiny',
    'samplers': 'samplers',
    'shardings': 'generator:tiny',
    'study': 'study_evaluate',
    'train': 'generator:tiny',
}
POSITIONAL = {
    'benchmark': 'pca',
    'convert': 'dinov2 a b',
    'compare': 'a b',
    'finetune': 'a',
    'published': 'a',
    'push': 'a hf:owner/name',
}


def lines() -> dict:
    found = {}
    for name in cli.names():
        before = set(flags.FLAGS)
        module = importlib.import_module(f're2pix_jax.commands.{name}')
        own = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(module.__name__)}
        module.main = lambda argv: 0
        config = [f'--config={CONFIGS[name]}'] if name in CONFIGS else []
        needed = {
            flag: 'x'
            for flag in ('workdir', 'out')
            if flag in own and name != 'prepare' and own[flag].default is None
        }
        given = POSITIONAL.get(name, '').split()
        asked = {
            f'--{flag.name}': (given, {**needed, flag.name: '{}'})
            for flag in own.values()
            if type(flag.parser) in (flags.ArgumentParser, flags.ListParser)
            and flag.name not in getattr(module, 'NO_PATHS', ())
        }
        for position in range(len(given)):
            filled = [*given[:position], '{}', *given[position + 1 :]]
            asked[f'argument {position}'] = filled, needed
        found[name] = {
            where: {to: _outcome(module, name, config, *fill, to) for to in ADDRESSES}
            for where, fill in asked.items()
        }
        for flag in set(flags.FLAGS) - before:
            with contextlib.suppress(AttributeError):
                delattr(flags.FLAGS, flag)
    return found


def _outcome(module, name, config, positional, flagged, address=''):
    argv = [f're2pix {name}', *positional, *config]
    argv += [f'--{flag}={value}' for flag, value in flagged.items()]
    argv = [argument.replace('{}', address) for argument in argv]
    flags.FLAGS.unparse_flags()
    values = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        status = cli._exit_status(module, argv)
    for flag, value in values.items():
        flags.FLAGS[flag].value = value
    return status, err.getvalue()


if __name__ == '__main__':
    json.dump(lines(), sys.stdout)
