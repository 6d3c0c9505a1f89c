"""Reports as text: what columns are called, which way they count and how they are written is said
by the evaluators alone.
"""

import textwrap
from collections.abc import Iterable

from re2pix_jax.evaluation import protocol, views
from re2pix_jax.evaluation.evaluators import COLUMNS
from re2pix_jax.evaluation.results import shown
from re2pix_jax.report.table import Number, table

COLUMNS_AT_ONCE = 14
"""Of a table by time, beside step and time."""

EVALUATED = ('re2pix', 'forecast')
"""Methods that differ from model to model; the others are what it is held against."""

MEANINGS = {
    'copy_last': 'the last context frame repeated',
    'vae': 'the true frame through the VAE, the best that the decoder allows',
    'truth': 'the true frame',
    'forecast': 'its forecast, which has no frames',
    'mean_map': "the mean over clips and times of the compared frames' components",
    'encoder': 'features that did not go through the principal components',
    'oracle': 'Re2Pix, had stage 1 forecast the true features',
}
WIDTH = 88  # characters of a line of text


def describe(report: dict) -> str:
    """A report (`Report.to_dict`) as text: the protocol, the numbers over all steps, by time."""
    blocks = [protocol.describe(report['protocol']), by_method(report['overall'])]
    if len(report['steps']) > 1:
        blocks += by_time(report['steps'], report['protocol']['fps'])
    blocks.append(legend(report['overall']))
    notes = [f'warning: {line}' for line in report['warnings']]
    notes += [f'left out: {line}' for line in report['left_out']]
    return '\n\n'.join(blocks + (['\n'.join(notes)] if notes else []))


def legend(methods: Iterable[str]) -> str:
    """What the columns of these methods are."""
    said = [f'{views.TITLES[name]}: {MEANINGS[name]}' for name in MEANINGS if name in methods]
    return textwrap.fill('; '.join(said), WIDTH)


def joined(reports: dict[str, dict]) -> str:
    """{name: report} of one protocol as one table: of each what is evaluated and, where it differs,
    what that is held against.

    Raises:
        UserError: they stand under different protocols.
    """
    protocol.check_alike({name: report['protocol'] for name, report in reports.items()})
    columns, references, own = {}, {}, set(EVALUATED)
    for report in reports.values():
        for method, found in report['overall'].items():
            if _cells(references.setdefault(method, found)) != _cells(found):
                own.add(method)
    for method in sorted(references, key=lambda method: method not in EVALUATED):
        if method not in own:
            columns[views.TITLES[method]] = references[method]
            continue
        for name, report in reports.items():
            if method in report['overall']:
                columns[f'{name}\n{views.TITLES[method]}'] = report['overall'][method]
    rows = [
        [column.title, *(_cell(name, found.get(name)) for found in columns.values())]
        for name, column in COLUMNS.items()
        if any(found.get(name) is not None for found in columns.values())
    ]
    first = next(iter(reports.values()))['protocol']
    about = protocol.describe(first | {'model': f'{len(reports)} models', 'sampler': ''})
    for name, report in reports.items():
        own = report['protocol']
        about += f'\n{name}: {own["model"]}'
        about += f'; {protocol.drawing(own)}' if own['sampler'] else ''
    return f'{about}\n\n{table(["over all steps", *columns], rows)}'


def gained(before: dict, after: dict) -> str:
    """A line a column: what the second report's model gained over the first's, and whether copying
    the last frame would be better.
    """
    lines = []
    for name in ('psnr', 'feature_error'):
        column = COLUMNS[name]
        better = lambda one, other, column=column: (one > other) if column.higher else one < other
        old, new = (report['overall']['re2pix'].get(name) for report in (before, after))
        if None in (old, new):
            continue
        word = 'better' if better(new, old) else 'no better'
        said = f'{column.title}: {shown(name, old)} before, {shown(name, new)} after ({word})'
        copied = after['overall']['copy_last'].get(name)
        if copied is not None and better(copied, new):
            said += f'; copying the last frame is better still, {shown(name, copied)}'
        lines.append(said)
    return '\n'.join(lines)


def by_method(overall: dict) -> str:
    """{method: {column: number}} as a table: a row a column, a column a method."""
    rows = [
        [column.title, *(_cell(name, found.get(name)) for found in overall.values())]
        for name, column in COLUMNS.items()
        if any(found.get(name) is not None for found in overall.values())
    ]
    return table(['over all steps', *(views.TITLES[method] for method in overall)], rows)


def by_time(steps: list, fps: float) -> list[str]:
    """[{method: {column: number}}, ...] as tables of a row a step, as wide as a screen."""
    pairs = [
        (name, method)
        for name in COLUMNS
        for method in views.TITLES
        if any(row.get(method, {}).get(name) is not None for row in steps)
    ]
    groups, group = [], []
    for name in dict.fromkeys(name for name, _ in pairs):
        of_name = [pair for pair in pairs if pair[0] == name]
        if group and len(group) + len(of_name) > COLUMNS_AT_ONCE:
            groups, group = [*groups, group], []
        group = group + of_name
    return [_time_table(steps, fps, group) for group in [*groups, group] if group]


def _time_table(steps, fps, pairs):
    header, last = ['\nstep', '\ntime'], None
    for name, method in pairs:
        title = COLUMNS[name].title if name != last else ''
        header.append(f'{title}\n{views.TITLES[method]}')
        last = name
    rows = [
        [
            number,
            Number(f'+{number / fps:.2f} s'),
            *(_cell(name, row.get(method, {}).get(name)) for name, method in pairs),
        ]
        for number, row in enumerate(steps, 1)
    ]
    return table(header, rows)


def _cells(found):
    return {name: shown(name, value) for name, value in found.items() if value is not None}


def _cell(name, value):
    return None if value is None else Number(shown(name, value))
