"""The other processes of a run: joined, watched, and left.

Left to itself, jax waits for a process that is gone for minutes, then ends the others in native
code. Here each writes a beat to the store that they share anyway (process 0's coordination
service) and reads those of the others. One that is silent ends them, in one line and with the
status `AGAIN`; one that ends with an error tells them.
"""

import os
import signal
import sys
import threading
import time
import traceback

import jax

from re2pix_jax.errors import AGAIN

BEAT = 2.0  # seconds between two beats
PATIENCE = 40.0  # seconds of silence after which a process counts as gone
SHORT_PATIENCE = 10.0  # where something has failed already
# After which jax ends processes by itself, should this thread be stuck; counted from beats that are
# half as far apart, so that it may come first.
_NATIVE_PATIENCE = 55
_FOLDER = 're2pix/peers/'
_watch = None


def join(**arguments) -> None:
    """jax.distributed.initialize, and the watch. Ends the process with `AGAIN` where the others are
    not to be found.
    """
    global _watch
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=_NATIVE_PATIENCE, **arguments)
    except jax.errors.JaxRuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        _end(f'cannot join the other processes of the run: {reason}', AGAIN)
    if jax.distributed.is_initialized():
        from jax._src import distributed  # the store has no other name

        state = distributed.global_state
        if state.num_processes > 1:
            _watch = _Watch(state.client, state.process_id, state.num_processes)
        else:  # jax hears SIGTERM for a run that would agree on where to stop: a loop of several
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def blame(error: Exception) -> None:
    """Ends the process in one line where `error` comes of another process that is gone; returns
    where all others are well, or where there are none.
    """
    if _watch:
        _watch.decide(' '.join(str(error).split())[:200])


def leave(status: int, error: Exception | None = None) -> None:
    """Tells the others that this process is about to end. With an error, whose traceback is shown,
    it ends here, since jax would wait for them.
    """
    if _watch:
        if error:
            traceback.print_exception(error)
        _watch.leave(status)


class _Watch:
    def __init__(self, client, index, count):
        self._client, self._index = client, index
        self._others = [other for other in range(count) if other != index]
        began = time.monotonic()
        self._seen = {other: ('', began) for other in self._others}  # beat, and when it came
        self._told, self._failed, self._left = {}, 0, threading.Event()
        threading.Thread(target=self._run, name='peers', daemon=True).start()

    def _run(self):
        beats = 0
        while not self._left.wait(BEAT):
            beats += 1
            self._exchange(str(beats))
            if (found := self._verdict(PATIENCE)) and not self._left.is_set():
                _end(*found)

    def _exchange(self, beat):
        try:
            self._client.key_value_set(f'{_FOLDER}beat/{self._index}', beat, allow_overwrite=True)
            rows = dict(self._client.key_value_dir_get(_FOLDER))
        except Exception:
            # It may have been a moment's trouble.
            self._failed += 1
            return
        self._failed, now = 0, time.monotonic()
        for other in self._others:
            beat = rows.get(f'{_FOLDER}beat/{other}', '')
            if beat != self._seen[other][0]:
                self._seen[other] = beat, now
            if (status := rows.get(f'{_FOLDER}end/{other}')) is not None:
                self._told[other] = int(status)

    def _verdict(self, patience):
        """(what to say, exit status) once a process is gone or has failed, else None."""
        for other, status in self._told.items():
            if status not in (0, 143):
                return f'process {other} ended with status {status}, see what it says', status
        if self._failed >= 3:
            return 'process 0, by which the others find each other, is gone', AGAIN
        now = time.monotonic()
        for other, (_, when) in self._seen.items():
            if other not in self._told and now - when > patience:
                return f'process {other} has given no sign of life for {now - when:.0f} s', AGAIN
        return None

    def decide(self, reason):
        deadline = time.monotonic() + SHORT_PATIENCE + 3 * BEAT
        while time.monotonic() < deadline:
            if found := self._verdict(SHORT_PATIENCE):
                _end(*found, reason)
            time.sleep(0.2)

    def leave(self, status):
        self._left.set()
        try:
            self._client.key_value_set(
                f'{_FOLDER}end/{self._index}', str(status), allow_overwrite=True
            )
            if status not in (0, 143) and not self._index:
                # The others read it here: until they have, or have ended.
                deadline = time.monotonic() + 3 * BEAT
                while time.monotonic() < deadline and len(self._told) < len(self._others):
                    time.sleep(0.2)
                    self._exchange('')
        except Exception:  # the others are gone
            pass
        if status not in (0, 143):
            _exit(status)


def _end(what, status, reason=''):
    again = '; the same command goes on from the last checkpoint' if status == AGAIN else ''
    why = f' ({reason})' if reason else ''
    print(f'error: {what}{why}: ending{again}', file=sys.stderr)
    _exit(status)


def _exit(status):
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)
