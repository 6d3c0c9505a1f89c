"""What a run leaves to read: log.jsonl, tensorboard files, and a line of progress."""

import contextlib
import json
import math
import os
import sys
import time

import jax
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

LOG = 'log.jsonl'
_FLUSH_SECONDS = 20  # of the tensorboard file, which is synced to the disk each time


class Writer:
    """Appends rows of numbers to `workdir`/log.jsonl and to tensorboard files; only process 0
    writes.

    A row is {"step": n, "loss": ..., ...}. Rows hold no clock times: two runs of one config give
    the same file. A number that is not finite is written as null.

    Args:
      workdir: existing folder.
      step: the step that the run goes on from. Rows of later steps, left by a run that was cut off
        after its last checkpoint, are dropped, so that each step stands in the file once.
    """

    def __init__(self, workdir, step):
        self._log = self._board = None
        if jax.process_index() == 0:
            path = os.path.join(workdir, LOG)
            _drop_rows_after(path, step)
            self._log = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (__exit__ closes it)
            folder = os.path.join(workdir, 'tensorboard')
            os.makedirs(folder, exist_ok=True)
            # Not SummaryWriter: its thread would meet a full disk where nobody can report it.
            self._board = EventsWriter(os.path.join(folder, 'events'))
            self._board.write_event(
                Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )
            self._flushed = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._log is None:
            return
        for file in (self._log, self._board):
            # Where the disk is full, closing fails once more; what is under way is the error to
            # report.
            with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                file.close()

    def scalars(self, step, values):
        """Writes {name: float} as the row of `step`."""
        if self._log is None:
            return
        row = {name: float(value) for name, value in values.items()}
        try:
            finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
            self._log.write(json.dumps({'step': step, **finite}) + '\n')
            self._log.flush()
            for name, value in row.items():
                self._board.write_event(
                    Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value))
                )
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._board.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            error.filename = error.filename or self._log.name
            raise


def read_log(workdir):
    """Returns the rows of `workdir`/log.jsonl as dicts; a last line that was cut off is left
    out.
    """
    return list(_rows(os.path.join(workdir, LOG)))


def _rows(path):
    if not os.path.exists(path):
        return
    with open(path, encoding='utf-8') as file:
        for line in file:
            if not line.endswith('\n'):
                return
            yield json.loads(line)


def _drop_rows_after(path, step):
    rows = [row for row in _rows(path) if row['step'] <= step]
    with open(path + '.partial', 'w', encoding='utf-8') as file:
        file.writelines(json.dumps(row) + '\n' for row in rows)
    os.replace(path + '.partial', path)


class Progress:
    """Prints how far the run is, how fast it goes and how long it still takes; process 0 only, on
    stdout.

    On a terminal one line is rewritten; elsewhere each report is a line of its own.
    """

    def __init__(self, step, steps, batch_size, stream=None):
        self._steps, self._batch_size = steps, batch_size
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._silent = jax.process_index() != 0
        self._open_line = False
        self.restart(step)

    def restart(self, step):
        """Measures the rate from now on: compilation, evaluation and saving are not part of it."""
        self._since, self._from = time.perf_counter(), step

    def report(self, step, loss):
        rate = (step - self._from) / max(time.perf_counter() - self._since, 1e-9)
        text = f'step {step}/{self._steps}  loss {loss:.5g}'
        if rate > 0:
            left = duration((self._steps - step) / rate)
            text += f'  {rate:.3g} steps/s  {rate * self._batch_size:.3g} clips/s  {left} left'
        self.restart(step)
        self._print(text, live=self._live)

    def note(self, text):
        """Prints a line that stays."""
        self._print(text, live=False)

    def close(self):
        """Ends the line that is being rewritten."""
        if self._open_line and not self._silent:
            self._stream.write('\n')
            self._open_line = False

    def _print(self, text, live):
        if self._silent:
            return
        if live:
            self._stream.write('\r\x1b[K' + text)
            self._open_line = True
        else:
            self.close()
            self._stream.write(text + '\n')
        self._stream.flush()


def duration(seconds):
    """'2d 3h', '1h 05m', '4m 09s' or '7s'."""
    seconds = round(seconds)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f'{days}d {hours}h'
    if hours:
        return f'{hours}h {minutes:02d}m'
    return f'{minutes}m {seconds % 60:02d}s' if minutes else f'{seconds}s'
