"""A command under a parent that starts it again, and says in a line what native code says in many.

A command that is one of several processes, or is given --restarts, runs as a child. Its parent
passes signals on; what the native libraries say when another process is gone is held back until it
is known how the child ends, and shown unless that was it. A child that was killed, or whose status
is `AGAIN`, is started again as often as --restarts says.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time

from absl import flags

from re2pix_jax.errors import AGAIN

flags.DEFINE_integer(
    'restarts', 0, 'How often to start again what was killed or lost a process.', lower_bound=0
)
flags.disclaim_key_flags()
_CHILD = 'RE2PIX_SUPERVISED'
_DISTRIBUTED = 'JAX_COORDINATOR_ADDRESS', 'RE2PIX_DISTRIBUTED'
PAUSE = 15.0
"""Seconds before one of several processes is started again: the others have ended by then."""
HOLD = 5.0  # seconds that native lines are held back
_NATIVE = re.compile(r'[IWEF]\d{4} \S+ +\d+ \S+\.(?:cc|h):\d+\]|\*\*\* Check failure|\s+@ +0x')
_PEER_GONE = re.compile('coordination|preemption_sync|CoordinationService|distributed service')


def enter() -> None:
    """Returns in the child, and where no parent is needed; in a parent the process ends here, with
    the child's status.
    """
    several = any(os.environ.get(name) for name in _DISTRIBUTED)
    given = re.findall(r'\0--?restarts[=\0](\d+)(?=\0)', '\0'.join([*sys.argv, '']))
    restarts = int(given[-1]) if given else 0
    if os.environ.pop(_CHILD, None) or not (several or restarts):
        return
    sys.exit(_Parent(several).run(restarts))


class _Parent:
    def __init__(self, several):
        self._several, self._child, self._asked = several, None, threading.Event()
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._interrupt)

    def _pass_on(self, number, _):
        self._asked.set()
        if self._child and self._child.poll() is None:
            self._child.send_signal(number)

    def _interrupt(self, number, frame):
        # A terminal's Ctrl-C goes to the child, too; `kill -INT` and `docker stop` send none there.
        self._asked.set()
        if not _in_foreground():
            self._pass_on(signal.SIGTERM, frame)

    def run(self, restarts):
        status = self._once()
        while status == AGAIN and restarts and not self._asked.is_set():
            pause = PAUSE if self._several else 1.0
            print(
                f'starting again in {pause:.0f} s, {restarts - 1} more times if need be',
                file=sys.stderr,
                flush=True,
            )
            if self._asked.wait(pause):
                break
            restarts, status = restarts - 1, self._once()
        return status

    def _once(self):
        self._child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {_CHILD: '1'},
            stderr=subprocess.PIPE,
            preexec_fn=_die_with_parent if sys.platform == 'linux' else None,
        )
        relay = _Relay(self._child.stderr)
        status = self._child.wait()
        held = relay.rest()
        if status == -signal.SIGABRT and _PEER_GONE.search(held):
            _say('another process of the run is gone: ending; the same command goes on from the')
            return AGAIN
        sys.stderr.write(held)
        if status < 0 and not self._asked.is_set():
            _say(f'ended by {signal.Signals(-status).name}; the same command goes on from the')
            return AGAIN
        return status if status >= 0 else 128 - status


def _say(text):
    print(f'error: {text} last checkpoint', file=sys.stderr, flush=True)


class _Relay:
    """Passes lines on; from the first native one on, they are held for `HOLD` seconds."""

    def __init__(self, stream):
        self._stream, self._held, self._since = stream, [], None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        threading.Thread(target=self._release, daemon=True).start()

    def _run(self):
        for raw in self._stream:
            line = raw.decode(errors='replace')
            with self._lock:
                if self._since is None and not _NATIVE.match(line):
                    sys.stderr.write(line)
                    sys.stderr.flush()
                else:
                    self._held.append(line)
                    self._since = self._since or time.monotonic()

    def _release(self):
        while self._thread.is_alive():
            time.sleep(0.5)
            with self._lock:
                if self._since is not None and time.monotonic() - self._since > HOLD:
                    sys.stderr.write(''.join(self._held))
                    sys.stderr.flush()
                    self._held, self._since = [], None

    def rest(self):
        """What is still held, once the child has ended."""
        self._thread.join(timeout=2)  # a reading worker may outlive the child by a moment
        with self._lock:
            held, self._held, self._since = ''.join(self._held), [], None
        return held


def _in_foreground():
    try:
        with open('/dev/tty') as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
