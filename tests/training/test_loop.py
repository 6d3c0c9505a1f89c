"""The loop on a toy task: it learns, resumes exactly, stops where it must, and computes the same on
any mesh.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.training import checkpoint, loop, writer
from tests.running import environment
from tests.training import toy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPEED = (
    'steps_per_second',
    'clips_per_second',
    'tflops',
    'memory_gb',
    'waiting_for_data',
)
PATIENCE = 600  # seconds; a busy machine is no failure


def start(workdir, *fields, devices=1, variables=None):
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.training.toy', str(workdir), *fields],
        cwd=ROOT,
        env=environment(devices, **(variables or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def wait_for_step(process, workdir, step):
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        rows = writer.read_log(workdir)
        if rows and rows[-1]['step'] >= step:
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f'step {step} was not reached: {process.communicate()[1]}')


def log_of(workdir):
    with open(os.path.join(workdir, 'log.jsonl'), encoding='utf-8') as file:
        return file.read()


def parameters(workdir):
    run = loop.open_run(str(workdir), lambda config: toy.Task())
    return jax.device_get((run.state.params, run.state.ema, run.state.opt_state))


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """A run of 20 steps without interruption, in a process of its own."""
    workdir = tmp_path_factory.mktemp('straight')
    status, _, err = finish(start(workdir))
    assert status == 0, err
    assert err == ''
    return workdir


def test_learns_and_logs_every_step_and_evaluation(straight):
    rows = writer.read_log(straight)
    steps = [row['step'] for row in rows if 'loss' in row]
    assert steps == list(range(1, 21))
    assert [row['step'] for row in rows if 'eval/error' in row] == [10, 20]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
    assert os.listdir(straight / 'tensorboard')
    assert json.loads((straight / 'config.json').read_text())['optimizer']['learning_rate'] == 1e-2
    assert sorted(os.listdir(straight / 'checkpoints')) == ['15', '20']


def test_killed_run_resumes_bit_for_bit(straight, tmp_path):
    for step in (7, 13):
        process = start(tmp_path, 'slow=0.2')
        wait_for_step(process, tmp_path, step)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert writer.read_log(tmp_path)[-1]['step'] < 20
    saved = checkpoint.Checkpoints(tmp_path, read_only=True).latest()
    assert saved in (10, 15)  # a busy machine kills late
    status, out, err = finish(start(tmp_path))
    assert status == 0, err
    assert f'going on from step {saved} of' in out
    assert log_of(tmp_path) == log_of(straight)
    assert same(parameters(tmp_path), parameters(straight))


@pytest.mark.long
def test_sigterm_saves_and_the_run_goes_on(straight, tmp_path):
    process = start(tmp_path, 'slow=0.1', 'checkpoint_every=0')
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    status, out, err = finish(process)
    assert (status, err) == (143, '')
    assert 'stopped by a signal after step' in out
    stopped = writer.read_log(tmp_path)[-1]['step']
    assert checkpoint.Checkpoints(tmp_path, read_only=True).latest() == stopped < 20
    status, out, err = finish(start(tmp_path))
    assert status == 0, err
    assert log_of(tmp_path) == log_of(straight)


@pytest.mark.long
def test_the_first_ctrl_c_saves_and_the_second_ends_at_once(straight, tmp_path):
    process = start(tmp_path, 'slow=0.1', 'checkpoint_every=0')
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 143 and 'stopped by a signal after step' in out
    assert err == '\nending after this step, and saving; Ctrl-C again ends at once\n'
    saved = checkpoint.Checkpoints(tmp_path, read_only=True).latest()
    process = start(tmp_path, 'slow=8', 'checkpoint_every=0')
    wait_for_step(process, tmp_path, saved + 1)
    process.send_signal(signal.SIGINT)
    while 'Ctrl-C again' not in process.stderr.readline():  # a busy machine takes two for one
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130 and err.endswith('interrupted\n')
    status, _, err = finish(start(tmp_path))
    assert status == 0, err
    assert log_of(tmp_path) == log_of(straight)


@pytest.mark.long
@pytest.mark.parametrize('fields', [(), ('mesh.data=2', 'mesh.fsdp=2', 'mesh.tensor=2', 'cut=1')])
def test_eight_devices_compute_what_one_does(straight, tmp_path, fields):
    status, _, err = finish(start(tmp_path, *fields, devices=8))
    assert status == 0, err
    for mine, reference in zip(writer.read_log(tmp_path), writer.read_log(straight), strict=True):
        assert mine.keys() == reference.keys()
        for name in ('loss', 'eval/error'):
            assert mine.get(name, 0.0) == pytest.approx(reference.get(name, 0.0), abs=1e-5)
    # Restored onto one device from eight, and as close to the run on one.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        parameters(tmp_path),
        parameters(straight),
    )


# Of the second mesh each process holds a part of every kernel, and of the batch all of it.
@pytest.mark.long
@pytest.mark.parametrize('fields', [(), ('mesh.tensor=2', 'cut=1')])
def test_two_processes_compute_what_one_does(straight, tmp_path, fields):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = [
        start(
            tmp_path,
            'steps=10',
            'eval_every=0',
            *fields,
            variables={
                'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
                'JAX_NUM_PROCESSES': '2',
                'JAX_PROCESS_ID': str(index),
            },
        )
        for index in range(2)
    ]
    for status, _, err in [finish(process) for process in processes]:
        assert status == 0, err
    # The learning rate falls faster over 10 steps than over 20, from the end of the warm-up on.
    for mine, reference in zip(
        writer.read_log(tmp_path)[:4], writer.read_log(straight)[:4], strict=True
    ):
        assert mine['loss'] == pytest.approx(reference['loss'], abs=1e-5)
    assert sorted(os.listdir(tmp_path / 'checkpoints')) == ['10', '5']
    assert (
        int(toy.train(tmp_path, toy.make_config(steps=12, eval_every=0)).step) == 12
    )  # goes on with one


def test_complete_run_says_so_and_more_steps_go_on(straight, tmp_path, capsys):
    config = toy.make_config(steps=4, eval_every=0)
    toy.train(tmp_path, config)
    capsys.readouterr()
    state = toy.train(tmp_path, config)
    assert int(state.step) == 4
    assert 'is at step 4 of 4: nothing left to train' in capsys.readouterr().out
    toy.train(tmp_path, toy.make_config(steps=6, eval_every=0))
    assert [row['step'] for row in writer.read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_loss_that_is_not_finite_stops_with_the_batch_named(straight, tmp_path):
    status, _, err = finish(start(tmp_path, 'poison=7'))
    assert status == 2
    assert err.count('\n') == 1
    assert err.startswith('error: the loss is nan at step 7, records 48 (toy/48), 49 (toy/49)')
    assert str(tmp_path / 'failed') in err
    noted = json.loads((tmp_path / 'failed' / 'step_7_process_0.json').read_text())
    assert noted['names'] == [f'toy/{record}' for record in range(48, 56)]
    batch = np.load(tmp_path / 'failed' / 'step_7_process_0.npz')
    assert np.isnan(batch['x'][1]).all() and np.isfinite(batch['x'][0]).all()
    # What is kept is the state before step 7, although step 8 was under way when the loss was read.
    failed = loop.open_run(str(tmp_path / 'failed'), lambda config: toy.Task()).state
    expected = toy.train(
        tmp_path / 'six', toy.make_config(steps=20, eval_every=0, checkpoint_every=0), stop=6
    )
    assert int(failed.step) == 6
    assert same(jax.device_get(failed.params), jax.device_get(expected.params))
    assert checkpoint.Checkpoints(tmp_path, read_only=True).latest() == 5


def test_another_config_is_refused_by_field(straight):
    config = toy.make_config(
        **{'optimizer.learning_rate': 0.5, 'batch_size': 4, 'steps': 30, 'log_every': 2}
    )
    with pytest.raises(UserError) as error:
        toy.train(straight, config)
    assert f'{straight} belongs to another config' in str(error.value)
    assert 'optimizer.learning_rate was 0.01, is 0.5' in str(error.value)
    assert 'batch_size was 8, is 4' in str(error.value)
    assert 'steps was' not in str(error.value) and 'log_every' not in str(error.value)


def test_a_run_of_another_task_is_refused_by_its_name(straight):
    config = toy.make_config(task='other', batch_size=4)
    with pytest.raises(UserError) as error:
        toy.train(straight, config)
    assert str(error.value) == (
        f'{straight} belongs to a run of the toy task, and this is other: give another --workdir'
    )


def test_changed_bundle_is_refused_by_name_and_a_moved_one_is_not(straight):
    changed = toy.Task({'teacher': {'path': 'bundles/teacher', 'identity': 'bb'}})
    config = toy.make_config()
    with pytest.raises(
        UserError, match=r'other contents of the frozen bundle teacher \(bundles/teacher\)'
    ):
        loop.train(changed, config, str(straight), toy.Data(8))
    moved = toy.Task({'teacher': {'path': 'elsewhere', 'identity': 'aa'}})
    config = toy.make_config(**{'frozen.teacher': 'elsewhere'})
    assert int(loop.train(moved, config, str(straight), toy.Data(8)).step) == 20


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'steps': 0}, 'steps is 0: at least 1 expected'),
        ({'seed': -1}, 'seed is -1: at least 0 and at most 4294967295 expected'),
        ({'optimizer.b2': 1.0}, 'optimizer.b2 is 1.0: at least 0 and below 1 expected'),
        ({'optimizer.learning_rate': float('nan')}, 'optimizer.learning_rate is nan'),
        ({'dtype': 'float64'}, "dtype is 'float64': one of float32"),
        ({'profile.steps': (5, 2)}, r'profile.steps is \(5, 2\): the first and the last step'),
        ({'log_every': 0}, 'log_every is 0'),
        ({'eval_every': -1}, 'eval_every is -1'),
        ({'ema': 1.0}, 'ema is 1.0'),
        ({'keep': 0}, 'keep is 0'),
        (
            {'accumulate': 3},
            'accumulate is 3 but batch_size is 8: expected equal parts; choose a batch_size that '
            'is a multiple of 3',
        ),
        ({'accumulate': 0}, 'accumulate is 0'),
        ({'mesh.data': 3}, 'mesh.data x mesh.fsdp x mesh.tensor is 3 x 1 x 1'),
        ({'mesh.tensor': 0}, 'mesh.tensor is 0'),
        ({'optimizer.name': 'sgd'}, "optimizer.name is 'sgd'"),
    ],
)
def test_impossible_config_is_one_line(tmp_path, fields, message):
    with pytest.raises(UserError, match=message) as error:
        toy.train(tmp_path, toy.make_config(**fields))
    assert '\n' not in str(error.value)


def test_an_evaluation_that_fails_throws_no_steps_away(straight, tmp_path):
    """Nor is it forgotten: the run that goes on makes up for it, to the log of a run without it."""

    def broken(variables):
        raise RuntimeError('no judge')

    fine = toy.Task().evaluate
    # At step 10; then, after it was made up for, at the last step; and then all is well.
    for answers, saved in (([broken], 10), ([fine, broken], 20), ([fine], 20)):
        failing = pytest.raises(RuntimeError, match='no judge')
        evaluate = lambda variables, answers=answers: answers.pop(0)(variables)
        with failing if broken in answers else contextlib.nullcontext():
            toy.train(tmp_path, toy.make_config(), evaluate=evaluate)
        assert checkpoint.Checkpoints(tmp_path, read_only=True).latest() == saved
    assert log_of(tmp_path) == log_of(straight)


def test_a_run_shows_itself(straight, tmp_path, capsys):
    config = toy.make_config(**{'steps': 4, 'eval_every': 0, 'profile.steps': (2, 3)})
    toy.train(tmp_path, config)
    shown = capsys.readouterr().out
    for words in (
        'devices         1 x cpu',
        'mesh            data 1 x fsdp 1 x tensor 1',
        'trained         toy, 312 parameters, computed in float32',
        '40 clips, 5 steps an epoch',
        'frozen teacher  bundles/teacher aa',
        f'written to      {tmp_path}',
        '| Dense_1/kernel    | (16, 8) |',
        'compiling ...',
        'compiled in ',
        'training: 4/4 steps  loss ',
        'waiting for data',
    ):
        assert words in shown, words
    assert shown.index('compiled in') < shown.index('training: 1/4')
    for row in writer.read_log(tmp_path, writer.TIMING):
        assert row.keys() == {'step', *SPEED} and row['memory_gb'] > 0
        assert 0 <= row['waiting_for_data'] <= 1 and row['clips_per_second'] > 0
    # What the clock says is in no row of the log, which two runs have alike.
    assert not {*SPEED} & {name for row in writer.read_log(tmp_path) for name in row}
    traces = list((tmp_path / 'profile').rglob('*.xplane.pb'))
    assert len(traces) == 1 and traces[0].stat().st_size > 1000
    assert b'train' in traces[0].read_bytes()


def test_the_network_s_refusal_is_one_line_that_blames_the_config(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise ValueError('the net was given 3 frames and takes 4\nmore')

    monkeypatch.setattr(toy.Task, 'loss', refuse)
    with pytest.raises(UserError) as caught:
        toy.train(tmp_path, toy.make_config())
    assert str(caught.value) == (
        'config.model or config.data: the net was given 3 frames and takes 4'
    )


def test_a_checkpoint_of_before_is_refused_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, 'FORMAT', 2)
        toy.train(tmp_path, toy.make_config(steps=2, eval_every=0))
    for call in (
        lambda: toy.train(tmp_path, toy.make_config()),
        lambda: loop.open_run(str(tmp_path), lambda config: toy.Task()),
    ):
        with pytest.raises(UserError, match='checkpoint format 2, .* train anew .*0.1.0') as caught:
            call()
        assert '\n' not in str(caught.value)


def test_open_run_at_a_step(tmp_path):
    toy.train(tmp_path, toy.make_config(steps=4, checkpoint_every=2))
    steps = [
        int(loop.open_run(str(tmp_path), lambda config: toy.Task(), step).state.step)
        for step in (2, 4, None)
    ]
    assert steps == [2, 4, 4]
    with pytest.raises(UserError, match='holds no checkpoint of step 3: it has those of 2, 4'):
        loop.open_run(str(tmp_path), lambda config: toy.Task(), 3)


def test_open_run_without_checkpoint(tmp_path):
    with pytest.raises(UserError, match='holds no checkpoint'):
        loop.open_run(str(tmp_path), lambda config: toy.Task())
    assert os.listdir(tmp_path) == []
