"""A study's tables, curves and page."""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from re2pix_jax import files
from re2pix_jax.evaluation import protocol
from re2pix_jax.evaluation.evaluators import COLUMNS
from re2pix_jax.evaluation.study import claims, intervals, numbers
from re2pix_jax.progress import counted, duration
from re2pix_jax.report import curves, page
from re2pix_jax.report.table import Number, table

BY_TIME = ('frechet_frames', 'frechet_judge', 'frechet_random3d')
TIMES = 6  # columns of a table by time, at most
LEGEND = """forecast, oracle: what stage 2 is given, stage 1's forecast or the true future features.
gain: how much better the first is, and the {share} % interval of {count} bootstrap draws about it.
Where clips are named, clips and seeds were drawn, else seeds alone. Few clips make a Fréchet
distance too large, and drawn ones, which repeat, larger: the draws' mean is moved to the value."""


class Cost(NamedTuple):
    """Seconds of all seeds: of the training steps, and of the evaluations."""

    training: float
    evaluation: float


def write(folder, points, horizons, bootstrap: int, sheets=(), shared=()) -> str:
    """Writes study.txt, study.json, curves/*.png and study.html into `folder`; returns the text.

    Args:
        folder: of the study.
        points: of `study.rows.evaluate`, the last of every run judged by one protocol.
        horizons: future frames that the tables are over, each a table.
        bootstrap: resampled sets of clips and seeds that intervals are made of.
        sheets: (caption, uint8 [H, W, 3]) of predicted frames for the page.
        shared: {name: seconds} that what all rows start from took to train.
    """
    folder = pathlib.Path(folder)
    protocol.check_alike(
        {
            f'{point.label}, seed {point.seed}': point.report['protocol']
            for point in points
            if point.final
        }
    )
    final = next(point for point in points if point.final)
    horizons = [horizon for horizon in horizons if horizon <= len(final.report['steps'])]
    draws = intervals.Resampling(final.clips, bootstrap)
    summaries = {horizon: numbers.summarise(points, horizon) for horizon in horizons}
    verdicts = {horizon: claims.judge(points, horizon, draws) for horizon in horizons}
    times = {name: numbers.by_time(points, name) for name in BY_TIME}
    times = {name: found for name, found in times.items() if any(map(len, found.values()))}
    blocks = [describe_protocol(points)]
    for horizon in horizons:
        after = f'{horizon} future frames'
        blocks += [f'{after}\n{describe_table(summaries[horizon])}']
        if verdicts[horizon]:
            blocks += [f'findings over {after}\n{describe_verdicts(verdicts[horizon])}']
        blocks += ['\n'.join(lines)] if (lines := claims.missing(points, horizon)) else []
    blocks += [LEGEND.format(share=intervals.SHARE, count=bootstrap)]
    blocks += [describe_by_time(name, found) for name, found in times.items()]
    cost = costs(points, dict(shared))
    blocks += [*describe_sooner(points), describe_cost(cost)]
    text = '\n\n'.join(blocks)
    pictures = [*_training(folder, points), *_by_time(folder, times)]
    files.write_text(folder / 'study.txt', text + '\n')
    found = {
        'tables': {
            horizon: {
                label: {
                    way: {name: cell._asdict() for name, cell in cells.items()}
                    for way, cells in ways.items()
                }
                for label, ways in summary.items()
            }
            for horizon, summary in summaries.items()
        },
        'by_time': {
            name: {
                label: {f'{seconds:.3f}': cell._asdict() for seconds, cell in cells.items()}
                for label, cells in by_label.items()
            }
            for name, by_label in times.items()
        },
        'curves': {name: numbers.curves(points, name) for name in numbers.SHOWN},
        'findings': {
            horizon: [verdict._asdict() for verdict in judged]
            for horizon, judged in verdicts.items()
        },
        'seconds': {label: one._asdict() for label, one in cost.items()},
    }
    files.write_text(folder / 'study.json', json.dumps(found, indent=1) + '\n')
    page.write(folder / 'study.html', 'Study', text, [*pictures, *sheets])
    return text


