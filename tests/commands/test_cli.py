"""The entry and its list, help, config names; every mistake on a command line is one line on stderr
and exit status 2.
"""

import ast
import errno
import os
import re
import subprocess
import sys
import textwrap

import pytest

import re2pix_jax
from re2pix_jax.errors import UserError
from re2pix_jax.files import full_disk
from tests import store
from tests.conftest import ROOT

CONFIG = """
from ml_collections import ConfigDict
from re2pix_jax.errors import UserError

def get_config(size='tiny'):
    if size not in ('tiny', 'base'):
        raise UserError(f'size {size!r}: tiny or base expected')
    config = ConfigDict({'steps': 10, 'flag': True, 'name': 'a', 'rate': 0.1})
    config.empty = ConfigDict()
    config.data = ConfigDict({'size': (64, 128), 'crop': (0.5, 1.0), 'sources': ('world',)})
    config.optimizer = ConfigDict({'learning_rate': 1e-3, 'clip': 1.0})
    return config
"""
COMMAND = '''
"""Prints its config.

Example:
  re2pix command --config=config.py --workdir=runs/x
"""
import errno, logging, os, sys
from absl import flags
from re2pix_jax.commands import cli
from re2pix_jax.errors import Interrupted, UserError

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
FAIL = flags.DEFINE_string('fail', '', 'How to fail.')
SIZE = cli.size_flag('size', 'Of a frame.')
ARGUMENTS = ('[kind]',)

def main(argv):
    if FAIL.value == 'user':
        raise UserError('one\\nline')
    if FAIL.value == 'full':
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/runs/x/weights')
    if FAIL.value == 'native':
        raise ValueError('Failed writing: "/runs/x/part": No space left on device')
    if FAIL.value == 'access':
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/runs/y')
    if FAIL.value == 'gone':
        raise OSError(errno.EIO, os.strerror(errno.EIO), '/runs/x/log.jsonl')
    if FAIL.value == 'cut off':
        raise Interrupted('a process was killed')
    if FAIL.value == 'away':
        import aiohttp, gcsfs
        from re2pix_jax import remote
        with remote.talking('gs://bucket/x'):
            raise aiohttp.ServerDisconnectedError
    if FAIL.value == 'interrupt':
        raise KeyboardInterrupt
    if FAIL.value == 'defect':
        raise RuntimeError('a defect')
    if FAIL.value == 'warn':
        logging.getLogger('jax._src.xla_bridge').warning('Falling back to cpu.')
        logging.getLogger('absl').warning('Given directory is read only=%s', '/runs/x')
        logging.getLogger('absl').info('in passing')
    config = CONFIG.value
    print(config.steps, config.flag, config.name, config.rate, *config.data.values(),
          config.optimizer.learning_rate, SIZE.value, *argv[1:])
    return 3 if FAIL.value == 'status' else None
'''
RUN = 'import command; from re2pix_jax.commands import cli; cli.run(command.main)'


