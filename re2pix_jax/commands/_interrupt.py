"""How Ctrl-C and SIGTERM, which clusters and `timeout` send, end a command: in one line, with
status 130 or 143, and without taking down what native code is in the midst of, which ends in a
segmentation fault.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading

WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}


class Terminated(KeyboardInterrupt):
    """A SIGTERM came."""


def hear() -> None:
    """From now on a SIGTERM is an exception, so that nothing is left half-written; where nobody
    hears it yet. It and Ctrl-C are raised again where they were raised in what lets no error out,
    as jax's callback of the garbage collector.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    before = sys.unraisablehook

    def hook(unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return before(unraisable)
        lost = signal.SIGTERM if issubclass(unraisable.exc_type, Terminated) else signal.SIGINT
        again = threading.Timer(0.05, os.kill, (os.getpid(), lost))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


def _terminate(*_):
    raise Terminated


def number_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal that an exception stands for."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


@contextlib.contextmanager
def at_once():
    """Ctrl-C ends the process here and now, from a thread of its own: Python hears a signal only
    between two of its own steps, and a compiler's step takes minutes. For work that leaves nothing
    to put in order, in the main thread.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # as under nohup
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    # Before the thread, which is waited for: what comes meanwhile lies in the pipe until it reads.
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: None)
    threading.Thread(target=_wait, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(told)


def _wait(heard):
    while number := os.read(heard, 1):
        if said := WORDS.get(number[0]):
            # On a terminal a line of progress may be open.
            os.write(2, f'\n{said}\n'.encode() if os.isatty(2) else f'{said}\n'.encode())
            os._exit(128 + number[0])
    os.close(heard)


def end(status: int):
    """Ends the process from within `except KeyboardInterrupt`, whose frames keep what jax was
    tracing or compiling: it is not taken down.
    """
    atexit._run_exitfuncs()  # reading processes end there
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
