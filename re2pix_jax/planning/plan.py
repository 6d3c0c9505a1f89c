"""From a compiled program to what it takes: memory, time at best, what travels, days."""

import dataclasses
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from re2pix_jax.planning import hlo, operations
from re2pix_jax.planning.chips import GIB, Topology
from re2pix_jax.planning.programs import Program
from re2pix_jax.progress import duration
from re2pix_jax.report.table import Number, table

GATHERS = ('all-gather', 'all-to-all')
LEAST = 1 << 20
"""Bytes, from which on what is gathered is more than a loss or a key."""
READING = 48.0
"""Windows of 5 frames at 256x512 that one core reads a second from prepared records, by `re2pix
benchmark data` (re2pix_jax/benchmarks/README.md)."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a step (or one call of a roll-out) takes.

    Attributes:
        name: of the config; what: 'step' or 'prediction'.
        topology: the devices; mesh: {axis: devices}.
        batch: clips; steps: of the whole run.
        remat: whether layers are computed again in the backward pass.
        flops: of all devices; traced: that the program asks for which is compiled; counted: that
            the compiler made of these.
        state, frozen, peak, moved: bytes of one device: held, at most, read and written.
        transfers: what travels; weights: shapes of parameters, by which it is told from the rest.
    """

    name: str
    what: str
    topology: Topology
    mesh: dict[str, int]
    batch: int
    steps: int
    remat: bool
    flops: float
    traced: float
    counted: float
    state: int
    frozen: int
    peak: int
    moved: float
    transfers: list[hlo.Transfer]
    weights: frozenset

    @property
    def activations(self) -> int:
        """Bytes of one device beside state and frozen networks, at most."""
        return self.peak - self.state - self.frozen

    @property
    def layout(self) -> str:
        """Of the state, in words."""
        cut = [f'{axis} {self.mesh[axis]}' for axis in ('fsdp', 'tensor') if self.mesh[axis] > 1]
        return ' '.join(cut) or 'on every device'

    @property
    def compiled(self) -> bool:
        """Whether there is a program: a TPU's compiler makes none that does not fit. Then `peak` is
        what it asked for, and of time operations alone are known.
        """
        return self.counted > 0

    @property
    def fits(self) -> bool:
        return self.peak <= self.topology.chip.memory

    @property
    def largest(self) -> int:
        """Clips that would fit, about: activations grow with the clips, the rest does not."""
        shares = self.mesh['data'] * self.mesh['fsdp']
        free = self.topology.chip.memory - self.state - self.frozen
        return max(math.floor(free / (max(self.activations, 1) * shares / self.batch)), 0) * shares

    @property
    def sent(self) -> float:
        """Bytes that one device sends."""
        return sum(row.travels * row.times for row in self.transfers)

    @property
    def seconds(self) -> dict[str, float]:
        """At the nominal rates, by what it would be spent on, each as if the others were none."""
        chip = self.topology.chip
        return {
            'compute': self.flops / self.topology.count / chip.flops,
            'memory': self.moved / chip.bandwidth,
            'links': self.sent / chip.link,
        }

    @property
    def bound(self) -> float:
        """Seconds of a step, at least: the longest of `seconds`, with all else hidden behind it."""
        return max(self.seconds.values())

    @property
    def unhidden(self) -> float:
        """Seconds of a step where nothing is done while links are busy."""
        seconds = self.seconds
        return max(seconds['compute'], seconds['memory']) + seconds['links']

    @property
    def mfu(self) -> float:
        """Share of the nominal peak, at most."""
        return self.seconds['compute'] / self.bound

    @property
    def days(self) -> float:
        return self.steps * self.bound / 86400

    @property
    def gathered(self) -> list[hlo.Transfer]:
        """What is gathered and is no parameter: activations, where parameters' sharding spills."""
        return [
            row
            for row in self.transfers
            if row.kind in GATHERS and row.shape not in self.weights and row.bytes > LEAST
        ]

    def as_dict(self) -> dict:
        """For JSON."""
        fields = dataclasses.asdict(self)
        del fields['weights'], fields['topology']
        fields['transfers'] = [row._asdict() for row in self.transfers]
        return fields | {
            'topology': self.topology.name,
            'devices': self.topology.count,
            'hosts': self.topology.hosts,
            'memory': self.topology.chip.memory,
            'fits': self.fits,
            'largest_batch': self.largest,
            'seconds': self.seconds,
            'unhidden': self.unhidden,
            'mfu_bound': self.mfu,
            'days': self.days,
            'gathered_activations': sum(row.times for row in self.gathered),
        }