def start(folder, *arguments):
    """(exit status, stdout, stderr) of python with the arguments, in a folder."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cli')
    (folder / 'command.py').write_text(textwrap.dedent(COMMAND))
    (folder / 'config.py').write_text(textwrap.dedent(CONFIG))
    (folder / 'broken.py').write_text('def get_config():\n    return [][1]\n')
    (folder / 'none.py').write_text('def get_config():\n    pass\n')

    return lambda *arguments: start(folder, '-c', RUN, *arguments)


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
    assert out.strip() == "5 False a 2.0 (1, 1.0) (32, 64) ('records:/data/kitti',) 1e-05 None"


def test_variant_status_and_arguments(command):
    status, out, _ = command(
        '--config=config.py:base', '--workdir=w', '--fail=status', '--size=32X64', 'kind'
    )
    assert status == 3 and out.endswith(' (32, 64) kind\n')


def test_help_shows_usage_docstring_and_own_flags(command):
    status, out, err = command('--help')
    assert (status, err) == (0, '')
    assert out.startswith('usage: -c [KIND] [FLAGS]\n\nPrints its config.\n')
    assert 're2pix command --config=config.py --workdir=runs/x' in out
    flags = re.findall(r'^  --(\S+?)(?:=\.\.\.)?$', out, re.MULTILINE)
    assert flags == ['config', 'workdir', 'fail', 'size', '[no]traceback']
    assert 'Folder of the run.' in out and 'Of a frame (HEIGHTxWIDTH in pixels).' in out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--workdir=w',), '--config is required; see --help'),
        (('--config=config.py',), '--workdir is required; see --help'),
        (('--config=config.py', '--workdir='), '--workdir= is empty: expected a folder'),
        ((*GOOD, '--workdr=x'), 'unknown flag --workdr; did you mean --workdir? see --help'),
        ((*GOOD, 'one', 'two'), 'positional arguments expected: [KIND], got: one two; see --help'),
        (('--config=nowhere.py', '--workdir=w'), 'config file nowhere.py not found'),
        (
            ('--config=forcaster:tiny', '--workdir=w'),
            'did you mean forecaster? There are autoencoder,',
        ),
        (
            ('--config=configs/head.py:tiny-depth', '--workdir=w'),
            'configs/head.py not found; --config=NAME[:variant] or --config=FILE.py[:variant] '
            'expected; the shipped one is --config=head:tiny-depth',
        ),
        (('--config', '--workdir=w'), '--config needs a value'),
        (('--workdir=w', '--config'), '--config needs a value'),
        ((*GOOD, '--size=32x'), '--size=32x: expected HEIGHTxWIDTH in pixels, for instance'),
        (('--config=config.py:huge', '--workdir=w'), "size 'huge': tiny or base expected"),
        (
            ('--config=evaluate:tiny', '--workdir=w'),
            'config evaluate has no variants: give --config=evaluate',
        ),
        (
            ('--config=broken.py', '--workdir=w'),
            'config broken.py cannot be used: IndexError: list index out of range',
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
        (
            (*GOOD, '--config.mesh.model=2'),
            '--config.mesh.model is no longer there: set config.mesh.tensor',
        ),
        (
            (*GOOD, '--config.sharding=fsdp'),
            '--config.sharding is no longer there: set config.mesh.fsdp',
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
        (('--config.steps=3', '--workdir=w'), '--config.steps is given without --config=NAME'),
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


@pytest.mark.parametrize(
    ('line', 'lacking', 'right'),
    [
        ('study --config=evaluate --workdir=w', 'rows, evaluation, horizons', 'study_evaluate'),
        ('samplers --config=evaluate', 'rows', 'samplers'),
        ('damages --config=forecaster:tiny', 'kind', 'damages'),
        ('shardings --config=evaluate', 'task', 'generator'),
    ],
)
def test_a_config_of_another_command_is_said(tmp_path, line, lacking, right):
    status, out, err = start(tmp_path, '-m', 're2pix_jax', *line.split())
    assert (status, out) == (2, '') and err.count('\n') == 1
    assert err.startswith(f'error: the config has no {lacking}: ')
    assert err.endswith(f'; give --config={right}\n')


def test_interrupt_and_defects_are_told_apart(command):
    assert command(*GOOD, '--fail=interrupt') == (130, '', 'interrupted\n')
    status, _, err = command(*GOOD, '--fail=defect')
    assert status == 1
    assert 'Traceback' in err and 'RuntimeError: a defect' in err


@pytest.mark.parametrize(
    ('how', 'said'),
    [
        ('gone', '/runs/x/log.jsonl: its disk does not answer'),
        ('cut off', 'a process was killed'),
    ],
)
def test_what_is_no_mistake_goes_on_by_the_same_command(command, how, said):
    found = command(*GOOD, f'--fail={how}')
    assert found == (75, '', f'error: {said}: ending; the same command goes on\n')


@store.needed
def test_a_bucket_that_does_not_answer_is_no_mistake(command):
    assert command(*GOOD, '--fail=away') == (
        75,
        '',
        'error: gs://bucket/x: ServerDisconnectedError (Server disconnected); check the name of '
        'the bucket, the login on this machine and the network; the same command goes on\n',
    )


def test_any_error_shows_its_traceback_when_asked(command):
    for arguments, error in (
        ((*GOOD, '--fail=user'), 'UserError: one'),
        ((*GOOD, '--config.steps=many'), 'UserError: --config.steps expects'),
        (('--config=broken.py', '--workdir=w'), 'in get_config\n    return [][1]'),
        ((*GOOD, '--fail=full'), "No space left on device: '/runs/x/weights'"),
    ):
        status, out, err = command(*arguments, '--traceback')
        assert (status, out) == (2, '')
        assert err.startswith('Traceback ') and error in err
        assert err.splitlines()[-1].startswith('error: ')


def test_warnings_are_shown_but_known_noise(command):
    status, _, err = command(*GOOD, '--fail=warn')
    assert status == 0 and err.count('\n') == 1 and 'Falling back to cpu.' in err, err


def test_full_disk_looks_at_causes():
    try:
        try:
            raise OSError(errno.ENOSPC, 'full', '/a')
        except OSError as cause:
            raise RuntimeError('saving failed') from cause
    except RuntimeError as error:
        assert full_disk(error) == '/a'
    assert full_disk(OSError(errno.EDQUOT, 'quota')) == 'the output'
    assert full_disk(OSError(errno.ENOENT, 'missing', '/a')) is None
    assert issubclass(UserError, ValueError)


COMMANDS = {file.stem: file for file in (ROOT / 're2pix_jax' / 'commands').glob('[!_]*.py')}


def test_the_entry_lists_every_command_with_its_first_line(tmp_path):
    for arguments in ((), ('--help',)):
        status, out, err = start(tmp_path, '-m', 're2pix_jax', *arguments)
        assert (status, err) == (0, '')
        listed = dict(re.findall(r'^  (\w+)  +(.+)$', out, re.MULTILINE))
        assert listed == {
            name: ast.get_docstring(ast.parse(file.read_text())).splitlines()[0]
            for name, file in COMMANDS.items()
        }
    assert start(tmp_path, '-m', 're2pix_jax', '--version')[1] == f'{re2pix_jax.__version__}\n'


def test_an_unknown_command_suggests_the_nearest(tmp_path):
    for wrong, near in (('trian', 'train'), ('fit-pca', 'fit_pca'), ('evaluat', 'evaluate')):
        status, out, err = start(tmp_path, '-m', 're2pix_jax', wrong, '--workdir=w')
        assert (status, out) == (2, '')
        assert (
            err == f'error: no command {wrong!r}; did you mean re2pix {near}? re2pix lists them\n'
        )
    status, _, err = start(tmp_path, '-m', 're2pix_jax', 'xyzzy')
    assert status == 2
    assert (
        err
        == f"error: no command 'xyzzy'; expected {', '.join(sorted(COMMANDS))}; re2pix lists them\n"
    )


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_is_told_in_a_line_with_an_example(name):
    text = ast.get_docstring(ast.parse(COMMANDS[name].read_text()))
    first, blank = text.splitlines()[:2]
    assert first.endswith('.') and len(first) <= 85 and not blank
    assert f' re2pix {name} ' in text


def test_every_example_is_written_as_the_entry_takes_it():
    files = [
        *ROOT.glob('configs/*.py'),
        *(file for file in ROOT.glob('launch/**/*') if file.is_file()),
        *ROOT.glob('re2pix_jax/**/*.py'),
    ]
    old = re.compile(r'python -m re2pix_jax [a-z]|--config=configs/')
    assert not [
        f'{file.relative_to(ROOT)}: {found[0]}'
        for file in files
        if file.name != '_config.py' and (found := old.findall(file.read_text()))
    ]
