"""What hosts and slices are set up with before a launcher trains there, and what --help says."""

import pathlib
import re
import subprocess

import pytest

from tests.conftest import ROOT
from tests.launch.test_launchers import NAMES, SCRIPTS, launch


def _tool(folder, name, *lines):
    folder.mkdir(exist_ok=True)
    tool = folder / name
    tool.write_text('\n'.join(['#!/bin/sh', *lines, '']))
    tool.chmod(0o755)


@pytest.mark.parametrize('brings', [True, False])
def test_where_every_python_is_too_old_uv_brings_one(tmp_path, brings):
    old, new = tmp_path / 'old', tmp_path / 'new'
    for name in ('python3', 'python3.11', 'python3.12'):
        _tool(old, name, 'exit 1')
    made = f'-m) mkdir -p .venv/bin; cp {new}/python .venv/bin; echo > .venv/bin/activate ;;'
    _tool(new, 'python', 'case "$1" in', '-c) echo 3.12.1 /base ;;', made, 'esac', 'echo "$@" >&2')
    asked = f'"python find 3.12") echo {new}/python ;;'
    known = '"python install --no-progress 3.12") ;;'
    _tool(old, 'uv', 'case "$*" in', *([known, asked] if brings else []), '*) exit 1 ;;', 'esac')
    for name in ('setup.py', 'requirements.txt', 'launch'):
        (tmp_path / name).symlink_to(ROOT / name)
    environ = {'PATH': f'{old}:/usr/bin:/bin', 'HOME': str(tmp_path), 'EXTRA': 'tpu,gcs'}
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', 'source launch/environment.sh'],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
    )
    if not brings:
        assert (done.returncode, done.stderr) == (
            2,
            'error: no Python 3.11 or 3.12 found, and uv brings none; install one or set PYTHON\n',
        )
        return
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith(' -e .[tpu,gcs]')
    stamp = (tmp_path / '.venv' / 'stamps').read_text()
    assert stamp.startswith('3.12.1 /base ') and stamp.endswith(' tpu,gcs\n')


def test_what_could_not_be_installed_is_tried_again(tmp_path):
    made = f'-m) mkdir -p .venv/bin; cp {tmp_path}/python .venv/bin; echo > .venv/bin/activate ;;'
    once = 'if [ "$2" = pip ] && [ ! -f tried ]; then touch tried; exit 1; fi'
    _tool(tmp_path, 'python', once, 'case "$1" in', '-c) echo 3.12.1 /base ;;', made, 'esac')
    for name in ('setup.py', 'requirements.txt', 'launch'):
        (tmp_path / name).symlink_to(ROOT / name)
    environ = {'PATH': '/usr/bin:/bin', 'PYTHON': str(tmp_path / 'python'), 'EXTRA': 'tpu'}
    # As a shell in which somebody types: it stays, and has the status.
    script = 'source launch/environment.sh; echo status $?; source launch/environment.sh; echo $?'
    done = subprocess.run(
        ['bash', '-c', script], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    told = 'error: re2pix_jax[tpu] was not installed, see above: try again\n'
    assert done.stderr == told
    assert 'status 2\n' in done.stdout and done.stdout.endswith('\n0\n')
    assert (tmp_path / '.venv' / 'stamps').read_text().count('\n') == 1


def test_a_slice_that_others_made_is_deleted_whole(tmp_path):
    _tool(
        tmp_path,
        'gcloud',
        'case "$*" in *describe*) echo NOT_FOUND >&2; exit 1 ;; esac',
        f'echo "$@" >> {tmp_path}/log',
    )
    variables = NAMES | {'SLICES': '2'}
    assert launch('tpu_pod.sh', 'delete', path=[tmp_path], **variables)[0] == 0
    words = [line.split()[:5] for line in (tmp_path / 'log').read_text().splitlines()]
    assert words == [['compute', 'tpus', 'tpu-vm', 'delete', f'pod-{i}'] for i in (0, 1)]


def test_what_a_tpu_compiled_is_kept_in_the_bucket_of_the_run():
    kept = 'env JAX_COMPILATION_CACHE_DIR=gs://bucket/run/compiled re2pix train '
    given = {'RECIPE': 'base', 'OUT': 'gs://bucket/run', 'PLATFORM': 'tpu'}
    _, shown, _ = launch('stages.sh', '--dry-run', **given)
    assert shown.count(kept) == shown.count('re2pix train ') == 3
    _, shown, _ = launch('stages.sh', '--dry-run', **given, JAX_COMPILATION_CACHE_DIR='/x')
    assert shown.count('env JAX_COMPILATION_CACHE_DIR=/x re2pix train') == 3


SOURCED = 'launch/environment.sh', 'launch/show.sh', 'launch/usage.sh'


@pytest.mark.parametrize(
    'script', [one for one in SCRIPTS if one.startswith('launch/') and one not in SOURCED]
)
def test_help_is_the_comment_at_the_head(script):
    status, shown, said = launch(pathlib.Path(script).name, '--help')
    lines = (ROOT / script).read_text().splitlines()[1:]
    first = next(line for line in lines if not line.startswith('#SBATCH'))
    assert (status, said) == (0, '') and shown.startswith(first.removeprefix('# ') + '\n')
    assert f'launch/{pathlib.Path(script).name}' in shown or script == 'launch/parity.sh'
    assert not re.search('^#|SBATCH|shellcheck|set -euo', shown, re.M)
