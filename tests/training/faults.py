"""Faults of a run, done for real on small ones: `python -m tests.training.faults [WORD ...]` prints
a table of them (launch/faults.sh), or of those whose names hold one of the words.

Each run learns as the undisturbed one does, or its row says NO and the status is 1.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from re2pix_jax import remote
from re2pix_jax.report.table import table
from re2pix_jax.training import writer
from tests import store
from tests.training.damages import DAMAGES
from tests.training.runs import (
    CLOCK,
    PATIENCE,
    child_of,
    finish,
    free_port,
    readers_of,
    start,
    start_two,
    strike,
    wait_for_step,
)

HOUR = 3600


class Outcome(NamedTuple):
    """A row: how a run ended after the fault, when it was where it had been, and what it said.

    Attributes:
      ended: seconds to the end of the last process; None where the fault ended none.
      back: seconds to the step that was done before.
      status: of the process that says `said`.
      equal: whether the log is that of the undisturbed run in the end.
    """

    ended: float | None
    back: float | None
    status: int
    said: str
    equal: bool


class Bench:
    """The undisturbed runs, made once, and a folder to disturb others in."""

    def __init__(self, folder):
        self.folder, self._kept = pathlib.Path(folder), {}

    def undisturbed(self, count=1):
        if count not in self._kept:
            self._kept[count] = self.folder / f'undisturbed_{count}'
            self.complete(self._kept[count], count)
        return self._kept[count]

    def complete(self, workdir, count=1, devices=1, *fields):
        """Gives the command (again), and waits for the end."""
        processes = (
            start_two(workdir, *fields)
            if count == 2
            else [start(workdir, *fields, devices=devices)]
        )
        for ended in map(finish, processes):
            assert ended.status == 0, ended.said
        return ended.said

    def equal(self, workdir, count=1, close=False):
        """Whether the rows are those of the undisturbed run; `close`: but for rounding."""
        mine, theirs = (writer.read_log(path) for path in (workdir, self.undisturbed(count)))
        if not close:
            return mine == theirs
        return len(mine) == len(theirs) and all(
            np.isclose(row.get(name, 0.0), other.get(name, 0.0), atol=1e-5)
            for row, other in zip(mine, theirs, strict=True)
            for name in ('step', 'loss', 'eval/error')
        )

    def again(self, workdir, began, step, count=1, **given):
        """Gives the command again: seconds to `step` after `began`, and then to the end."""
        log = pathlib.Path(workdir, writer.LOG)
        before = log.stat().st_ino
        processes = start_two(workdir, **given) if count == 2 else [start(workdir)]
        while log.stat().st_ino == before:  # rows after the checkpoint are dropped
            time.sleep(0.02)
            assert all(process.poll() in (None, 0) for process in processes), processes
        wait_for_step(workdir, step)
        back = time.monotonic() - began
        for ended in map(finish, processes):
            assert ended.status == 0, ended.said
        return back

    def signalled(self, workdir, victim, number, count=2):
        """A signal to one process, then the command once more."""
        ended = strike(workdir, victim, number)
        back = self.again(workdir, time.monotonic() - ended.seconds, 8, count)
        return Outcome(
            ended.seconds, back, ended.status, ended.said, self.equal(workdir, 2, count != 2)
        )

    def killed_at(self, workdir, step):
        """A run of one process that was killed."""
        process = start(workdir, 'slow=0.05')
        wait_for_step(workdir, step, process)
        process.kill()
        finish(process)


def restarted(bench, workdir, count):
    """The last process is killed; all start again by themselves."""
    fields = 'slow=0.1', '--restarts=2'
    running = start_two(workdir, *fields) if count == 2 else [start(workdir, *fields)]
    wait_for_step(workdir, 8, *running)
    log = pathlib.Path(workdir, writer.LOG)
    before, began = log.stat().st_ino, time.monotonic()
    os.kill(child_of(running[-1]), signal.SIGKILL)
    while log.stat().st_ino == before:
        time.sleep(0.02)
    wait_for_step(workdir, 8)
    back = time.monotonic() - began
    ended = [finish(process) for process in running]
    status = max(one.status for one in ended)
    return Outcome(None, back, status, ended[0].said, bench.equal(workdir, count))


def paused(bench, workdir):
    """Stopped for a quarter of a minute, less than the others' patience."""
    both = start_two(workdir, 'slow=0.1')
    wait_for_step(workdir, 8, *both)
    child, began = child_of(both[1]), time.monotonic()
    os.kill(child, signal.SIGSTOP)
    time.sleep(15)
    os.kill(child, signal.SIGCONT)
    wait_for_step(workdir, 10, *both)
    back = time.monotonic() - began
    ended = [finish(process) for process in both]
    status = max(one.status for one in ended)
    return Outcome(None, back, status, ended[0].said, bench.equal(workdir, 2))