def make(name: str, what: str, config: ConfigDict, topology: Topology, program: Program) -> Plan:
    """The plan of a program that was compiled for a config on a topology."""
    return Plan(
        name,
        what,
        topology,
        program.mesh,
        config.batch_size,
        config.steps if what == 'step' else 1,
        bool(config.model.get('remat', False)),
        program.flops,
        program.traced,
        topology.count * operations.flops(program.text),
        program.state,
        program.frozen,
        program.peak,
        hlo.moved_bytes(program.text),
        hlo.transfers(program.text, program.mesh),
        program.weights,
    )


def fitting(make: Callable[[ConfigDict], Plan], config: ConfigDict) -> Plan:
    """The plan of a config as it is; where that does not fit, with its state cut over as many
    devices of a slice as its width divides into, or with layers computed again, what saves more
    first; where that does not do, both.
    """
    made = make(config)
    config = config.copy_and_resolve_references()
    if made.fits:
        return made
    changes = []
    if config.mesh.fsdp == 1 and made.topology.count > 1:
        count = made.topology.count
        changes.append((config.mesh, 'fsdp', math.gcd(count, config.model.get('width', count))))
    if config.model.get('remat') is False:
        changes.append((config.model, 'remat', True))
    if made.activations > made.state + made.frozen:
        changes.reverse()
    for holder, name, value in changes:
        holder[name] = value
        made = make(config)
        if made.fits:
            break
    return made


def describe(plan: Plan) -> str:
    """One plan, in text."""
    chip, seconds = plan.topology.chip, plan.seconds
    gib = lambda value: f'{value / GIB:.2f}'
    mesh = ' x '.join(f'{axis} {size}' for axis, size in plan.mesh.items())
    device = f'{plan.topology.count} x {chip.kind}, {plan.topology.hosts} host' + (
        's' if plan.topology.hosts > 1 else ''
    )
    clips = plan.batch / plan.bound
    lines = [
        ('devices', f'{device}; mesh {mesh}'),
        ('state', plan.layout + (', layers recomputed' if plan.remat else '')),
        (
            'memory, GiB a device',
            f'state {gib(plan.state)}, frozen {gib(plan.frozen)}, activations and batch '
            f'{gib(plan.activations)}: {gib(plan.peak)} of {gib(chip.memory)}, '
            + ('fits' if plan.fits else 'does NOT fit'),
        ),
        ('batch', f'{plan.batch} clips; at most about {plan.largest}'),
    ]
    if not plan.compiled:
        lines.append(('not compiled', 'for want of memory, which is as much as above or more'))
        return f'{plan.name}\n{_aligned(lines)}'
    lines += [
        (
            f'a {plan.what}',
            f'{plan.flops / 1e12:.4g} TFLOP, recomputation included; the compiled program has '
            f'{plan.counted / plan.traced:.3f} of what is traced',
        ),
        (
            'time at best',
            ', '.join(f'{name} {1e3 * value:.4g} ms' for name, value in seconds.items())
            + f': {1e3 * plan.bound:.4g} ms or more, MFU {plan.mfu:.0%} or less; '
            f'{1e3 * plan.unhidden:.4g} ms where links are hidden behind nothing',
        ),
    ]
    if plan.what == 'step':
        cores = math.ceil(clips / READING)
        lines += [
            ('the run', f'{plan.steps:,} steps: {duration(86400 * plan.days)} or more'),
            (
                'reading',
                f'{clips:.4g} clips a second at most: about {cores} cores, '
                f'{math.ceil(cores / plan.topology.hosts)} a host, from prepared records',
            ),
        ]
    if chip.platform == 'gpu':
        lines.append(('compiled for', 'CPU devices, parted alike: memory is a rough upper bound'))
    text = _aligned(lines)
    rows = [
        [
            row.kind,
            row.axes,
            'x'.join(map(str, row.shape)) or 'scalar',
            row.times,
            Number(f'{row.bytes / 1e6:.3g}'),
            Number(f'{row.travels * row.times / 1e6:.3g}'),
            'parameters' if row.shape in plan.weights else '',
        ]
        for row in plan.transfers[:12]
    ]
    if not rows:
        return f'{plan.name}\n{text}\n\nNothing travels between devices.'
    head = ['collective', 'over', 'largest array', 'times', 'MB', 'sent, MB', '']
    rest = len(plan.transfers) - len(rows)
    return f'{plan.name}\n{text}\n\n{table(head, rows)}' + (
        f'\n... and {rest} smaller' if rest > 0 else ''
    )


