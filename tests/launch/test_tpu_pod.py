"""A TPU slice, which is two processes of this machine: made, started, watched, given back."""

import json
import os
import signal
import sys
import tarfile
import time

import pytest

from re2pix_jax.training import checkpoint
from tests.conftest import ROOT
from tests.launch.launching import NAMES, launch
from tests.training.runs import free_port


def cloud(tmp_path, command, **given):
    """A stand-in for gcloud on PATH, as a function that runs a verb, and where its slice is."""
    tools, folder = tmp_path / 'bin', tmp_path / 'cloud'
    for made in (tools, folder):
        made.mkdir()
    (tools / 'gcloud').write_text(
        f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/launch/gcloud.py "$@"\n'
    )
    (tools / 'gcloud').chmod(0o755)
    variables = NAMES | {
        'GCLOUD_FOLDER': str(folder),
        'GCLOUD_COORDINATOR': f'127.0.0.1:{free_port()}',
        'COMMAND': command,
        'TMPDIR': str(tmp_path),
        'TO': str(tmp_path / 'fetched'),
    }

    def call(verb, status=0):
        found, shown, said = launch('tpu_pod.sh', verb, path=[tools], **variables, **given)
        assert found == status, said
        return shown + said

    return call, folder


def calls_of(folder):
    """What gcloud was asked for, each its group, verb and flags."""
    lines = (folder / 'calls.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.long
def test_a_tpu_slice_is_made_filled_started_fetched_and_given_back(tmp_path):
    workdir = tmp_path / 'run'
    call, folder = cloud(tmp_path, f'python -m tests.training.toy {workdir} steps=4 eval_every=0')
    assert call('create') == 'pod: WAITING_FOR_RESOURCES\n'
    call('setup')
    with tarfile.open(tmp_path / 're2pix-pod.tgz') as archive:
        names = archive.getnames()
    assert {'./launch/stages.sh', './re2pix_jax/data/loader.py'} <= {*names}
    assert not [name for name in names if name.startswith(('./.git/', './.venv/', './runs/'))]
    call('start')
    deadline = time.monotonic() + 240
    while 'lost' in (found := call('status')) or 'running' in found:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    logs = [(folder / f'pod-{worker}/re2pix/run.log').read_text() for worker in range(2)]
    assert found == '0\n0\n', logs
    assert 'processes       2' in logs[0] and 'training: 4/4 steps' in logs[0]
    assert checkpoint.Checkpoints(str(workdir), read_only=True).latest() == 4
    assert call('watch') == 'ended with status 0\n'
    call('fetch')
    assert [(tmp_path / f'fetched/pod/{i}.log').read_text() for i in range(2)] == logs
    call('delete')
    calls = calls_of(folder)
    assert calls[0] == [
        *('compute', 'tpus', 'queued-resources', 'create', 'pod', '--zone=us-west4-a'),
        *('--project=mine', '--node-id=pod', '--accelerator-type=v5litepod-16'),
        '--runtime-version=v2-alpha-tpuv5-lite',
    ]
    assert ['storage', 'cp', '--recursive', 'gs://bucket/run', str(tmp_path / 'fetched')] in calls
    assert calls[-1][2:5] == ['queued-resources', 'delete', 'pod']


def test_a_run_is_started_once_and_one_that_is_lost_is_said_to_be(tmp_path):
    call, folder = cloud(tmp_path, 'sleep 300')
    call('setup')
    call('start')
    files = [folder / f'pod-{worker}/re2pix/run.pid' for worker in range(2)]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text().strip() for file in files):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first = [int(file.read_text()) for file in files]
    assert call('status') == 'running\n' * 2
    assert call('start') == 'running already\n' * 2
    assert first == [int(file.read_text()) for file in files]
    os.killpg(first[1], signal.SIGKILL)  # as when its machine starts anew
    while 'lost' not in (found := call('status')) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == 'running\nlost\n'
    call('start')
    while call('status') != 'running\n' * 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert int(files[0].read_text()) == first[0] and int(files[1].read_text()) != first[1]
    call('stop')
    while 'running' in (found := call('status')) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == '143\n' * 2


def test_watching_gives_nothing_back_that_is_there(tmp_path):
    call, folder = cloud(tmp_path, 'true', GCLOUD_STATES='ACTIVE OFFLINE OFFLINE ACTIVE')
    call('setup')
    call('start')
    shown = call('watch')
    assert 'There was a problem refreshing' in shown and '\nended with status 0\n' in '\n' + shown
    assert not {'delete', 'create'} & {verb for call in calls_of(folder) for verb in call}


def test_a_slice_that_was_made_elsewhere_is_not_watched(tmp_path):
    call, folder = cloud(tmp_path, 'true', GCLOUD_STATES='NONE')
    assert call('watch', status=2).startswith('error: pod: no queued resources of that name')
    assert len(calls_of(folder)) == 1


def test_what_was_taken_away_is_had_again_however_often_a_verb_fails(tmp_path):
    states = 'ACTIVE SUSPENDED SUSPENDED NONE ACTIVE ACTIVE'
    call, folder = cloud(tmp_path, 'true', GCLOUD_STATES=states, GCLOUD_FAILS='create scp')
    shown = call('watch')
    assert 'pod was taken away: once more\n' in shown and '\nended with status 0\n' in '\n' + shown
    assert 'pod: no create yet\n' in shown and 'pod: no setup yet\n' in shown
    verbs = [call[3] for call in calls_of(folder)]
    made = [verb for verb in verbs if verb in ('delete', 'create', 'scp')]
    assert made == ['delete', 'create', 'create', 'scp', 'scp']


def test_several_slices_are_one_run():
    variables = NAMES | {'SLICES': '2', 'TYPE': 'v6e-64'}
    based = {'RECIPE': 'base', 'DATA': 'gs://bucket/x', 'PARTS': 'gs://bucket/parts'}
    _, shown, _ = launch('tpu_pod.sh', 'create', '--dry-run', **variables)
    assert '--node-count=2 --node-prefix=pod --accelerator-type=v6e-64' in shown
    _, shown, _ = launch('tpu_pod.sh', 'start', '--dry-run', **variables, **based)
    for node, line in zip(('pod-0', 'pod-1'), shown.splitlines(), strict=True):
        assert line.startswith(f'gcloud compute tpus tpu-vm ssh {node} ')
        assert '--worker=all' in line and 'RE2PIX_DISTRIBUTED=1' in line
    _, shown, _ = launch('tpu_pod.sh', 'setup', '--dry-run', **variables)
    assert shown.count('EXTRA=tpu,gcs ') == 2
