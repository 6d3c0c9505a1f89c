"""Reading ahead: by threads of this process, or by processes of their own, which are replaced where
one of them is killed.
"""

import gc
import os
import re
import signal
import sys
import threading
from multiprocessing import resource_tracker

import grain

from re2pix_jax.errors import Interrupted, UserError

LOST = 8
"""Reading processes of an iterator that may be killed, one after the other, before it gives up."""
_KILLED = re.compile(r'terminated unexpectedly with exit code -(\d+)')
_PATIENCE = 30.0  # seconds in which the others should end; they finish what they are reading


class Ahead:
    """Iterator of the elements of a grain MapDataset, in order, whatever `workers` is.

    Raises:
        Interrupted: on reading, when more than `LOST` processes were killed.
        UserError: on reading, when the memory that they share with this one is full.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int):
        self._dataset, self._workers, self._given, self._lost = dataset, workers, 0, 0
        self._iterator = _iterate(dataset, workers)

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            try:
                element = next(self._iterator)
            except RuntimeError as error:  # grain has no class for it
                if not (killed := _KILLED.search(str(error))):
                    raise
                self._replace(signal.Signals(int(killed[1])))
            else:
                self._given += 1
                return element

    def close(self) -> None:
        """Ends the processes."""
        self._iterator.close()
        gc.collect()  # arrays in memory shared with them lie in cycles

    def _replace(self, number):
        what = f'a process that reads was ended by {number.name}'
        if number == signal.SIGBUS:
            raise UserError(
                f'{what}: /dev/shm, through which it hands batches on, is likely full; enlarge it '
                '(docker run --shm-size) or lower data.workers'
            )
        if number == signal.SIGKILL:
            what += ' (where memory has run out, lower data.workers)'
        self._lost += 1
        if self._lost > LOST:
            raise Interrupted(f'{what}, as were {LOST} before it')
        print(f'{what}: all are started again, {self._lost} of {LOST} times', file=sys.stderr)
        # One that was killed may have held a lock that closing waits for.
        closing = threading.Thread(target=self._iterator.close, daemon=True)
        closing.start()
        closing.join(_PATIENCE)
        self._iterator = _iterate(self._dataset[self._given :], self._workers)


def _iterate(dataset, workers):
    # Few batches are read ahead: grain's default of 500 would hold gigabytes of frames.
    affinity = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    threads = 1 if workers else min(4, len(affinity(0)))
    iterable = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
    if workers:
        from absl import flags

        # Grain reads flags of its own, which outside of a command nobody has parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        _start_tracker()
        iterable = iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
            worker_init_fn=_leave_signals,
        )
    return iter(iterable)


def _start_tracker():
    """What was shared when a signal ended this process is given back by multiprocessing's tracker,
    which calls it a leak, after the command's last line: here it says nothing.
    """
    quiet = 'ignore:resource_tracker:UserWarning'
    sys.warnoptions.append(quiet)  # processes started by this one get these
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


def _leave_signals(*_):
    """A terminal sends Ctrl-C to all processes; the first answers, and ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
