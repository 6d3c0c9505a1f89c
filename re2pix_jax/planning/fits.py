"""What fits where: for one device each, the memory of a clip, the largest batch, the time of it."""

import math
from typing import NamedTuple

from re2pix_jax.planning.chips import GIB
from re2pix_jax.planning.plan import Plan
from re2pix_jax.report.table import Number, table

CLIPS = 1, 4
"""What is planned to know what a batch takes, and each clip more."""


class Fit(NamedTuple):
    """One config on one device, for one purpose.

    Attributes:
        purpose: 'predict' | 'finetune' | 'train'.
        least, more: plans of the first and the second number of `CLIPS`.
    """

    purpose: str
    least: Plan
    more: Plan

    @property
    def largest(self) -> int:
        """Clips that would fit, about: memory grows by as much with each clip."""
        free = self.least.topology.chip.memory - self.least.peak
        if free < 0:
            return 0
        clips = self.more.batch - self.least.batch
        each = max(self.more.peak - self.least.peak, 1) / clips
        found = self.least.batch + math.floor(free / each)
        return found if self.more.fits else min(found, self.more.batch - 1)

    @property
    def seconds(self) -> float:
        """Of a clip, at least: in the larger batch where it fits."""
        plan = self.more if self.more.fits else self.least
        return plan.bound / plan.batch


def describe(fits: list[Fit]) -> str:
    """A table: a line for each purpose and config, three columns for each device."""
    topologies = {fit.least.topology.name: fit.least.topology for fit in fits}
    by_row = {}
    for fit in fits:
        row = by_row.setdefault((fit.purpose, fit.least.name), {})
        row[fit.least.topology.name] = fit
    head = ['for', 'config']
    for name, topology in topologies.items():
        head += [f'{name}\n{topology.chip.memory / GIB:.4g} GiB\nGiB', 'clips', 'ms a clip']
        head[-2:] = [f'\n\n{title}' for title in head[-2:]]
    rows = [
        [*names, *(cell for name in topologies for cell in _cells(row[name]))]
        for names, row in by_row.items()
    ]
    return table(head, rows)


def _cells(fit):
    memory = Number(f'{fit.least.peak / GIB:.2f}')
    if not fit.largest:
        return [memory, 0, None]
    return [memory, fit.largest, Number(f'{1e3 * fit.seconds:.3g}')]
