"""How every command starts, and how its errors end.

A command is a file of this folder whose name doesn't begin with an underscore. It has a docstring,
whose first line is what `re2pix` alone says of it and which holds an example; absl flags; and

    ARGUMENTS = ('kind', '[source]')  # positional ones: in brackets, if it may be absent
    REMOTE = ('source', 'out')        # flags and arguments that may lie in a bucket (gs://, s3://)
    NO_PATHS = ('message',)           # flags that may hold the addresses of other things
    CHECKS = {'out': function}        # flag → what refuses places that it cannot take
    GOES_ON = True                    # after a Ctrl-C, if it is given again
    def main(argv): ...               # argv without the flags; returns the exit status

A command that does one of several things has `about(argument)` too: the text and the names of the
flags that `re2pix COMMAND ARGUMENT --help` shows.

A mistake of the user ends in one line on stderr, `error: ...`, and exit status 2; what was cut off
and goes on with the same command, or was kept from a bucket that does not answer, in such a line
and status 75; an interrupt in status 130.
Anything else is a defect of the program and keeps its traceback.
"""

import ast
import contextlib
import difflib
import errno
import importlib
import math
import os
import pathlib
import re
import sys
import textwrap
import traceback
import warnings

# Read when the native libraries load, hence before jax is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# What was compiled once is kept for the next command.
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR',
    os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'), 're2pix_jax', 'compiled'
    ),
)
# libtpu 0.0.42 recurses into fused products deeper than its own stacks are: without this it dies as
# it compiles the forecaster at 32x64 tokens.
os.environ.setdefault('LIBTPU_INIT_ARGS', f'--fibers_default_thread_stack_size={4 << 20}')

from absl import flags
from absl import logging as absl_logging
from ml_collections.config_flags import config_flags

import re2pix_jax
from re2pix_jax import remote
from re2pix_jax.commands import _addresses, _config, _interrupt, _supervise
from re2pix_jax.errors import AGAIN, Interrupted, UserError
from re2pix_jax.files import full_disk, gone_disk

_TRACEBACK = flags.DEFINE_bool(
    'traceback', False, 'Show where an error comes from, whatever it is.'
)
# Flags defined through this module belong to the command that asked for them, so that its --help
# lists them.
flags.disclaim_key_flags()

_ON = 'the same command goes on'
_HELP = ('--help', '-help', '-h', '-?', '--helpshort')
# What the libraries log in passing and no one can do anything about; all other warnings are shown.
_NOISE = re.compile(
    'CheckpointManagerOptions.read_only=True, setting|Given directory is read only='
    '|returned None, did you forget a return statement'  # an error here
    # With tracebacks; what a bucket says is raised, too.
    '|out of retries on exception|run\\(\\) raised an exception|in background save thread'
    '|Waiting for previous save to complete took'  # of which the run's own account tells
)


def config_flag(required=True):
    """Defines `--config=NAME[:variant]` and its overrides `--config.a.b=value`.

    Returns a flag holder whose `.value` is the locked ConfigDict that `get_config([variant])` of
    the file returned.
    """
    holder = config_flags.DEFINE_config_file(
        'config',
        None,
        f'Config: {", ".join(_config.names())}, some with a variant, as in forecaster:tiny; or '
        'FILE.py[:variant]. Any of its fields can be set after it: --config.steps=100.',
        lock_config=True,
    )
    if required:
        flags.mark_flag_as_required(holder)
    return holder


class _Size(flags.ArgumentParser):
    syntactic_help = 'HEIGHTxWIDTH in pixels'

    def parse(self, argument):
        if argument is None or isinstance(argument, tuple):
            return argument
        sides = argument.lower().split('x')
        if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
            raise ValueError('expected HEIGHTxWIDTH in pixels, for instance 224x448')
        return int(sides[0]), int(sides[1])


def size_flag(name: str, help: str):
    """Defines `--name=HEIGHTxWIDTH`, whose value is (height, width), or None without it."""
    return flags.DEFINE(_Size(), name, None, help, serializer=flags.ArgumentSerializer())


class _Shard(flags.ArgumentParser):
    syntactic_help = 'I/N, from 1/N to N/N'

    def parse(self, argument):
        if argument is None or isinstance(argument, tuple):
            return argument
        number, _, of = argument.partition('/')
        if not (number.isdecimal() and of.isdecimal() and int(of)):
            raise ValueError('expected the shard and their number, for instance 3/8')
        if not 1 <= int(number) <= int(of):
            raise ValueError(f'shards are counted from 1: expected 1/{of} to {of}/{of}')
        return int(number), int(of)


