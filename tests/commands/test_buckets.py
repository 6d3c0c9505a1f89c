"""The commands with everything in a bucket: prepared, trained, killed, gone on with, exported,
evaluated, compared and predicted, and the same as on a disk.
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


@pytest.mark.slow
@store.needed
def test_all_commands_in_a_bucket(micro_bundles, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    with store.google():
        # Data and bundles.
        world = '--clips=6', '--validation_clips=5', '--frames=22', '--size=32x64'
        command('prepare', 'world', f'--out={PLACE}/clips', *world, '--processes=1')
        assert 'all as the manifest says' in command('prepare', f'--check={PLACE}/clips')
        for name in ('encoder', 'principal', 're2pix'):
            remote.upload(micro_bundles / name, f'{PLACE}/{name}')
        parts = f'--encoder={PLACE}/encoder', f'--principal={PLACE}/principal'
        source = f'--source=records:{PLACE}/clips'
        told = command('prepare', 'encode', source, *parts, f'--out={PLACE}/encoded')
        assert told == f'{PLACE}/encoded: 6 train clips, 5 validation clips\n'

        # Trained on a disk, and in the bucket with two kills.
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

        # Exported: bit for bit the same, and its parts are named where they lie.
        command('export', f'--workdir={tmp_path}/run', f'--out={tmp_path}/bundle')
        command('export', f'--workdir={PLACE}/run', f'--out={PLACE}/bundle')
        assert bundles.digest(f'{PLACE}/bundle') == bundles.digest(tmp_path / 'bundle')
        weights = remote.read(f'{PLACE}/bundle/weights.safetensors')
        assert weights == (tmp_path / 'bundle' / 'weights.safetensors').read_bytes()
        assert bundles.read(f'{PLACE}/bundle').parts == {
            'encoder': '../encoder',
            'principal': '../principal',
        }

        # Evaluated, compared, predicted.
        asked = [
            '--config=evaluate',
            f'--config.model={PLACE}/re2pix',
            f'--config.source=records:{PLACE}/clips',
            '--config.clips=4',
            '--config.horizon=2',
            '--config.batch_size=2',
            '--config.evals.probe.clips=6',
            '--config.evals.probe.steps=4',
            '--config.evals.probe.batch_size=2',
        ]
        for seed in (0, 1):
            out = f'--workdir={PLACE}/evaluation_{seed}'
            told = command('evaluate', *asked, f'--config.seed={seed}', out)
            assert f'written to {PLACE}/evaluation_{seed}: metrics.json' in told
        assert json.loads(remote.read(f'{PLACE}/evaluation_0/metrics.json'))
        reports = [f'{PLACE}/evaluation_{seed}' for seed in (0, 1)]
        assert all(report in command('compare', *reports) for report in reports)
        model = f'--model={PLACE}/re2pix'
        command('predict', '--world=validation:3', model, f'--out={PLACE}/predicted', '--horizon=2')
        written = {'future.mp4', 'sheet.png', 'metrics.json'}
        assert remote.names(f'{PLACE}/predicted').keys() == written
