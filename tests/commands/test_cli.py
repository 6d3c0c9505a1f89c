"""Every mistake on a command line is one line on stderr and exit status 2."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from re2pix_jax.errors import UserError, disk_full

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = """
from ml_collections import ConfigDict
from re2pix_jax.errors import UserError

def get_config(size='tiny'):
    if size not in ('tiny', 'base'):
        raise UserError(f'size {size!r}: tiny or base expected')
    config = ConfigDict({'steps': 10, 'flag': True, 'name': 'a', 'rate': 0.1, 'empty': ConfigDict()})
    config.data = ConfigDict({'size': (64, 128), 'crop': (0.5, 1.0), 'sources': ('world',)})
    config.optimizer = ConfigDict({'learning_rate': 1e-3, 'clip': 1.0})
    return config
"""
COMMAND = '''
"""Prints its config.

Example:
  python command.py --config=config.py --workdir=runs/x
"""
import errno, os, sys
from absl import flags
from re2pix_jax import cli
from re2pix_jax.errors import UserError

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
FAIL = flags.DEFINE_string('fail', '', 'How to fail.')

def main(argv):
    if FAIL.value == 'user':
        raise UserError('one\\nline')
    if FAIL.value == 'full':
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/runs/x/weights')
    if FAIL.value == 'native':
        raise ValueError('Failed writing: "/runs/x/part": No space left on device')
    if FAIL.value == 'access':
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/runs/y')
    if FAIL.value == 'interrupt':
        raise KeyboardInterrupt
    if FAIL.value == 'defect':
        raise RuntimeError('a defect')
    config = CONFIG.value
    print(config.steps, config.flag, config.name, config.rate, config.data.size, config.data.crop, config.data.sources,
          config.optimizer.learning_rate)
    return 3 if FAIL.value == 'status' else None

if __name__ == '__main__':
    cli.run(main, arguments=())
'''


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cli')
    (folder / 'command.py').write_text(textwrap.dedent(COMMAND))
    (folder / 'config.py').write_text(textwrap.dedent(CONFIG))
    (folder / 'broken.py').write_text('def get_config():\n    return [][1]\n')
    (folder / 'none.py').write_text('def get_config():\n    pass\n')

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, 'command.py', *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, 'PYTHONPATH': ROOT},
        )
        return done.returncode, done.stdout, done.stderr

    return run


GOOD = ('--config=config.py', '--workdir=w')


def test_overrides_reach_the_config(command):
    status, out, err = command(
        *GOOD,
        '--config.steps=5',
        '--noconfig.flag',
        '--config.rate',
        '2',
        '--config.data.size=(32,64)',
        '--config.data.crop=(1,1.0)',
        '--config.data.sources=records:/data/kitti',
        '--config.optimizer.learning_rate=1e-5',
    )
    assert (status, err) == (0, '')
    assert out.strip() == "5 False a 2.0 (32, 64) (1, 1.0) ('records:/data/kitti',) 1e-05"


def test_variant_and_status_and_help(command):
    assert command('--config=config.py:base', '--workdir=w', '--fail=status')[0] == 3
    status, out, err = command('--help')
    assert (status, err) == (0, '')
    assert 'python command.py --config=config.py --workdir=runs/x' in out
    assert '--workdir' in out and '--config' in out and 'Folder of the run.' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--workdir=w',), '--config is required; see --help'),
        (('--config=config.py',), '--workdir is required; see --help'),
        ((*GOOD, '--workdr=x'), 'unknown flag --workdr; did you mean --workdir? see --help'),
        ((*GOOD, 'stray'), 'positional arguments expected: none, got: stray; see --help'),
        (('--config=nowhere.py', '--workdir=w'), 'config file nowhere.py not found'),
        (('--config=config.py:huge', '--workdir=w'), "size 'huge': tiny or base expected"),
        (
            ('--config=broken.py', '--workdir=w'),
            'config file broken.py cannot be used: IndexError: list index out of range',
        ),
        (
            ('--config=none.py', '--workdir=w'),
            'get_config() must return a ConfigDict, not NoneType',
        ),
        (
            (*GOOD, '--config.optimizer.learing_rate=1'),
            'the config has no field optimizer.learing_rate; did you mean '
            '--config.optimizer.learning_rate?',
        ),
        ((*GOOD, '--config.learning_rate=1'), 'did you mean --config.optimizer.learning_rate?'),
        (
            (*GOOD, '--config.data=3'),
            '--config.data is a group of fields: set one of them, e.g. --config.data.crop=...',
        ),
        ((*GOOD, '--config.steps=many'), "--config.steps expects an integer, got 'many'"),
        ((*GOOD, '--config.steps=1.5'), "--config.steps expects an integer, got '1.5'"),
        ((*GOOD, '--config.rate=fast'), "--config.rate expects a number, got 'fast'"),
        ((*GOOD, '--config.flag=maybe'), "--config.flag expects true or false, got 'maybe'"),
        (
            (*GOOD, '--config.data.size=(32,a)'),
            '--config.data.size expects a tuple of int such as "(64, 128)", got \'(32,a)\'',
        ),
        ((*GOOD, '--config.data.size=(32,6.5)'), '--config.data.size expects a tuple of int'),
        ((*GOOD, '--config.steps'), '--config.steps needs a value: an integer'),
        (('--config.steps=3', *GOOD), '--config.steps stands before --config'),
        (('--config.steps=3', '--workdir=w'), '--config.steps is given without --config=FILE.py'),
        ((*GOOD, '--fail=user'), 'one line'),
        (
            (*GOOD, '--fail=full'),
            'disk full while writing /runs/x/weights: free space, nothing half-written was left',
        ),
        ((*GOOD, '--fail=native'), 'disk full while writing /runs/x/part: free space'),
        ((*GOOD, '--fail=access'), '/runs/y: permission denied'),
    ],
)
def test_mistakes_are_one_line_and_status_2(command, arguments, message):
    status, out, err = command(*arguments)
    assert err.startswith('error: '), err
    assert err.count('\n') == 1
    assert message in err
    assert (status, out) == (2, '')


def test_interrupt_and_defects_are_told_apart(command):
    assert command(*GOOD, '--fail=interrupt')[0] == 130
    status, _, err = command(*GOOD, '--fail=defect')
    assert status == 1
    assert 'Traceback' in err and 'RuntimeError: a defect' in err


def test_disk_full_looks_at_causes():
    try:
        try:
            raise OSError(errno.ENOSPC, 'full', '/a')
        except OSError as cause:
            raise RuntimeError('saving failed') from cause
    except RuntimeError as error:
        assert disk_full(error) == '/a'
    assert disk_full(OSError(errno.EDQUOT, 'quota')) == 'the output'
    assert disk_full(OSError(errno.ENOENT, 'missing', '/a')) is None
    assert issubclass(UserError, ValueError)
