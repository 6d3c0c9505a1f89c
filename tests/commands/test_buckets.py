"""The commands with everything in a bucket: prepared, encoded, trained, killed, gone on with,
exported, evaluated, compared, predicted and fitted.
"""

import json
import subprocess
import sys
import time

import pytest

from re2pix_jax import bundles, remote
from re2pix_jax.training import writer
from tests import store
from tests.commands.test_train import arguments
from tests.conftest import ROOT
from tests.running import environment, outcomes

PLACE = f'gs://{store.BUCKET}'


def command(name, *given):
    """stdout of a command that succeeds."""
    status, out, err = outcomes(name, {'': list(given)})['']
    assert status == 0, err
    return out


def killed(step, line):
    """Trains, and kills the process once the checkpoint of `step` is complete."""
    process = subprocess.Popen(
        [sys.executable, '-m', 're2pix_jax', 'train', *line],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    complete = f'{PLACE}/run/checkpoints/{step}/commit_success.txt'
    while process.poll() is None and not remote.names(complete):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    process.kill()
    return process.communicate()[0]


@pytest.fixture(scope='module')
def bucket(micro_bundles, tmp_path_factory):
    """Prepared clips and bundles in the bucket."""
    with pytest.MonkeyPatch.context() as patched, store.google():
        patched.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        world = '--clips=6', '--validation_clips=5', '--frames=22', '--size=32x64'
        command('prepare', 'world', f'--out={PLACE}/clips', *world, '--processes=1')
        for name in ('encoder', 'principal', 're2pix'):
            remote.upload(micro_bundles / name, f'{PLACE}/{name}')
        yield


@pytest.mark.slow
@store.needed
def test_a_run_killed_twice_is_exported_bit_for_bit_as_on_a_disk(bucket, micro_bundles, tmp_path):
    local = [
        *arguments('forecaster', micro_bundles, tmp_path / 'run'),
        '--config.steps=60',
        '--config.checkpoint_every=20',
        '--config.eval_every=30',
    ]
    command('train', *local)
    line = [
        argument.replace(str(micro_bundles), PLACE).replace(str(tmp_path), PLACE)
        for argument in local
    ]
    killed(20, line)
    assert f'going on from step 20 of {PLACE}/run' in killed(40, line)
    assert f'going on from step 40 of {PLACE}/run' in command('train', *line)
    log = (tmp_path / 'run' / writer.LOG).read_bytes()
    assert remote.read(f'{PLACE}/run/{writer.LOG}') == log
    command('export', f'--workdir={tmp_path}/run', f'--out={tmp_path}/bundle')
    command('export', f'--workdir={PLACE}/run', f'--out={PLACE}/bundle')
    assert bundles.digest(f'{PLACE}/bundle') == bundles.digest(tmp_path / 'bundle')
    weights = remote.read(f'{PLACE}/bundle/weights.safetensors')
    assert weights == (tmp_path / 'bundle' / 'weights.safetensors').read_bytes()


@pytest.mark.slow
@store.needed
def test_the_other_commands(bucket):
    told = command('prepare', f'--check={PLACE}/clips')
    assert told == f'{PLACE}/clips: 6 train clips, 5 validation clips, all as the manifest says\n'
    source = f'--source=records:{PLACE}/clips'
    parts = f'--encoder={PLACE}/encoder', f'--principal={PLACE}/principal'
    told = command('prepare', 'encode', source, *parts, f'--out={PLACE}/encoded')
    assert told == f'{PLACE}/encoded: 6 train clips, 5 validation clips\n'
    asked = {
        'model': f'{PLACE}/re2pix',
        'source': f'records:{PLACE}/clips',
        'clips': 4,
        'horizon': 2,
        'batch_size': 2,
        'evals.depth.head': '',
        'evals.probe.clips': 6,
        'evals.probe.steps': 4,
        'evals.probe.batch_size': 2,
    }
    line = ['--config=evaluate', *(f'--config.{name}={value}' for name, value in asked.items())]
    reports = [f'{PLACE}/evaluation_{seed}' for seed in (0, 1)]
    for seed, report in enumerate(reports):
        told = command('evaluate', *line, f'--config.seed={seed}', f'--workdir={report}')
        assert f'written to {report}: metrics.json' in told
        assert json.loads(remote.read(f'{report}/metrics.json'))
    told = command('compare', *reports)
    assert all(report in told for report in reports)
    model = f'--model={PLACE}/re2pix'
    command('predict', '--world=validation:3', model, f'--out={PLACE}/predicted', '--horizon=2')
    assert remote.names(f'{PLACE}/predicted').keys() == {
        'future.mp4',
        'sheet.png',
        'metrics.json',
    }
    fitted = [
        '--config=principal:tiny',
        f'--config.frozen.encoder={PLACE}/encoder',
        f"--config.data.sources=('records:{PLACE}/clips',)",
        '--config.data.size=(32,64)',
        '--config.clips=4',
        '--config.batch_size=2',
        '--config.components=4',
    ]
    command('fit_pca', *fitted, f'--out={PLACE}/fitted')
    names = remote.names(f'{PLACE}/fitted')
    assert {'config.json', 'weights.safetensors', 'explained_variance.png'} <= names.keys()
    assert bundles.read(f'{PLACE}/fitted').parts == {'encoder': '../encoder'}
    assert not remote.names(f'{PLACE}/fitted.progress.npz')
