"""Faults of a run, done for real on small ones: `python -m tests.training.faults [WORD ...]` prints
a table of them (launch/faults.sh), or of those whose names hold one of the words.

Each run learns as the undisturbed one does, or its row says NO and the status is 1.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

from re2pix_jax.training import writer
from tests.conftest import ROOT
from tests.running import environment

PATIENCE = 300  # seconds; a busy machine is no fault


def _file(folder):
    """The largest file of a checkpoint's state, which holds arrays."""
    return max(
        (path for path in (folder / 'state').rglob('*') if path.is_file()),
        key=lambda path: path.stat().st_size,
    )


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'a bit flipped': lambda folder: _flip(_file(folder)),
    'file cut short': lambda folder: os.truncate(_file(folder), _file(folder).stat().st_size // 2),
    'file empty': lambda folder: os.truncate(_file(folder), 0),
    'file gone': lambda folder: os.remove(_file(folder)),
    'state gone': lambda folder: shutil.rmtree(folder / 'state'),
    'meta garbled': lambda folder: (folder / 'meta' / 'metadata').write_text('{"format": 3'),
}


def start(workdir, *fields, process=0, port=0, count=1, devices=1, module='toy'):
    """A process of a toy run; with a port, one of `count`."""
    several = {
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
        'JAX_NUM_PROCESSES': str(count),
        'JAX_PROCESS_ID': str(process),
    }
    return subprocess.Popen(
        [sys.executable, '-m', f'tests.training.{module}', str(workdir), *fields],
        cwd=ROOT,
        env=environment(devices, **(several if port else {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, *fields):
    port = free_port()
    return [start(workdir, *fields, process=i, port=port, count=2) for i in range(2)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def wait_for_step(workdir, step, *processes):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        rows = writer.read_log(workdir)
        if rows and rows[-1]['step'] >= step:
            return
        ended = [process for process in processes if process.poll() is not None]
        if ended:
            raise AssertionError(f'step {step} was not reached: {ended[0].communicate()[1]}')
        time.sleep(0.02)
    raise AssertionError(f'step {step} was not reached in {PATIENCE} s')


class Ended(NamedTuple):
    """How a process ended: its status, seconds after the fault, what it said on stderr."""

    status: int
    seconds: float
    said: str


def finish(process, began=None) -> Ended:
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Ended(process.returncode, time.monotonic() - (began or time.monotonic()), said)


def child_of(process) -> int:
    """The process that trains, below its parent."""
    path = f'/proc/{process.pid}/task/{process.pid}/children'
    return int(pathlib.Path(path).read_text().split()[0])


def strike(workdir, victim: int, number: int, step: int = 8) -> Ended:
    """Sends a signal to one of two processes once `step` is done; how the other ends."""
    processes = start_two(workdir, 'eval_every=0', 'slow=0.1')
    wait_for_step(workdir, step, *processes)
    began = time.monotonic()
    os.kill(child_of(processes[victim]), number)
    ended = finish(processes[1 - victim], began)
    if number == signal.SIGSTOP:
        processes[victim].kill()
    finish(processes[victim])
    return ended