def damaged(bench, workdir, how):
    bench.killed_at(workdir, 12)
    newest = max(int(path.name) for path in (workdir / 'checkpoints').iterdir())
    DAMAGES[how](workdir / 'checkpoints' / str(newest))
    began = time.monotonic()
    said = bench.complete(workdir)
    back = time.monotonic() - began
    return Outcome(None, back, 0, said, bench.equal(workdir))


def elsewhere(bench, workdir, count, devices, *fields):
    """Goes on on other devices."""
    bench.killed_at(workdir, 8)
    began = time.monotonic()
    said = bench.complete(workdir, count, devices, *fields)
    return Outcome(None, time.monotonic() - began, 0, said, bench.equal(workdir, close=True))


def full(bench, workdir):
    """The disk is full when the second checkpoint is due."""
    workdir.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(workdir)]
    subprocess.run(mount, check=True)
    try:
        process = start(workdir, 'slow=0.1')
        wait_for_step(workdir, 6, process)
        room = shutil.disk_usage(workdir).free - 100_000
        (workdir / 'other').write_bytes(b'x' * room)
        began = time.monotonic()
        ended = finish(process, began)
        (workdir / 'other').unlink()
        step = writer.read_log(workdir)[-1]['step']
        back = bench.again(workdir, began, step)
        return Outcome(ended.seconds, back, ended.status, ended.said, bench.equal(workdir))
    finally:
        subprocess.run(['umount', str(workdir)], check=True)


def frozen(bench, workdir):
    """Nothing that is written to the disk of the run comes back for a minute, as on a network disk
    whose server is away.
    """
    workdir.mkdir()
    image = workdir.with_suffix('.image')
    image.write_bytes(bytes(64 << 20))
    subprocess.run(['mkfs.ext4', '-q', str(image)], check=True)
    subprocess.run(['mount', '-o', 'loop', str(image), str(workdir)], check=True)
    try:
        process = start(workdir, 'slow=0.1')
        wait_for_step(workdir, 6, process)
        began = time.monotonic()
        subprocess.run(['fsfreeze', '-f', str(workdir)], check=True)
        time.sleep(60)
        subprocess.run(['fsfreeze', '-u', str(workdir)], check=True)
        wait_for_step(workdir, 18, process)
        back = time.monotonic() - began
        ended = finish(process)
        return Outcome(None, back, ended.status, ended.said, bench.equal(workdir))
    finally:
        subprocess.run(['umount', str(workdir)], check=True)


def without_a_reader(bench, workdir):
    """One of the two processes that read is killed; *back* is when what was read ahead is used up
    and the run goes on.
    """
    process = start(workdir, 'slow=0.1', 'readers=2')
    wait_for_step(workdir, 2, process)
    began = time.monotonic()
    os.kill(readers_of(process)[0], signal.SIGKILL)
    wait_for_step(workdir, 16, process)
    back = time.monotonic() - began
    ended = finish(process)
    return Outcome(None, back, ended.status, ended.said, bench.equal(workdir))


