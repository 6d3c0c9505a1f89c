"""The stages of a recipe: on any number of devices, cut off, planned for, waited for."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from concurrent import futures

import pytest

from re2pix_jax import files
from re2pix_jax.training import mesh
from tests import store
from tests.conftest import ROOT, load_config
from tests.launch.launching import launch
from tests.running import environment


def stand_in(folder, *lines):
    """A re2pix on PATH that notes what it is given."""
    folder.mkdir(exist_ok=True)
    tool = folder / 're2pix'
    tool.write_text('\n'.join(['#!/bin/bash', f'echo "$*" >> {folder}/log', *lines, '']))
    tool.chmod(0o755)
    return folder


@pytest.mark.parametrize('devices', [1, 2, 8, 64])
@pytest.mark.parametrize('recipe', ['tiny', 'base'])
def test_every_stage_shares_its_batch_out_over_the_devices(recipe, devices):
    _, shown, _ = launch('stages.sh', '--dry-run', 'x', RECIPE=recipe)
    trained = [line for line in shown.splitlines() if ' train ' in f' {line} ']
    assert trained and all(' --fill_devices ' in line for line in trained)
    for line in trained:
        (name,) = [word for word in line.split() if word.startswith('--config=')]
        config = load_config(*name.removeprefix('--config=').split(':'))
        batch = mesh.filled(config.batch_size, mesh.abstract(devices))
        mesh.check_batch_size(batch, mesh.abstract(devices))
        assert config.batch_size <= batch < config.batch_size + devices


def test_all_lines_of_training_are_heard():
    given = '--config.steps=100\n--config.seed=3  --config.keep=1\n'
    _, shown, said = launch('stages.sh', '--dry-run', 'x', TRAINING=given)
    assert said == '' and shown.count('--config.steps=100 --config.seed=3 --config.keep=1') == 2


def test_a_plan_hears_what_is_trained_and_is_kept_where_it_has_one(tmp_path):
    plans = 'case $* in plan*batch_size=64*) echo "none fits; nearest is x" ;;'
    tools = stand_in(tmp_path / 'bin', f'{plans} plan*) echo "take --config.mesh.fsdp=8" ;; esac')
    (tools / 'python').write_text('#!/bin/sh\n')  # looks at TRAINING
    (tools / 'python').chmod(0o755)
    given = {'path': [tools], 'TOPOLOGY': 'v5e:2x4'}
    for _ in range(2):  # nothing of it is kept
        status, _, said = launch(
            'stages.sh', f'{tmp_path}/x', **given, TRAINING='--config.batch_size=64'
        )
        assert status == 2 and said == 'error: none fits; nearest is x\n'
    noted = (tools / 'log').read_text().splitlines()
    line = 'plan --config=forecaster:tiny --topology=v5e:2x4 --search --fill_devices'
    assert noted == [f'{line} --config.batch_size=64'] * 2
    launch('stages.sh', f'{tmp_path}/x', **given, TRAINING='--config.batch_size=8', PATIENCE='0')
    noted = (tools / 'log').read_text().splitlines()[2:]
    assert noted[0] == f'{line} --config.batch_size=8'
    assert noted[1].startswith('train ') and '--config.mesh.fsdp=8' in noted[1]


def test_who_waits_for_a_bundle_gives_up(tmp_path):
    tools = stand_in(tmp_path / 'bin')
    given = {'path': [tools], 'PATIENCE': '0', 'JAX_PROCESS_ID': '1'}
    status, _, said = launch('stages.sh', f'{tmp_path}/x', **given)
    assert status == 75 and said == f'error: {tmp_path}/x/parts/forecaster: not made by process 0\n'


@pytest.mark.parametrize('all_of_it', [False, True], ids=['kill -INT', 'Ctrl-C'])
def test_an_interrupt_goes_to_what_is_under_way(tmp_path, all_of_it):
    heard = "trap 'echo heard >> $0.heard; exit 143' TERM; touch $0.ready; sleep 30 & wait"
    tools = stand_in(tmp_path / 'bin', heard)
    begun = subprocess.Popen(
        ['bash', 'launch/stages.sh', f'{tmp_path}/x'],
        cwd=ROOT,
        env=environment() | {'PATH': f'{tools}{os.pathsep}{os.environ["PATH"]}', 'RECIPE': 'tiny'},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not (tools / 're2pix.ready').exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if all_of_it:  # a terminal's goes to the whole group
        os.killpg(begun.pid, signal.SIGINT)
    else:
        begun.send_signal(signal.SIGINT)
    assert begun.wait(30) == 143 and (tools / 're2pix.heard').read_text() == 'heard\n'


def test_a_status_is_that_of_the_command_that_ended_as_the_signal_came(tmp_path):
    tools = stand_in(tmp_path / 'bin', "trap '' TERM; kill -INT $PPID; exit 7")

    def status(number):
        return launch('stages.sh', f'{tmp_path}/{number}', path=[tools], RECIPE='tiny')[0]

    with futures.ThreadPoolExecutor(16) as pool:  # what is lost is lost in one of ten
        assert set(pool.map(status, range(48))) == {7}


@store.needed
def test_a_bundle_in_a_bucket_is_there_once_its_last_file_is(tmp_path):
    text = (ROOT / 'launch/stages.sh').read_text()
    begin = text.index("exists='import sys")
    script = 'dry=""\n' + text[begin : text.index('alone() {')] + 'there "$1"\n'
    tools = f'{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'

    def there(variables):
        done = subprocess.run(
            ['bash', '-c', script, 'x', f'gs://{store.BUCKET}/parts/head'],
            cwd=ROOT,
            env=environment() | {'PATH': tools} | variables,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    with store.google() as variables:
        files.write_text(f'gs://{store.BUCKET}/parts/head/weights.safetensors', 'half')
        assert there(variables) == (1, '')
        files.write_text(f'gs://{store.BUCKET}/parts/head/config.json', '{}')
        assert there(variables) == (0, '')
    (tmp_path / 'etils').mkdir()  # a client that finds no bucket
    (tmp_path / 'etils' / '__init__.py').touch()
    (tmp_path / 'etils' / 'epath.py').write_text('def Path(name):\n    raise OSError("is away")\n')
    status, said = there({'PYTHONPATH': str(tmp_path)})
    assert status == 75 and said.count('\n') == 1 and 'config.json: is away; the same com' in said
