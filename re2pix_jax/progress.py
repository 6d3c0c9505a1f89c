"""Progress of long work: one line that is rewritten on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SECONDS = 5.0
"""Between two plain lines."""

T = TypeVar('T')


class Progress:
    """How far work is, how fast it goes and how long it still takes.

    Args:
        total: units in all.
        label, unit: what is worked on, and in what it is counted.
        done: units that were done before.
        silent: say nothing (all processes but the first).
        stream: where to; stderr by default.
    """

    def __init__(
        self, total: int, label: str, unit: str = 'clip', done: int = 0, silent=False, stream=None
    ):
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.stream, self.silent = stream or sys.stderr, silent
        self._live = self.stream.isatty()
        self._open_line, self._told = False, time.monotonic()
        self.restart()

    def restart(self) -> None:
        """Measures the rate from now on: what was done before is not part of it."""
        self._since, self._from = time.monotonic(), self.done

    @property
    def rate(self) -> float:
        """Units a second since the last restart; 0 where nothing was done."""
        return (self.done - self._from) / max(time.monotonic() - self._since, 1e-9)

    def add(self, units: int = 1, more: str = '') -> None:
        """Counts units; says so on a terminal, or where `SECONDS` have passed or all is done."""
        self.done += units
        now = time.monotonic()
        if self._live or now - self._told >= SECONDS or self.done >= self.total:
            self.say(more)

    def say(self, more: str = '') -> None:
        """Says how far it is, with `more` after the count."""
        self._told = time.monotonic()
        text = f'{self.label}: {self.done}/{self.total} {self.unit}s' + (
            f'  {more}' if more else ''
        )
        if self.rate > 0:
            left = duration(max(self.total - self.done, 0) / self.rate)
            text += f'  {self.rate:.3g} {self.unit}s/s  {left} left'
        self._print(text, live=self._live)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._print(text, live=False)

    def close(self) -> None:
        """Ends the line that is being rewritten."""
        if self._open_line and not self.silent:
            self.stream.write('\n')
            self._open_line = False

    def _print(self, text, live):
        if self.silent:
            return
        if live:
            self.stream.write('\r\x1b[K' + text)
            self._open_line = True
        else:
            self.close()
            self.stream.write(text + '\n')
        self.stream.flush()


def track(
    items: Iterable[T], total: int, label: str, unit: str = 'clip', size: Callable[[T], int] = len
) -> Iterator[T]:
    """Passes `items` on and says how far it is; `size` gives the units of one item."""
    progress = Progress(total, label, unit)
    try:
        for item in items:
            yield item
            progress.add(size(item))
    finally:
        progress.close()


_said: set[str] = set()


def say_once(line: str) -> None:
    """A line on stderr, where this process has not said it before."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


def counted(number: int, noun: str) -> str:
    """'1 clip', '2 clips', '1,000 clips'."""
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def duration(seconds: float) -> str:
    """'2d 3h', '1h 05m', '4m 09s' or '7s'."""
    seconds = round(seconds)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f'{days}d {hours}h'
    if hours:
        return f'{hours}h {minutes:02d}m'
    return f'{minutes}m {seconds % 60:02d}s' if minutes else f'{seconds}s'