def away(bench, workdir):
    """The bucket of the run refuses connections for a minute, between two checkpoints."""
    with store.google() as bucket:
        place = f'gs://{store.BUCKET}/{workdir.name}'
        process = start(place, 'slow=0.3', '--restarts=3')
        _wait_for(f'{place}/checkpoints/5/commit_success.txt', process)
        began = time.monotonic()
        bucket.stop()
        time.sleep(60)
        bucket.serve()
        _wait_for(f'{place}/checkpoints/10/commit_success.txt', process)
        back = time.monotonic() - began
        ended = finish(process)
        workdir.mkdir()
        (workdir / writer.LOG).write_bytes(remote.read(f'{place}/{writer.LOG}'))
    return Outcome(None, back, ended.status, _unread(ended.said), bench.equal(workdir))


def gone(bench, workdir, sign):
    """The bucket of the run refuses connections once it has the file `sign`, for longer than the
    run is ready to wait, and at the next start; *back* is counted from when it answers again.
    """
    with store.google() as bucket:
        place = f'gs://{store.BUCKET}/{workdir.name}'
        process = start(place, 'slow=0.1', 'patience=5')
        _wait_for(f'{place}/checkpoints/{sign}', process)
        began = time.monotonic()
        bucket.stop()
        ended = finish(process, began)
        again = finish(start(place))
        assert again.status == 75 and _unread(again.said).count('\n') == 1, again.said
        bucket.serve()
        began = time.monotonic()
        process = start(place)
        _wait_for(f'{place}/checkpoints/10/commit_success.txt', process)
        back = time.monotonic() - began
        assert finish(process).status == 0
        workdir.mkdir()
        (workdir / writer.LOG).write_bytes(remote.read(f'{place}/{writer.LOG}'))
    said = _unread(ended.said)
    return Outcome(ended.seconds, back, ended.status, said, bench.equal(workdir))


def _unread(said):
    """Without what the clients say of a bucket that wants no login, which is not of the fault."""
    asks = re.compile(r'[WE]\d{4} .*(uthenti|credentials)')
    return ''.join(line for line in said.splitlines(keepends=True) if not asks.match(line))


def _wait_for(place, process):
    deadline = time.monotonic() + PATIENCE
    while not remote.names(place):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)


def skewed(bench, workdir):
    """The clock of process 1 is an hour ahead. It is killed, and the two go on with one that is an
    hour behind.
    """
    clock = workdir.with_suffix('.clock')
    clock.write_text(f'+{HOUR}')
    ended = strike(workdir, 1, signal.SIGKILL, clocks=(None, clock))
    began = time.monotonic() - ended.seconds
    clock.write_text(f'-{HOUR}')
    back = bench.again(workdir, began, 8, 2, clocks=(None, clock))
    return Outcome(ended.seconds, back, ended.status, ended.said, bench.equal(workdir, 2))


def clock_set(bench, workdir, seconds):
    """The clock of process 0 is set while it runs. jax's own service there, which knows no other,
    may take the others for silent; then the command is given again.
    """
    clock = workdir.with_suffix('.clock')
    clock.write_text('+0')
    both = start_two(workdir, 'slow=0.2', clocks=(clock, None))
    wait_for_step(workdir, 6, *both)
    began = time.monotonic()
    clock.write_text(f'{seconds:+}')
    ended = max(finish(process, began) for process in both)
    if ended.status == 0:
        return Outcome(None, None, 0, ended.said, bench.equal(workdir, 2))
    back = bench.again(workdir, began, 6, 2, clocks=(clock, None))
    return Outcome(ended.seconds, back, ended.status, ended.said, bench.equal(workdir, 2))


def not_a_number(bench, workdir):
    """On one of eight devices."""
    began = time.monotonic()
    ended = finish(start(workdir, 'poison=7', devices=8), began)
    bench.complete(workdir, 1, 8)
    return Outcome(None, None, ended.status, ended.said, bench.equal(workdir, close=True))


