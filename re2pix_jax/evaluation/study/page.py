"""A study's tables, curves and page."""

import json
import pathlib

import numpy as np
from PIL import Image

from re2pix_jax import files
from re2pix_jax.evaluation import protocol
from re2pix_jax.evaluation.evaluators import COLUMNS
from re2pix_jax.evaluation.study import claims, numbers
from re2pix_jax.report import curves, page
from re2pix_jax.report.table import Number, table

BY_TIME = ('frechet_frames', 'frechet_video')
TIMES = 6  # columns of a table by time, at most


def write(folder, points, sheets=()) -> str:
    """Writes study.txt, study.json, curves/*.png and study.html into `folder`; returns the text.

    Args:
        folder: of the study.
        points: of `study.rows.evaluate`, the last of every run judged by one protocol.
        sheets: (caption, uint8 [H, W, 3]) of predicted frames for the page.
    """
    folder = pathlib.Path(folder)
    protocol.check_alike(
        {
            f'{point.label}, seed {point.seed}': point.report['protocol']
            for point in points
            if point.final
        }
    )
    summary = numbers.summarise(points)
    verdicts = claims.judge(summary)
    times = {name: numbers.by_time(points, name) for name in BY_TIME}
    text = '\n\n'.join(
        [
            describe_protocol(points),
            describe_table(summary),
            *(describe_by_time(name, found) for name, found in times.items() if found),
            *describe_sooner(points),
            *([describe_verdicts(verdicts)] if verdicts else []),
        ]
    )
    pictures = []
    (folder / 'curves').mkdir(parents=True, exist_ok=True)
    for name in numbers.SHOWN:
        if found := numbers.curves(points, name):
            levels = {
                title: numbers.read(name, _curve_report(points), method)
                for method, title in numbers.REFERENCES.items()
            }
            path = folder / 'curves' / f'{name}.png'
            curves.training(
                path,
                COLUMNS[name].title,
                found,
                {title: level for title, level in levels.items() if level is not None},
            )
            pictures.append(
                (
                    f'{COLUMNS[name].title} over training',
                    np.asarray(Image.open(path).convert('RGB')),
                )
            )
    for name, found in times.items():
        if any(len(cells) > 1 for cells in found.values()):
            path = folder / 'curves' / f'{name}_by_time.png'
            curves.by_time(
                path,
                COLUMNS[name].title,
                {
                    label: (list(cells), [cell.mean for cell in cells.values()])
                    for label, cells in found.items()
                },
            )
            pictures.append(
                (f'{COLUMNS[name].title} by time', np.asarray(Image.open(path).convert('RGB')))
            )
    files.write_text(folder / 'study.txt', text + '\n')
    files.write_text(
        folder / 'study.json',
        json.dumps(
            {
                'table': {
                    label: {name: cell._asdict() for name, cell in cells.items()}
                    for label, cells in summary.items()
                },
                'by_time': {
                    name: {
                        label: {f'{seconds:.3f}': cell._asdict() for seconds, cell in cells.items()}
                        for label, cells in found.items()
                    }
                    for name, found in times.items()
                },
                'curves': {name: numbers.curves(points, name) for name in numbers.SHOWN},
                'claims': [verdict._asdict() for verdict in verdicts],
            },
            indent=1,
        )
        + '\n',
    )
    page.write(folder / 'study.html', 'Study', text, [*pictures, *sheets])
    return text


def _curve_report(points):
    """The evaluation on the clips of the curves that has copy-last and the VAE beside it."""
    return next(point.report for point in points if not point.final)


def describe_protocol(points) -> str:
    """What was trained how long, and on what it is judged."""
    final = next(point for point in points if point.final)
    protocol = final.report['protocol']
    seeds = {
        label: sorted({point.seed for point in points if point.label == label and point.final})
        for label in dict.fromkeys(point.label for point in points)
    }
    few = ', '.join(f'{label} {len(found)}' for label, found in seeds.items())
    return (
        f'{protocol["clips"]} clips of {protocol["source"]}, split {protocol["split"]}, '
        f'{protocol["context_frames"]} context and '
        f'{protocol["horizon"]} future frames at stride {protocol["stride"]}, '
        f'{protocol["size"][0]}x{protocol["size"][1]} pixels, '
        f'{protocol["sampler_steps"]} sampler steps, after {final.step} training steps\nseeds: '
        f'{few}'
    )


def describe_table(summary) -> str:
    """{label: {metric: Cell}} as a table, mean ± standard deviation over seeds."""
    shown = [name for name in numbers.SHOWN if any(name in cells for cells in summary.values())]
    rows = [
        [label, *(_cell(cells.get(name)) for name in shown)] for label, cells in summary.items()
    ]
    return table(
        [
            '',
            *(f'{COLUMNS[name].title} {"↑" if COLUMNS[name].higher else "↓"}' for name in shown),
        ],
        rows,
    )


def _cell(cell):
    if cell is None:
        return None
    spread = '' if cell.spread is None else f' ± {cell.spread:.2g}'
    return Number(f'{cell.mean:.4g}{spread}')


def describe_by_time(name, found) -> str:
    """{label: {seconds: Cell}} as a table of at most `TIMES` times, evenly spaced from the first
    to the last.
    """
    times = list(next(iter(found.values())))
    shown = [
        times[place]
        for place in np.unique(np.linspace(0, len(times) - 1, TIMES).round().astype(int))
    ]
    rows = [
        [label, *(_cell(cells.get(seconds)) for seconds in shown)] for label, cells in found.items()
    ]
    return f'{COLUMNS[name].title} by time\n' + table(
        ['', *(f'+{seconds:.2f} s' for seconds in shown)], rows
    )


def describe_sooner(points) -> list[str]:
    """How many times sooner the full method is where the baseline ends, a line for each metric that
    has curves; [] without.
    """
    lines = []
    for name in numbers.SHOWN:
        found = numbers.curves(points, name)
        if 'full' not in found or 'baseline' not in found:
            continue
        there = numbers.sooner(found, name)
        end = f'{found["baseline"][1][-1]:.4g} of baseline at step {found["baseline"][0][-1]}'
        first = found['full'][0][0]
        lines.append(
            f'{COLUMNS[name].title}: {end} is '
            + (
                'not reached by full'
                if there is None
                else f'reached by full at {"or before " if there[0] <= first else ""}step '
                f'{there[0]:.0f}, {there[1]:.1f} times sooner'
            )
        )
    return ['\n'.join(lines)] if lines else []


def describe_verdicts(verdicts) -> str:
    """The paper's findings one by one."""
    return table(['finding', 'found', 'verdict'], [list(verdict) for verdict in verdicts])
