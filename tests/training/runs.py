"""Toy runs in processes of their own, and what is done to them."""

import os
import pathlib
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
# Debian's package faketime: a process that loads it has another time of day.
CLOCK = pathlib.Path('/usr/lib', f'{os.uname().machine}-linux-gnu', 'faketime/libfaketimeMT.so.1')


def start(workdir, *fields, process=0, port=0, count=1, devices=1, clock=None):
    """A process of a toy run; with a port, one of `count`. `clock`: a file that says how many
    seconds its time of day is ahead.
    """
    several = {
        'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
        'JAX_NUM_PROCESSES': str(count),
        'JAX_PROCESS_ID': str(process),
    }
    skewed = {
        'LD_PRELOAD': str(CLOCK),
        'FAKETIME_TIMESTAMP_FILE': str(clock),
        'FAKETIME_CACHE_DURATION': '1',
        'FAKETIME_DONT_FAKE_MONOTONIC': '1',
        'NO_FAKE_STAT': '1',
    }
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.training.toy', str(workdir), *fields],
        cwd=ROOT,
        env=environment(devices, **(several if port else {}), **(skewed if clock else {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(workdir, *fields, clocks=(None, None)):
    port = free_port()
    return [
        start(workdir, *fields, process=i, port=port, count=2, clock=clock)
        for i, clock in enumerate(clocks)
    ]


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
    return _children(process.pid)[0]


def _children(pid):
    found = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
    return [int(child) for path in found for child in path.read_text().split()]


def readers_of(process) -> list[int]:
    """The processes that read for one that has no parent of its own."""
    named = lambda pid: pathlib.Path(f'/proc/{pid}/cmdline').read_text()
    return [child for child in _children(process.pid) if 'spawn_main' in named(child)]


def strike(workdir, victim: int, number: int, step: int = 8, **given) -> Ended:
    """Sends a signal to one of two processes once `step` is done; how the other ends."""
    processes = start_two(workdir, 'slow=0.1', **given)
    wait_for_step(workdir, step, *processes)
    began = time.monotonic()
    os.kill(child_of(processes[victim]), number)
    ended = finish(processes[1 - victim], began)
    if number == signal.SIGSTOP:
        processes[victim].kill()
    finish(processes[victim])
    return ended
