"""The end of a run before its time: a signal, or a loss that is not finite."""

import io
import json
import os
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from re2pix_jax import files
from re2pix_jax.errors import UserError
from re2pix_jax.training import checkpoint


class Termination:
    """Notes a SIGTERM, as clusters send it before they take a machine away, or a first Ctrl-C, so
    that the loop can finish its step. A second Ctrl-C ends at once.

    On several processes jax agrees on one step at which all of them stop.
    """

    def __enter__(self):
        self._received, self._at_once = threading.Event(), False
        self._previous = {}
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number, _):
        before = self._received.is_set()
        self._received.set()
        if number == signal.SIGINT:
            if before:
                self._at_once = True
                raise KeyboardInterrupt
            # Not by print: the signal may come in the middle of one.
            os.write(2, b'\nending after this step, and saving; Ctrl-C again ends at once\n')

    def reached(self, number: int) -> bool:
        """Whether the run should save and end after step `number`."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(number)
        if self._at_once:  # it was raised where Python lets no error out, as in a `__del__`
            raise KeyboardInterrupt
        return self._received.is_set()


def fail(workdir: str, number: int, local: dict, metrics: dict, state, train_data, meta: dict):
    """Keeps the state before the failing step and its batch, and says so.

    Raises:
      UserError: always.
    """
    folder = os.path.join(workdir, 'failed')
    records = [int(record) for record in local['record']]
    names = [train_data.record_name(record) for record in records]
    stem = os.path.join(folder, f'step_{number}_process_{jax.process_index()}')
    numbers = {name: str(value) for name, value in metrics.items()}
    noted = {'step': number, 'records': records, 'names': names, 'metrics': numbers}
    files.write_text(f'{stem}.json', json.dumps(noted, indent=1))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **local)
    files.write_bytes(f'{stem}.npz', buffer.getbuffer())
    kept = checkpoint.Checkpoints(workdir, folder='failed/checkpoints')
    if kept.latest() != int(state.step):
        kept.save(int(state.step), state, {}, meta, wait=True)
    kept.close()
    what = 'loss' if not np.isfinite(metrics['loss']) else 'norm of the gradient'
    value = metrics['loss'] if what == 'loss' else metrics['gradient_norm']
    shown = ', '.join(
        f'{record} ({name})' for record, name in zip(records[:8], names[:8], strict=True)
    )
    more = f' and {len(records) - 8} more' if len(records) > 8 else ''
    raise UserError(
        f'the {what} is {float(value)} at step {number}, records {shown}{more}; the state before '
        f'that step and its batch are in {folder}: lower optimizer.learning_rate or check those '
        'records'
    )