def second(bench, workdir):
    """A second run in the same folder."""
    process = start(workdir, 'slow=0.3')
    wait_for_step(workdir, 3, process)
    ended = finish(start(workdir))
    assert finish(process).status == 0
    return Outcome(None, 0.0, ended.status, ended.said, bench.equal(workdir))


def mistaken(bench, workdir):
    """One process is given what it cannot do."""
    port, began = free_port(), time.monotonic()
    both = [start(workdir, f'steps={20 * (1 - i)}', process=i, port=port, count=2) for i in (0, 1)]
    ended = [finish(process, began) for process in both]
    bench.complete(workdir, 2)
    return Outcome(None, None, ended[0].status, ended[0].said, bench.equal(workdir, 2))


STOP, KILL, TERM = signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM
FAULTS = {
    'kill -9 of process 0 of 2': lambda b, w: b.signalled(w, 0, KILL),
    'kill -9 of process 1 of 2': lambda b, w: b.signalled(w, 1, KILL),
    'kill -9 of process 1 of 2, --restarts=2': lambda b, w: restarted(b, w, 2),
    'kill -9 of the only process, --restarts=2': lambda b, w: restarted(b, w, 1),
    'SIGTERM to process 1 of 2': lambda b, w: b.signalled(w, 1, TERM),
    'process 0 of 2 hangs (SIGSTOP)': lambda b, w: b.signalled(w, 0, STOP),
    'process 1 of 2 hangs (SIGSTOP)': lambda b, w: b.signalled(w, 1, STOP),
    'process 1 of 2 stopped for 15 s': paused,
    **{f'newest checkpoint: {how}': lambda b, w, how=how: damaged(b, w, how) for how in DAMAGES},
    'goes on on 8 devices': lambda b, w: elsewhere(b, w, 1, 8),
    'goes on on a mesh of 2 x 2 x 2': lambda b, w: elsewhere(
        b, w, 1, 8, 'mesh.data=2', 'mesh.fsdp=2', 'mesh.tensor=2'
    ),
    'goes on in 2 processes': lambda b, w: elsewhere(b, w, 2, 1),
    '2 processes go on in 1': lambda b, w: b.signalled(w, 1, KILL, count=1),
    'an error in process 1 of 2 alone': mistaken,
    'disk full': full,
    'disk away for a minute': frozen,
    'kill -9 of 1 of 2 reading processes': without_a_reader,
    'bucket away for a minute, --restarts=3': away,
    'bucket away for good': lambda b, w: gone(b, w, '5/commit_success.txt'),
    'bucket away for good, while saving': lambda b, w: gone(b, w, '10/'),
    'NaN on 1 of 8 devices': not_a_number,
    'a second run in the workdir': second,
}
if CLOCK.exists():
    FAULTS |= {
        'clock of process 1 of 2 off by an hour': skewed,
        'clock of process 0 of 2 set an hour ahead': lambda b, w: clock_set(b, w, HOUR),
        'clock of process 0 of 2 set an hour back': lambda b, w: clock_set(b, w, -HOUR),
    }


def main(*words):
    wanted = {
        name: fault
        for name, fault in FAULTS.items()
        if not words or any(word in name for word in words)
    }
    rows, lines = [], []
    show = lambda seconds: '-' if seconds is None else f'{seconds:.1f}'
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        for number, (name, fault) in enumerate(wanted.items()):
            found = fault(bench, bench.folder / f'run_{number}')
            right = 'yes' if found.equal else 'NO'
            rows.append([name, show(found.ended), show(found.back), found.status, right])
            print(*rows[-1], sep='  ', file=sys.stderr, flush=True)
            lines.append(f'{name}: status {found.status}\n{found.said.rstrip() or "(nothing)"}')
    print(table(['fault', 'ended\nafter, s', 'back\nafter, s', 'status', 'same\ncurve'], rows))
    print('\n' + '\n\n'.join(line.replace(folder, '...') for line in lines))
    return 0 if all(row[-1] == 'yes' for row in rows) else 1


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
