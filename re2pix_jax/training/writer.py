"""What a run leaves to read: log.jsonl, tensorboard files, and a line of progress."""

import json
import math
import os
import sys
import time

import jax
from tensorboardX import SummaryWriter

LOG = 'log.jsonl'


class Writer:
    """Appends rows of numbers to `workdir`/log.jsonl and to tensorboard files; only process 0 writes.

    A row is {"step": n, "loss": ..., ...}. Rows hold no clock times: two runs of one config give the same file. A
    number that is not finite is written as null.

    Args:
      workdir: existing folder.
      step: the step that the run goes on from. Rows of later steps, left by a run that was cut off after its last
        checkpoint, are dropped, so that each step stands in the file once.
    """

    def __init__(self, workdir, step):
        self._file = self._board = None
        if jax.process_index() == 0:
            path = os.path.join(workdir, LOG)
            _drop_rows_after(path, step)
            self._file = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (close() closes it)
            self._board = SummaryWriter(os.path.join(workdir, 'tensorboard'), purge_step=step + 1, write_to_disk=True)

    def scalars(self, step, values):
        """Writes {name: float} as the row of `step`."""
        if self._file is None:
            return
        row = {name: float(value) for name, value in values.items()}
        for name, value in row.items():
            self._board.add_scalar(name, value, step)
        row = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps({'step': step, **row}) + '\n')
        self._file.flush()

    def close(self):
        if self._file is not None:
            self._file.close()
            self._board.close()


def read_log(workdir):
    """Returns the rows of `workdir`/log.jsonl as dicts; a last line that was cut off is left out."""
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
    """Prints how far the run is, how fast it goes and how long it still takes; process 0 only, on stdout.

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

    def finish(self):
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
            self.finish()
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
