"""What a run leaves to read: log.jsonl, timing.jsonl, goodput.jsonl, and what its boards show."""

import contextlib
import functools
import json
import math
import os
import time

import jax

from re2pix_jax import files
from re2pix_jax.training.boards import BOARDS

LOGS = LOG, TIMING, GOODPUT = 'log.jsonl', 'timing.jsonl', 'goodput.jsonl'
_FLUSH_SECONDS = 20  # of the boards: TensorBoard's file is synced to the disk each time


class Writer:
    """Appends rows of numbers to files of `workdir`; only process 0 writes.

    log.jsonl has rows {"step": n, "loss": ..., ...} of what is computed: two runs of one config
    give the same file. What depends on the clock has rows of its own: timing.jsonl says how fast
    steps went, goodput.jsonl what the seconds since the run began went into. A number that is not
    finite is written as null. All go to the boards too.

    Args:
      workdir: existing folder.
      step: the step that the run goes on from. Rows of later steps, left by a run that was cut off
        after its last checkpoint, are dropped, so that each step stands in a file once.
      names: of the boards, see `boards.BOARDS`.
      config: of the run, for the boards.
    """

    def __init__(self, workdir: str, step: int, names=('tensorboard',), config=None):
        self._files, self._boards, self._flushed = {}, [], time.monotonic()
        if jax.process_index():
            return
        for name in LOGS:
            path = os.path.join(workdir, name)
            _drop_rows_after(path, step)
            self._files[name] = open(path, 'a', encoding='utf-8')  # noqa: SIM115 (__exit__)
        self._boards = [BOARDS[name](workdir, step, config or {}) for name in names]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        closing = [file.close for file in self._files.values()]
        closing += [functools.partial(board.close, bool(kind)) for board in self._boards]
        for close in closing:
            # Where the disk is full, closing fails once more; what is under way is the error to
            # report.
            with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
                close()

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
        for board in self._boards:
            board.flush()
        self._flushed = time.monotonic()

    def picture(self, step: int, name: str, sheet, film, fps: float) -> None:
        """Shows a clip on the boards: a sheet uint8 [H, W, 3] and a film uint8 [T, H, W, 3]."""
        for board in self._boards:
            board.picture(step, f'{name}/sheet', sheet)
            board.film(step, f'{name}/film', film, fps)

    def _write(self, name, step, values, prefix):
        if name not in self._files:
            return
        row = {key: float(value) for key, value in values.items()}
        file = self._files[name]
        try:
            finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
            file.write(json.dumps({'step': step, **finite}) + '\n')
            file.flush()
            for board in self._boards:
                board.scalars(step, {prefix + key: value for key, value in row.items()})
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
