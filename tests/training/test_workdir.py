"""The folder of a run: killed and gone on with in a bucket it gives what it gives on a disk; one
that the processes do not share is noticed.
"""

import os
import signal
import socket
import time

import pytest

from re2pix_jax import remote
from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.training import checkpoint, writer
from re2pix_jax.training.workdir import Workdir
from tests import store
from tests.training import toy
from tests.training.test_loop import PATIENCE, finish, parameters, same, start

PLACE = f'gs://{store.BUCKET}/runs/toy'


@pytest.fixture(scope='module')
def bucket():
    with store.google() as variables:
        yield variables


def kill_when(process, seen):
    """Kills it once `seen(names below PLACE)`."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if seen(remote.names(PLACE)):
            process.send_signal(signal.SIGKILL)
            return process.communicate()
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f'not seen: {process.communicate()}')


def two(places, *fields):
    """Two processes of one run, each with its workdir."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    of = {'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}', 'JAX_NUM_PROCESSES': '2'}
    return [
        start(place, *fields, variables={**of, 'JAX_PROCESS_ID': str(index)})
        for index, place in enumerate(places)
    ]


@pytest.mark.long
@store.needed
def test_a_run_in_a_bucket_killed_twice_is_the_run_on_a_disk(bucket, tmp_path):
    complete = lambda step: f'checkpoints/{step}/commit_success.txt'
    kill_when(start(PLACE, 'slow=0.2'), lambda names: complete(5) in names)
    # Here, while the checkpoint is being written.
    begun = lambda names: any(name.startswith('checkpoints/15/') for name in names)
    out, _ = kill_when(start(PLACE, 'slow=0.2'), begun)
    assert f'going on from step 5 of {PLACE}' in out
    whole = complete(15) in remote.names(PLACE)
    status, out, err = finish(start(PLACE))
    assert status == 0, err
    assert f'going on from step {15 if whole else 10} of {PLACE}' in out
    local = tmp_path / 'run'
    toy.train(local, toy.make_config())
    assert same(parameters(PLACE), parameters(local))
    assert remote.read(f'{PLACE}/{writer.LOG}') == (local / writer.LOG).read_bytes()
    names = remote.names(PLACE)
    top = {name.partition('/')[0] for name in names}
    assert top == {'checkpoints', 'config.json', 'tensorboard', *writer.LOGS}
    assert checkpoint.Checkpoints(PLACE, read_only=True).steps() == [15, 20]
    digest = checkpoint.Checkpoints(PLACE, read_only=True).digest(20)
    assert len(digest) == 64


@pytest.mark.slow
@store.needed
def test_two_processes_in_a_bucket_compute_what_they_do_on_a_disk(bucket, tmp_path):
    place, local = f'gs://{store.BUCKET}/runs/two', tmp_path / 'run'
    for workdir in (place, local):
        for status, _, err in map(finish, two([workdir] * 2, 'steps=10')):
            assert status == 0, err
    assert same(parameters(place), parameters(local))
    assert remote.read(f'{place}/{writer.LOG}') == (local / writer.LOG).read_bytes()


@store.needed
def test_logs_travel_once_for_a_checkpoint(bucket, monkeypatch):
    sent = []
    upload = remote.upload

    def counted(file, to, *replace):
        sent.append(to)
        upload(file, to, *replace)

    monkeypatch.setattr(remote, 'upload', counted)
    place = f'gs://{store.BUCKET}/runs/logs'
    toy.train(place, toy.make_config(steps=10, checkpoint_every=5, eval_every=0))
    logs = [name for name in sent if name.endswith('/log.jsonl')]
    assert len(logs) == 2  # at steps 5 and 10; not once more at the end, when nothing is new


@store.needed
def test_a_checkpoint_that_does_not_reach_the_bucket_ends_the_run_to_go_on(bucket, monkeypatch):
    def away(*_, **__):
        raise ConnectionResetError('reset by peer')

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save', away)
    with pytest.raises(Interrupted, match='a checkpoint was not written: .*/lost/.*reset'):
        toy.train(f'gs://{store.BUCKET}/runs/lost', toy.make_config(steps=2))


@store.needed
def test_what_failed_is_kept_in_the_bucket(bucket):
    place = f'gs://{store.BUCKET}/runs/failed'
    with pytest.raises(UserError, match=f'is nan at step 3.*are in {place}/failed'):
        toy.train(place, toy.make_config(), poison=3)
    assert checkpoint.Checkpoints(place, folder='failed/checkpoints').steps() == [2]
    assert remote.read(f'{place}/failed/step_3_process_0.npz')
    rows = remote.read(f'{place}/{writer.LOG}').decode().splitlines()
    assert len(rows) == 2  # what came before is there


@store.needed
def test_a_bucket_that_is_not_there_is_one_line_before_the_run(bucket, tmp_path):
    with pytest.raises(UserError, match='gs://nowhere/run.*check the name of the bucket'):
        toy.train('gs://nowhere/run', toy.make_config())


def test_a_folder_that_cannot_be_written_is_one_line_before_the_run(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match="file.*can't be written"):
        toy.train(tmp_path / 'file' / 'run', toy.make_config())


def test_s3_is_refused_before_the_run(monkeypatch):
    monkeypatch.setitem(remote.CLIENTS, 's3', ('not_installed', 's3'))  # nor is it asked for
    with pytest.raises(UserError, match='--workdir=s3://bucket/run: checkpoints are written to a'):
        toy.train('s3://bucket/run', toy.make_config())


def test_no_token_stays(tmp_path):
    with Workdir(str(tmp_path / 'run')):
        assert os.listdir(tmp_path / 'run') == []


@pytest.mark.long
def test_processes_that_do_not_share_their_workdir_end_in_one_line(tmp_path):
    """Two hosts, each with a disk of its own."""
    places = [tmp_path / f'host_{index}' for index in range(2)]
    processes = two(places, 'steps=4')
    for process, place in zip(processes, places):
        status, _, err = finish(process)
        lines = [line for line in err.splitlines() if line.startswith('error: ')]
        assert status == 2 and 'Traceback' not in err, err
        assert lines == [
            f'error: --workdir={place}: process 0 writes there and process 1 does not see it; '
            'expected one folder for all: give one on a disk that the hosts share, or on gs://'
        ]
        assert not place.exists() or os.listdir(place) == []


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / 'notes').touch()
    with pytest.raises(UserError) as error:
        checkpoint.check_place(str(tmp_path / 'notes'))
    assert str(error.value) == (
        f'--workdir={tmp_path}/notes: is a file; expected the folder of a run, or a new one'
    )