def shard_flag(name: str, help: str):
    """Defines `--name=I/N`, whose value is (I, N), I from 1 to N; None without it."""
    return flags.DEFINE(_Shard(), name, None, help, serializer=flags.ArgumentSerializer())


class _Integers(flags.ArgumentParser):
    def __init__(self, least):
        self._least = least
        self.syntactic_help = f'whole numbers from {least} on, such as 2,5,8'

    def parse(self, argument):
        if argument is None or isinstance(argument, tuple):
            return argument
        items = argument.split(',')
        if not all(item.isdecimal() and int(item) >= self._least for item in items):
            raise ValueError(f'expected {self.syntactic_help}')
        return tuple(int(item) for item in items)


def integers_flag(name: str, default: tuple | None, help: str, least: int = 0):
    """Defines `--name=1,2,3`, whose value is a tuple of whole numbers from `least` on."""
    return flags.DEFINE(_Integers(least), name, default, help, serializer=flags.ListSerializer(','))


def names() -> list[str]:
    """The commands: files of this folder."""
    return sorted(file.stem for file in pathlib.Path(__file__).parent.glob('[!_]*.py'))


def main():
    """Runs the command that the first argument names."""
    name, *arguments = sys.argv[1:] or _HELP
    if name in _HELP:
        print(_overview())
    elif name == '--version':
        print(re2pix_jax.__version__)
    elif name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f'did you mean re2pix {near[0]}?' if near else f'expected {", ".join(names())};'
        sys.exit(_fail(f'no command {name!r}; {hint} re2pix lists them'))
    else:
        _supervise.enter()  # before the command's imports, which take seconds
        sys.argv = [f're2pix {name}', *arguments]
        with _interrupt.at_once():
            module = importlib.import_module(f're2pix_jax.commands.{name}')
        run(module.main)


def run(main):
    """Runs a command's `main` on sys.argv and exits the process."""
    _interrupt.hear()
    try:
        status = _exit_status(sys.modules[main.__module__], sys.argv)
    except KeyboardInterrupt as error:
        goes_on = getattr(sys.modules[main.__module__], 'GOES_ON', False)
        number = _interrupt.number_of(error)
        print(_interrupt.WORDS[number] + f'; {_ON}' * goes_on, file=sys.stderr)
        if peers := _peers():
            peers.leave(128 + number)
        _interrupt.end(128 + number)
    except Exception as error:
        if peers := _peers():
            peers.leave(1, error)
        raise
    if peers := _peers():
        peers.leave(status)
    if status == AGAIN:  # threads may wait for what is away, and the interpreter for them
        with contextlib.suppress(OSError):  # whoever read them has gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _peers():
    """The module that knows the other processes of a run; None where nothing has imported it."""
    return sys.modules.get('re2pix_jax.training.peers')


def _exit_status(module, argv):
    _quieten()
    try:
        if any(argument in _HELP for argument in argv[1:]):
            print(_help(module, argv))
            return 0
        rest = _parse(argv, getattr(module, 'ARGUMENTS', ()))
        _addresses.check(module, rest)
        return module.main(rest)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has gone; the interpreter must not try to flush
        # it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Interrupted as error:
        return _fail(f'{error}: ending; {_ON}', AGAIN)
    except Exception as error:
        message = _mistake(error)
        if message is None and (place := gone_disk(error)) is not None:
            return _fail(f'{place}: its disk does not answer: ending; {_ON}', AGAIN)
        if message is None:
            if peers := _peers():
                peers.blame(error)
            raise
        if re.search(r'(^|\n)--?traceback(=true)?(\n|$)', '\n'.join(argv)):
            traceback.print_exception(error)
        return _fail(f'{message}; {_ON}', AGAIN) if remote.is_away(error) else _fail(message)


def _mistake(error):
    """What to say of an error that the user can put right; None of any other."""
    if isinstance(error, UserError):
        return str(error)
    if (place := full_disk(error)) is not None:
        return f'disk full while writing {place}: free space, nothing half-written was left'
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS) and error.filename:
        return (
            f'{os.fspath(error.filename)}: {os.strerror(error.errno).lower()}: choose a place that '
            'is readable and writable'
        )
    return None


