"""What the wall time of a run goes into."""

import contextlib
import os
import time

from re2pix_jax.progress import duration

KINDS = {
    'steps': 'in steps',
    'compiling': 'compiling',
    'waiting': 'waiting for data',
    'saving': 'saving',
    'evaluating': 'evaluating',
    'opening': 'importing and opening data',
    'restoring': 'restoring or drawing the state',
    'starting': 'starting',
    'lost': 'in steps lost to restarts',
}


class Goodput:
    """Counts seconds by what they went into; what nothing else claims is 'starting' until the first
    step and 'steps' from there on. What the process has lived for before, or since `begin`, is
    'opening'.

    Args:
      rows: of goodput.jsonl, as former starts of the run left them.
      step: that the run goes on from. What was spent on later steps is 'lost'. The time between two
        starts is no part of any.
    """

    def __init__(self, rows: list[dict], step: int):
        read = lambda row: {kind: row.get(kind, 0.0) for kind in KINDS}
        self.seconds = read(rows[-1] if rows else {})
        kept = read(next((row for row in reversed(rows) if row['step'] <= step), {}))
        for kind in ('steps', 'waiting'):
            self.seconds['lost'] += self.seconds[kind] - kept[kind]
            self.seconds[kind] = kept[kind]
        self._before = dict(self.seconds)
        self.seconds['opening'] += _age() - _of_others
        self._kind, self._since = 'starting', time.perf_counter()

    def stepping(self) -> None:
        """From now on it is steps, where nothing else is claimed."""
        self._turn('steps')

    @contextlib.contextmanager
    def spent(self, kind: str):
        """Claims the time within for one of `KINDS`."""
        before = self._turn(kind)
        try:
            yield
        finally:
            self._turn(before)

    def read(self) -> dict[str, float]:
        """{'steps': seconds, ...} of all starts up to now."""
        self._turn(self._kind)
        return dict(self.seconds)

    def describe(self) -> str:
        """One line: the shares, the largest first."""
        values = self.read()
        total = max(sum(values.values()), 1e-9)
        shares = sorted(KINDS, key=lambda kind: -values[kind])
        text = ', '.join(f'{values[kind] / total:.1%} {KINDS[kind]}' for kind in shares)
        return f'time: {duration(total)}, of it {text}'

    def describe_start(self) -> str:
        """One line: what it took to the first step, asked for when that is done."""
        spent = {kind: value - self._before[kind] for kind, value in self.read().items()}
        order = 'opening', 'restoring', 'compiling', 'starting', 'waiting', 'steps'
        text = ', '.join(f'{spent[kind]:.1f} s {KINDS[kind]}' for kind in order)
        return f'first step after {sum(spent.values()):.1f} s: {text}'

    def _turn(self, kind):
        now, before = time.perf_counter(), self._kind
        self.seconds[before] += now - self._since
        self._kind, self._since = kind, now
        return before


_of_others = 0.0  # seconds of this process before what is counted


def begin() -> None:
    """From now on time is the next run's: for a process that did other things before, such as a
    training of another part.
    """
    global _of_others
    _of_others = _age()


def _age():
    """Seconds since this process began; 0 where the system does not say."""
    try:
        with open('/proc/self/stat', encoding='utf-8') as file:
            ticks = int(file.read().rpartition(')')[2].split()[19])  # since the machine began
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
    except (OSError, AttributeError):
        return 0.0
