"""The train and export commands: the README's lines, with micro sizes."""

import collections
import re
import subprocess
import sys

import pytest

import re2pix_jax
from re2pix_jax.training import checkpoint, writer
from tests.conftest import MICRO, ROOT, SIZE
from tests.running import environment, outcomes
from tests.training.runs import finish, free_port
from tests.training.test_boards import events

pytestmark = pytest.mark.long  # some take ten seconds and more

TASKS = {
    'autoencoder': 'vae',
    'encoder': 'encoder',
    'head': 'head',
    'forecaster': 'forecaster',
    'generator': 're2pix',
}
FROZEN = {
    'autoencoder': ('encoder',),
    'head': ('encoder', 'principal'),
    'forecaster': ('encoder', 'principal'),
    'generator': ('forecaster', 'vae'),
}


def arguments(task, bundles, workdir):
    fields = {f'model.{name}': value for name, value in MICRO[task].items()}
    fields |= {f'frozen.{name}': bundles / name for name in FROZEN.get(task, ())}
    for data in ('data', 'eval_data'):
        fields |= {f'{data}.size': SIZE, f'{data}.workers': 0}
    fields['data.sources'] = (f'records:{bundles}/clips',)  # of the evaluation too
    fields |= {'steps': 4, 'batch_size': 2, 'log_every': 1, 'eval_every': 4, 'checkpoint_every': 2}
    return [
        f'--config=configs/{task}.py:tiny',
        f'--workdir={workdir}',
        *(f'--config.{name}={value}' for name, value in fields.items()),
    ]


@pytest.fixture(scope='module')
def runs(micro_bundles, tmp_path_factory):
    """(folder of workdirs, {command: [status, stdout, stderr]})"""
    folder = tmp_path_factory.mktemp('runs')
    lines = {task: arguments(task, micro_bundles, folder / task) for task in TASKS}
    lines['another config'] = [
        *arguments('head', micro_bundles, folder / 'head'),
        '--config.optimizer.learning_rate=0.5',
    ]
    lines['a frozen part that is not there'] = arguments('head', micro_bundles, folder / 'none') + [
        '--config.frozen.encoder=nowhere'
    ]
    lines['no training'] = ['--config=evaluate', f'--workdir={folder}/none']
    return folder, outcomes('train', lines)


@pytest.mark.parametrize('task', TASKS)
def test_every_task_trains_by_its_command(task, runs):
    folder, found = runs
    assert found[task][0] == 0, found[task][2]
    rows = writer.read_log(str(folder / task))
    assert [row['step'] for row in rows if 'loss' in row] == [1, 2, 3, 4]
    assert any(key.startswith('eval/') for row in rows for key in row)
    told = 'evaluation at step 4 on 5 clips of records:.*/clips, split validation: '
    assert re.search(told, found[task][1]), found[task][1]
    assert all(value is not None for row in rows for value in row.values())
    assert checkpoint.Checkpoints(str(folder / task), read_only=True).steps()[-1] == 4


def test_every_run_is_exported(runs):
    folder, _ = runs
    found = outcomes(
        'export',
        {task: [f'--workdir={folder / task}', f'--out={folder}/bundles/{task}'] for task in TASKS},
    )
    for task, part in TASKS.items():
        assert found[task][0] == 0, found[task][2]
        assert (
            type(re2pix_jax.load(f'{folder}/bundles/{task}'))
            .__name__.lower()
            .startswith(('autoencoder' if part == 'vae' else part))
        )


def test_a_workdir_of_another_config_is_refused(runs):
    status, _, error = runs[1]['another config']
    assert status == 2 and error.count('\n') == 1
    assert 'learning_rate' in error and 'another' in error


def test_a_config_that_trains_nothing_is_one_line(runs):
    status, _, error = runs[1]['no training']
    assert status == 2 and error.count('\n') == 1
    assert 'the config has no task, optimizer: it describes something else' in error


def test_a_missing_bundle_is_one_line(runs):
    folder, found = runs
    status, _, error = found['a frozen part that is not there']
    assert status == 2 and error.count('\n') == 1 and 'nowhere: no such model' in error
    assert not (folder / 'none').exists()


@pytest.mark.slow
@pytest.mark.parametrize('task', ['forecaster', 'generator'])
def test_two_processes_that_share_the_parameters_show_pictures_once(task, micro_bundles, tmp_path):
    program = """
from re2pix_jax.training import sharding
sharding.SMALLEST = 0  # the kernels of a micro network are cut, too
from re2pix_jax.commands import cli, train
cli.run(train.main)
"""
    line = [
        *arguments(task, micro_bundles, tmp_path / 'run'),
        '--config.batch_size=4',
        '--config.mesh.fsdp=4',
        '--config.steps=2',
        '--config.eval_every=1',
        '--config.checkpoint_every=1',
        '--config.log.pictures=2',
    ]
    several = {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{free_port()}', 'JAX_NUM_PROCESSES': '2'}
    both = [
        subprocess.Popen(
            [sys.executable, '-c', program, *line],
            cwd=ROOT,
            env=environment(2, **several, JAX_PROCESS_ID=str(index)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for ended in map(finish, both):
        assert ended.status == 0, ended.said
    shown = collections.Counter(
        (event.step, value.tag)
        for event in events(tmp_path / 'run')
        for value in event.summary.value
        if value.HasField('image')
    )
    kinds = [f'clips/{clip}/{kind}' for clip in (0, 1) for kind in ('sheet', 'film')]
    assert shown == {(step, kind): 1 for step in (1, 2) for kind in kinds}