def _aligned(lines):
    width = max(len(name) for name, _ in lines)
    return '\n'.join(f'{name.ljust(width)}  {value}' for name, value in lines)


def recommend(plans: list[Plan]) -> str:
    """Of plans of one config on one topology, the one to take, in a line; of GPUs, whose memory is
    an upper bound, the nearest where none is shown to fit, in a second one.
    """
    fitting = [one for one in plans if one.fits]
    if not fitting:
        least = min(plans, key=lambda one: one.peak)
        if least.topology.chip.platform == 'gpu':
            return (
                f'none is shown to fit {least.topology.name} by an upper bound; where memory runs '
                f'out, set --config.batch_size to about {least.largest}, or --config.accumulate=2 '
                f'or more\ntake {_settings(least)}'
            )
        return (
            f'none fits; nearest is {_settings(least)}, for about {least.largest} clips: set '
            '--config.batch_size to that, or take more devices'
        )
    best = min(fitting, key=lambda one: (one.bound, one.peak))
    return f'take {_settings(best)}'


def _settings(one):
    remat = f' --config.model.remat={one.remat}' if one.what == 'step' else ''
    return f'--config.mesh.fsdp={one.mesh["fsdp"]}{remat}'


def compare(plans: list[Plan]) -> str:
    """Several plans as a table; those of one config on more devices beside its first."""
    rows, first = [], {}
    for plan in plans:
        rate = plan.batch / plan.unhidden / plan.topology.count
        start = first.setdefault((plan.name, plan.topology.chip.kind), rate)
        rows.append(
            [
                plan.name,
                plan.topology.name,
                plan.layout + (', remat' if plan.remat else ''),
                plan.batch,
                Number(f'{plan.peak / GIB:.2f}'),
                Number(f'{plan.topology.chip.memory / GIB:.4g}'),
                'yes' if plan.fits else 'NO',
                plan.largest,
                Number(f'{plan.flops / 1e12:.4g}'),
                *(_speed(plan, rate / start) if plan.compiled else 8 * [None]),
            ]
        )
    head = (
        ['config', 'topology', 'state', 'clips', 'GiB a\ndevice', 'of', 'fits', 'clips at\nmost']
        + ['TFLOP', 'compiled\n/ traced', 'sent, GB\na device', 'gathers of\nactivations']
        + ['MFU\nat most', 'ms at\nleast', 'links\nunhidden', 'days at\nleast']
        + ['clips/s a\ndevice']
    )
    return table(head, rows)


def _speed(plan, share):
    return [
        plan.counted / plan.traced,
        Number(f'{plan.sent / 1e9:.3g}'),
        sum(row.times for row in plan.gathered),
        Number(f'{plan.mfu:.0%}'),
        Number(f'{1e3 * plan.bound:.4g}'),
        Number(f'{1e3 * plan.unhidden:.4g}'),
        Number(f'{plan.days:.3g}'),
        Number(f'{share:.1%}'),
    ]
