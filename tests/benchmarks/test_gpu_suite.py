"""The suite goes on where it stopped, one row's failure is one row's, and its rows go through."""

import json
import subprocess
import sys

import pytest

from re2pix_jax.benchmarks import gpu_rows, gpu_suite
from re2pix_jax.errors import UserError


@pytest.fixture
def processes(monkeypatch):
    """Rows by name: what each would do in its process, a number of seconds, an error's text or an
    exception; and the names of those that were begun.
    """
    rows, begun = {}, []

    def start(command, timeout, **_):
        *_, name, file = command
        begun.append(name)
        outcome = rows[name]
        if isinstance(outcome, str):
            return subprocess.CompletedProcess(command, 1, '', f'Traceback\n{outcome}\n')
        if outcome is None:
            raise subprocess.TimeoutExpired(command, timeout)
        numbers = {'seconds': outcome, 'first_seconds': 2.0, 'memory': 5e9, 'device': 'H100'}
        with open(file, 'w') as opened:
            json.dump(numbers | {'share': 0.3, 'of': 'MFU'}, opened)
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(gpu_suite, '_names', lambda: list(rows))
    monkeypatch.setattr(subprocess, 'run', start)
    return rows, begun


def test_what_failed_or_is_there_is_not_tried_again(processes, tmp_path, capsys):
    rows, begun = processes
    rows |= {'step-b/ours': 0.1, 'step-b/torch': 'OutOfMemoryError: 90 GB', 'norm/ours': 0.2}
    gpu_suite.run(str(tmp_path), 8.5, '^step')
    assert begun == ['step-b/ours', 'step-b/torch']
    assert 'OutOfMemoryError: 90 GB' in (text := capsys.readouterr().out)
    assert 'all rows are there' in text
    gpu_suite.run(str(tmp_path), 8.5, '.')
    assert begun[2:] == ['norm/ours']
    found = json.loads((tmp_path / 'results.json').read_text())
    assert list(found) == list(rows) and 'OutOfMemoryError' in found['step-b/torch']['error']
    assert (tmp_path / 'table.txt').read_text().rstrip() in capsys.readouterr().out


def test_no_row_begins_when_the_time_is_nearly_over(processes, tmp_path, monkeypatch, capsys):
    rows, begun = processes
    rows |= {'a/ours': 0.1, 'b/ours': 0.1, 'c/ours': 0.1}
    now = iter([0, 0, 0, 200, 430, 430, 430])
    monkeypatch.setattr(gpu_suite.time, 'monotonic', lambda: next(now))
    gpu_suite.run(str(tmp_path), 8.5, '.')
    assert begun == ['a/ours']
    assert '2 rows are left: give the command again' in capsys.readouterr().out


def test_a_row_is_too_long_only_if_it_had_the_time(processes, tmp_path):
    rows, _ = processes
    rows['a/ours'] = None
    (tmp_path / 'rows').mkdir()
    gpu_suite._measure(tmp_path, 'a/ours', left=100, whole=510)
    assert not gpu_suite.file_of(tmp_path, 'a/ours').exists()
    gpu_suite._measure(tmp_path, 'a/ours', left=500, whole=510)
    assert 'not done after 500 s' in gpu_suite.file_of(tmp_path, 'a/ours').read_text()


def test_goals_stand_beside_what_was_reached():
    row = {'seconds': 0.1, 'first_seconds': 1.0, 'memory': 1e9, 'share': 0.34, 'of': 'MFU: of 989'}
    row['device'] = 'NVIDIA H100'
    found = {'step-b/ours': row, 'step-b/torch': row | {'seconds': 0.14}}
    text = gpu_suite.describe(found)
    ours, theirs = text.splitlines()[3:5]
    assert 'MFU >= 0.33: reached, torch / ours >= 1.5: missed' in ours and '1.400' in ours
    assert 'MFU >=' not in theirs
    assert text.endswith('MFU: of 989\non NVIDIA H100')
    on_a_cpu = gpu_suite.describe({'step-b/ours': row | {'device': 'cpu', 'of': 'a product'}})
    assert 'MFU >=' not in on_a_cpu and on_a_cpu.endswith('whose times say nothing')
    assert 'torch / ours >= 1.5: ?' in gpu_suite.describe({'step-b/ours': row})
    assert gpu_suite.describe({'a/ours': {'error': 'status 1'}}).endswith('status 1')


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match='--out=FOLDER is missing'):
        gpu_suite.run(None, 8.5, '.')
    with pytest.raises(
        UserError, match='--rows=nosuch: no row is called so; there are step-b/ours'
    ):
        gpu_suite.run(str(tmp_path), 8.5, 'nosuch')
    with pytest.raises(UserError, match=r'--rows=\(: no regular expression'):
        gpu_suite.run(str(tmp_path), 8.5, '(')


def test_each_goal_is_of_a_row():
    assert {f'{case}/ours' for case in gpu_suite.GOALS} <= gpu_rows.rows().keys()


def test_a_row_goes_through_in_a_process_of_its_own(tmp_path):
    gpu_suite.run(str(tmp_path), 5.0, '^norm/ours')
    row = json.loads(gpu_suite.file_of(tmp_path, 'norm/ours').read_text())
    assert row['seconds'] > 0 and row['forward_seconds'] > 0 and row['device'] == 'cpu'


@pytest.mark.slow
def test_all_rows_go_through(tmp_path):
    """Torch's where torch is installed, and cuDNN's nowhere without a GPU."""
    gpu_suite.run(str(tmp_path), 60.0, '.')
    found = json.loads((tmp_path / 'results.json').read_text())
    failed = {name: row['error'] for name, row in found.items() if 'error' in row}
    has_torch = subprocess.run([sys.executable, '-c', 'import torch']).returncode == 0
    expected = {name for name in found if name.endswith('/torch') and not has_torch}
    assert set(failed) == {*expected, 'attention-space/cudnn'}, failed
    assert set(found) == set(gpu_rows.rows())
