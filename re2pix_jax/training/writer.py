"""What a run leaves to read: log.jsonl, timing.jsonl, goodput.jsonl and tensorboard files."""

import contextlib
import json
import math
import os
import time

import jax
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from re2pix_jax import files

LOG, TIMING, GOODPUT = 'log.jsonl', 'timing.jsonl', 'goodput.jsonl'
_FLUSH_SECONDS = 20  # of the tensorboard file, which is synced to the disk each time


class Writer:
    """Appends rows of numbers to files of `workdir`; only process 0 writes.

    log.jsonl has rows {"step": n, "loss": ..., ...} of what is computed: two runs of one config
    give the same file. What depends on the clock has rows of its own: timing.jsonl says how fast
    steps went, goodput.jsonl what the seconds since the run began went into. A number that is not
    finite is written as null. All go to tensorboard files too.

    Args:
      workdir: existing folder.
      step: the step that the run goes on from. Rows of later steps, left by a run that was cut off
        after its last checkpoint, are dropped, so that each step stands in a file once.
      board: whether tensorboard files are written.
    """

    def __init__(self, workdir: str, step: int, board: bool = True):
        self._files, self._board, self._flushed = {}, None, time.monotonic()
        if jax.process_index():
            return
        for name in (LOG, TIMING, GOODPUT):
            path = os.path.join(workdir, name)
            _drop_rows_after(path, step)
            self._files[name] = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (__exit__)
        if board:
            folder = os.path.join(workdir, 'tensorboard')
            os.makedirs(folder, exist_ok=True)
            # Not SummaryWriter: its thread would meet a full disk where nobody can report it.
            self._board = EventsWriter(os.path.join(folder, 'events'))
            self._board.write_event(
                Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for file in (*self._files.values(), self._board):
            # Where the disk is full, closing fails once more; what is under way is the error to
            # report.
            with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                if file is not None:
                    file.close()

    def scalars(self, step: int, values: dict) -> None:
        """Writes {name: float} as a row of `step` in log.jsonl."""
        self._write(LOG, step, values, '')

    def timing(self, step: int, values: dict) -> None:
        """Writes {name: float} as a row of `step` in timing.jsonl."""
        self._write(TIMING, step, values, 'timing/')

    def goodput(self, step: int, values: dict) -> None:
        """Writes {name: seconds} as a row of `step` in goodput.jsonl."""
        self._write(GOODPUT, step, values, 'goodput/')

    def flush(self) -> None:
        """Brings all rows to the disk, as before a checkpoint of their step."""
        if self._board:
            self._board.flush()
            self._flushed = time.monotonic()

    def _write(self, name, step, values, prefix):
        if name not in self._files:
            return
        row = {key: float(value) for key, value in values.items()}
        file = self._files[name]
        try:
            finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
            file.write(json.dumps({'step': step, **finite}) + '\n')
            file.flush()
            for key, value in row.items() if self._board else ():
                scalar = summary.scalar(prefix + key, value)
                self._board.write_event(Event(wall_time=time.time(), step=step, summary=scalar))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self.flush()
        except OSError as error:
            error.filename = error.filename or file.name
            raise


def read_log(workdir: str, name: str = LOG) -> list[dict]:
    """The rows of `workdir`/log.jsonl, or of another file; lines that were cut off are left out."""
    return list(_rows(os.path.join(workdir, name)))


def _rows(path):
    if not os.path.exists(path):
        return
    with open(path, encoding='utf-8', errors='replace') as file:
        for line in file:
            with contextlib.suppress(ValueError):
                row = json.loads(line) if line.endswith('\n') else None
                if isinstance(row, dict) and isinstance(row.get('step'), int):
                    yield row


def _drop_rows_after(path, step):
    rows = [json.dumps(row) + '\n' for row in _rows(path) if row['step'] <= step]
    files.write_text(path, ''.join(rows))
