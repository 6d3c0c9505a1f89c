"""How every command starts, and how its errors end.

A command is a module with a docstring (shown by `--help`, so it holds an example), absl flags and

    def main(argv): ...

    if __name__ == '__main__':
        cli.run(main)

A mistake of the user ends in one line on stderr, `error: ...`, and exit status 2; an interrupt in
status 130. Anything else is a defect of the program and keeps its traceback.
"""

import ast
import difflib
import errno
import importlib
import logging
import os
import re
import sys

# Read when the native libraries load, hence before jax is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from re2pix_jax.errors import UserError, disk_full
from re2pix_jax.training.defaults import flatten

# Flags defined through this module belong to the command that asked for them, so that its --help
# lists them.
flags.disclaim_key_flags()

_HELP = ('--help', '-help', '-h', '-?', '--helpshort')


def config_flag(required=True):
    """Defines `--config=FILE.py[:variant]` and its overrides `--config.a.b=value`.

    Returns a flag holder whose `.value` is the locked ConfigDict that `get_config([variant])` of
    the file returned.
    """
    holder = config_flags.DEFINE_config_file(
        'config',
        None,
        'Config file, e.g. configs/forecaster.py:tiny; any field can be set: --config.steps=100',
        lock_config=True,
    )
    if required:
        flags.mark_flag_as_required(holder)
    return holder


COMMANDS = (
    'predict',
    'train',
    'evaluate',
    'study',
    'export',
    'prepare',
    'fit_pca',
    'convert',
    'benchmark',
    'shardings',
)


def main():
    """Runs the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name not in COMMANDS:
        print(f're2pix: expected a command: {", ".join(COMMANDS)}', file=sys.stderr)
        sys.exit(2)
    module = importlib.import_module(f're2pix_jax.commands.{name}')
    sys.argv = [f're2pix {name}', *sys.argv[2:]]
    sys.modules['__main__'].__doc__ = module.__doc__  # what --help shows
    run(module.main, getattr(module, 'ARGUMENTS', ()))


def run(main, arguments=None):
    """Parses the flags, calls `main(argv)` and exits the process.

    Args:
      main: takes argv without the flags (argv[0] is the program); what it returns is the exit
          status.
      arguments: names of the positional arguments that the command takes, e.g. ('kind', 'source');
        another number of them is an error. None leaves the check to the command.
    """
    sys.exit(_exit_status(main, arguments, sys.argv))


def _exit_status(main, arguments, argv):
    _quieten()
    try:
        if any(argument in _HELP for argument in argv[1:]):
            app.usage(shorthelp=True, writeto_stdout=True)
            return 0
        return main(_parse(argv, arguments))
    except UserError as error:
        return _fail(error)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has gone; the interpreter must not try to flush
        # it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if (place := disk_full(error)) is not None:
            return _fail(
                f'disk full while writing {place}: free space, nothing half-written was left'
            )
        if (
            isinstance(error, OSError)
            and error.errno in (errno.EACCES, errno.EROFS)
            and error.filename
        ):
            return _fail(
                f'{os.fspath(error.filename)}: {os.strerror(error.errno).lower()}: choose a place '
                'that is '
                'readable and writable'
            )
        raise


def _fail(message):
    print('error: ' + ' '.join(str(message).split()), file=sys.stderr)
    return 2


def _quieten():
    """Keeps the notices of the libraries off stderr, where the one line of an error must stand
    out.
    """
    absl_logging.use_absl_handler()
    # What fails is raised; the libraries' own log of it, from several threads, would come on top.
    absl_logging.set_verbosity(absl_logging.FATAL)
    for name in ('jax', 'orbax', 'grain'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.excepthook = _excepthook


def _excepthook(kind, error, trace):
    # A native thread of the checkpoint writer says this after a save that failed, which is reported
    # by itself.
    if not (kind is RuntimeError and str(error) == 'Event loop is closed'):
        sys.__excepthook__(kind, error, trace)


def _parse(argv, arguments):
    """Parses the flags into absl.flags.FLAGS and returns argv without them."""
    if 'config' in flags.FLAGS and config_flags.is_config_flag(flags.FLAGS['config']):
        _check_config(argv)
    try:
        rest = flags.FLAGS(argv)
    except UserError:
        raise
    except flags.Error as error:
        raise UserError(_flag_message(error)) from None
    if arguments is not None and len(rest) - 1 != len(arguments):
        wanted = ' '.join(name.upper() for name in arguments) or 'none'
        raise UserError(
            f'positional arguments expected: {wanted}, got: {" ".join(rest[1:]) or "none"}; see '
            '--help'
        )
    return rest


def _flag_message(error):
    text = str(error)
    missing = re.search(r'(?:flag )?--(\w+)[^\n]*must have a value other than None', text)
    if missing:
        return f'--{missing.group(1)} is required; see --help'
    unknown = re.match(
        r"Unknown command line flag '([^']+)'\.?(?: Did you mean: ([^?]+?) ?\?)?", text
    )
    if unknown:
        hint = f'did you mean --{unknown.group(2).split(" or ")[0]}? ' if unknown.group(2) else ''
        return f'unknown flag --{unknown.group(1)}; {hint}see --help'
    return text


def _check_config(argv):
    """Names what is wrong with --config and its overrides; ml_collections itself would end in
    tracebacks.
    """
    given = list(_flag_values(argv, 'config'))
    if not given:
        for _, name, _ in _overrides(argv):
            raise UserError(f'--config.{name} is given without --config=FILE.py')
        return
    index, value = given[-1]
    config = _load_config(value)
    for position, name, text in _overrides(argv):
        if position < index:
            raise UserError(f'--config.{name} stands before --config; put --config=FILE.py first')
        _check_override(config, name, text)


def _flag_values(argv, name):
    for index, argument in enumerate(argv):
        match = re.fullmatch(rf'--?{name}(?:=(.*))?', argument, re.DOTALL)
        if match:
            following = argv[index + 1] if index + 1 < len(argv) else None
            value = match.group(1) if match.group(1) is not None else following
            if not value:
                raise UserError(f'--{name} needs a value: --{name}=FILE.py')
            yield index, value


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


def _load_config(value):
    path = value.partition(':')[0]
    if not os.path.isfile(path):
        raise UserError(
            f'config file {path} not found; --config=FILE.py or --config=FILE.py:variant expected'
        )
    try:
        config = config_flags.ConfigFileFlagParser('config').parse(value)
    except Exception as error:  # noqa: BLE001 (the user's own code: all is a mistake)
        # ml_collections wraps ValueError and TypeError around a whole traceback; the cause is
        # behind it.
        cause = (
            error.__context__
            if isinstance(error, (ValueError, TypeError)) and error.__context__
            else error
        )
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(
            f'config file {value} cannot be used: {type(cause).__name__}: {cause}'
        ) from None
    if not isinstance(config, ConfigDict):
        raise UserError(
            f'config file {value}: get_config() must return a ConfigDict, not '
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