def _training(folder, points):
    """[(caption, picture)] of the curves over training, written too."""
    (folder / 'curves').mkdir(parents=True, exist_ok=True)
    early = [point for point in points if not point.final]
    for name in numbers.SHOWN:
        if not (found := numbers.curves(points, name)):
            continue
        horizon = early[0].report['protocol']['horizon']
        levels = {
            title: numbers.read(name, early[0], method, horizon)
            for method, title in numbers.REFERENCES.items()
        }
        levels = {title: level for title, level in levels.items() if level is not None}
        path = folder / 'curves' / f'{name}.png'
        curves.training(path, COLUMNS[name].title, found, levels)
        yield f'{COLUMNS[name].title} over training', np.asarray(Image.open(path).convert('RGB'))


def _by_time(folder, times):
    """[(caption, picture)] of the metrics by time, written too."""
    for name, found in times.items():
        if any(len(cells) > 1 for cells in found.values()):
            path = folder / 'curves' / f'{name}_by_time.png'
            lines = {
                label: (list(cells), [cell.mean for cell in cells.values()])
                for label, cells in found.items()
            }
            curves.by_time(path, COLUMNS[name].title, lines)
            yield f'{COLUMNS[name].title} by time', np.asarray(Image.open(path).convert('RGB'))


def describe_protocol(points) -> str:
    """What was trained how long, and on what it is judged."""
    final = next(point for point in points if point.final)
    protocol = final.report['protocol']
    seeds = {
        label: sorted({point.seed for point in points if point.label == label and point.final})
        for label in dict.fromkeys(point.label for point in points)
    }
    few = ', '.join(f'{label} {len(found)}' for label, found in seeds.items())
    networks = '; '.join(
        f'{COLUMNS[name].title}: {about["network"]} (sha256 {about["sha256"][:12]})'
        for name, about in _networks(protocol).items()
    )
    return (
        f'{counted(protocol["clips"], "clip")} of {protocol["source"]}, split {protocol["split"]}, '
        f'{protocol["context_frames"]} context and '
        f'{protocol["horizon"]} future frames at stride {protocol["stride"]}, '
        f'{protocol["size"][0]}x{protocol["size"][1]} pixels, '
        f'{protocol["sampler_steps"]} {protocol["sampler"]} steps, after {final.step} training '
        f'steps\nseeds: {few}' + (f'\nnetworks: {networks}' if networks else '')
    )


def _networks(protocol):
    """{column: what the protocol says of its network} of the evals that have one."""
    by_eval = {name: about for name, about in protocol['evals'].items() if 'sha256' in about}
    known = {'video': 'frechet_video', 'frames': 'frechet_frames'}
    found = {known.get(name, name): about for name, about in by_eval.items()}
    return {name: about for name, about in found.items() if name in COLUMNS}


def describe_table(summary) -> str:
    """{label: {way: {metric: Cell}}} as a table of a line for each way, mean ± standard deviation
    over seeds.
    """
    lines = [(label, way, cells) for label, ways in summary.items() for way, cells in ways.items()]
    shown = [name for name in numbers.SHOWN if any(name in cells for *_, cells in lines)]
    rows = [
        [label, way, *(_cell(cells.get(name)) for name in shown)] for label, way, cells in lines
    ]
    titles = [f'{COLUMNS[name].title} {"↑" if COLUMNS[name].higher else "↓"}' for name in shown]
    return table(['', 'given', *titles], rows)


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
    """The findings one by one."""
    header = ['finding', 'found', 'gain', 'rests on', 'verdict']
    return table(header, [list(verdict) for verdict in verdicts])


def costs(points, shared) -> dict[str, Cost]:
    """{label: Cost} of every row over its seeds, and of the shared phases {name: seconds}."""
    found = {name: Cost(seconds, 0.0) for name, seconds in shared.items()}
    for point in points:
        before = found.get(point.label, Cost(0.0, 0.0))
        found[point.label] = Cost(
            before.training + point.trained, before.evaluation + point.seconds
        )
    return found


def describe_cost(found) -> str:
    """The time that every row took."""
    found = found | {'all': Cost(*(sum(part) for part in zip(*found.values(), strict=True)))}
    rows = [[label, *(Number(duration(part)) for part in cost)] for label, cost in found.items()]
    return table(['time taken', 'training', 'evaluation'], rows)