def _fail(message, status=2):
    print('error: ' + ' '.join(str(message).split()), file=sys.stderr)
    return status


def _quieten():
    """Lets warnings through, the libraries' known noise excepted."""
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().addFilter(_is_news)
    # On a full disk; what matters of it is said by what is written there.
    warnings.filterwarnings('ignore', 'Error writing persistent compilation cache')
    sys.excepthook = _excepthook


def _is_news(record):
    return not _NOISE.search(record.getMessage())


def _excepthook(kind, error, trace):
    # A native thread of the checkpoint writer says this after a save that failed, which is reported
    # by itself.
    if not (kind is RuntimeError and str(error) == 'Event loop is closed'):
        sys.__excepthook__(kind, error, trace)


def _overview():
    folder, width = pathlib.Path(__file__).parent, max(map(len, names()))
    told = {
        name: ast.parse((folder / f'{name}.py').read_text(encoding='utf-8')) for name in names()
    }
    lines = (f'  {name:{width}}  {_first_line(tree)}' for name, tree in told.items())
    return '\n'.join(
        [
            re2pix_jax.__doc__.splitlines()[0],
            '',
            'usage: re2pix COMMAND [FLAGS], or python -m re2pix_jax COMMAND [FLAGS]',
            '',
            *lines,
            '',
            're2pix COMMAND --help says what it takes, with examples.',
        ]
    )


def _first_line(tree):
    return (ast.get_docstring(tree) or '').partition('\n')[0]


def _help(module, argv):
    """The usage, docstring and flags of a command."""
    given = [argument for argument in argv[1:] if not argument.startswith('-')]
    text, shown = module.__doc__, None
    if given and hasattr(module, 'about'):
        text, shown = module.about(given[0])
    positional = ' '.join(name.upper() for name in getattr(module, 'ARGUMENTS', None) or ())
    own = flags.FLAGS.get_key_flags_for_module(module.__name__)
    listed = [flag for flag in own if shown is None or flag.name in shown]
    return '\n'.join(
        [
            ' '.join(filter(None, ('usage:', argv[0], positional, '[FLAGS]'))),
            '',
            text.strip(),
            '',
            *(_flag_help(flag) for flag in [*listed, flags.FLAGS['traceback']]),
        ]
    )


def _flag_help(flag):
    name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}=...'
    known = '' if flag.default is None else f' Without it: {flag.default_as_str}'.replace("'", '')
    kind = flag.parser.syntactic_help
    about = ' '.join(flag.help.rstrip('.').split())  # absl breaks some lines
    about = f'{about}{f" ({kind})" if kind and not flag.boolean else ""}.{known}'
    wrap = textwrap.TextWrapper(100, initial_indent='      ', subsequent_indent='      ')
    return f'  {name}\n{wrap.fill(about)}'


def _parse(argv, arguments):
    """Parses the flags into absl.flags.FLAGS and returns argv without them."""
    if 'config' in flags.FLAGS and config_flags.is_config_flag(flags.FLAGS['config']):
        argv = _config.checked(argv)
    try:
        rest = flags.FLAGS(argv)
    except UserError:
        raise
    except flags.Error as error:
        raise UserError(_flag_message(error)) from error
    for name in flags.FLAGS:
        if flags.FLAGS[name].present and not name.startswith('config.'):
            _check_value(name, flags.FLAGS[name].value)
    needed = [name for name in arguments or () if not name.startswith('[')]
    if arguments is not None and not len(needed) <= len(rest) - 1 <= len(arguments):
        wanted = ' '.join(name.upper() for name in arguments) or 'none'
        raise UserError(
            f'positional arguments expected: {wanted}, got: {" ".join(rest[1:]) or "none"}; see '
            '--help'
        )
    return rest


def _check_value(name, value):
    """What no flag takes, whatever its bounds."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f'--{name}={value}: expected a finite number')
    if isinstance(value, int) and value >= 2**32:
        raise UserError(f'--{name}={value}: expected a number below 2**32 = {2**32}')
    if name in ('out', 'workdir') and value == '':
        raise UserError(f'--{name}= is empty: expected a folder')


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
    # What Python says of a text that is none.
    text = re.sub(r'invalid literal for int\(\).*', 'expected an integer', text)
    text = re.sub(r'could not convert string to float.*', 'expected a number', text)
    return text.removeprefix('flag ')
