"""What a study's evaluations say over seeds, by row, by time and over training: mean and sample
standard deviation.
"""

from typing import NamedTuple

import numpy as np

from re2pix_jax.evaluation.evaluators import COLUMNS, Frechet
from re2pix_jax.evaluation.study import intervals

SHOWN = (
    'miou',
    'moving_miou',
    'fvd',
    'frechet_judge',
    'frechet_random3d',
    'frechet_video',
    'fid',
    'frechet_frames',
    'sharpness',
    'motion',
    'feature_error',
    'psnr',
)
"""Columns of a study's table, where its evaluations have them."""

WAYS = {'re2pix': 'forecast', 'oracle': 'oracle'}
"""Methods that differ from run to run, and what they are called: after the features that stage 2
is given.
"""

REFERENCES = {'copy_last': 'copy-last', 'vae': 'VAE of the truth'}
"""Methods that are the same for all runs, and what they are called."""

OF_SETS = {column.name for column in Frechet.COLUMNS}


def read(name: str, point, method: str, horizon: int) -> float | None:
    """The number of a column over the first `horizon` future frames, as it is shown: of the set of
    them all for distances, else the mean over those that have one; None where the evaluation has
    none.
    """
    if name in OF_SETS:
        value = _distance(name, point, method, horizon)
    else:
        steps = point.report['steps'][:horizon]
        values = [step.get(method, {}).get(name) for step in steps]
        known = [value for value in values if value is not None]
        value = float(np.mean(known)) if known else None
    return None if value is None else COLUMNS[name].scale * value


def _distance(name, point, method, horizon):
    found = intervals.of_point(name, point, method, horizon)
    if found is not None:
        return float(intervals.distances(*found, np.ones((1, len(found[0]))))[0])
    complete = point.report['protocol']['horizon'] == horizon
    return point.report['overall'].get(method, {}).get(name) if complete else None


def read_by_time(name: str, report: dict, method: str) -> dict[float, float]:
    """{seconds: the number of a column at that future frame}, of the frames that have one."""
    fps = report['protocol']['fps']
    values = {
        number / fps: step.get(method, {}).get(name)
        for number, step in enumerate(report['steps'], 1)
    }
    return {s: COLUMNS[name].scale * value for s, value in values.items() if value is not None}


class Cell(NamedTuple):
    """A number over seeds; `spread` is None for a single one."""

    mean: float
    spread: float | None
    count: int


def summarise(points, horizon: int) -> dict[str, dict[str, dict[str, Cell]]]:
    """{label: {way: {metric: Cell}}} over the first `horizon` future frames, of the last
    checkpoints, and of copy-last and the VAE, which are the same for all runs: ways are 'forecast',
    'oracle', and '' of the two.
    """
    finals = [point for point in points if point.final]
    table = {}
    for label in dict.fromkeys(point.label for point in finals):
        own = [point for point in finals if point.label == label]
        found = {way: _cells(own, method, horizon) for method, way in WAYS.items()}
        table[label] = {way: cells for way, cells in found.items() if cells}
    for method, title in REFERENCES.items():
        table[title] = {'': _cells(finals[:1], method, horizon)}
    return table


def _cells(points, method, horizon):
    cells = {}
    for name in SHOWN:
        values = [read(name, point, method, horizon) for point in points]
        if values := [value for value in values if value is not None]:
            cells[name] = _cell(values)
    return cells


def _cell(values):
    return Cell(
        float(np.mean(values)),
        float(np.std(values, ddof=1)) if len(values) > 1 else None,
        len(values),
    )


def by_time(points, name) -> dict[str, dict[float, Cell]]:
    """{label: {seconds: Cell}} of a metric at the predicted frames that have it, of the last
    checkpoints, copy-last and the VAE.
    """
    finals = [point for point in points if point.final]
    found = {
        label: [
            read_by_time(name, point.report, 're2pix') for point in finals if point.label == label
        ]
        for label in dict.fromkeys(point.label for point in finals)
    }
    found |= {
        title: [read_by_time(name, finals[0].report, method)]
        for method, title in REFERENCES.items()
    }
    return {
        label: {seconds: _cell([values[seconds] for values in seeds]) for seconds in seeds[0]}
        for label, seeds in found.items()
        if seeds[0]
    }


def curves(points, name) -> dict[str, tuple[list[int], list[float]]]:
    """{label: (steps, values)} of a metric over training, of the first seed; empty where no
    checkpoint has it.
    """
    found = {}
    for point in sorted(
        (point for point in points if not point.final), key=lambda point: point.step
    ):
        value = read(name, point, 're2pix', point.report['protocol']['horizon'])
        if value is not None:
            steps, values = found.setdefault(point.label, ([], []))
            steps.append(point.step)
            values.append(value)
    return found


def sooner(found, name, label='full', reference='baseline'):
    """(step at which `label`'s curve is as good as the last point of `reference`'s, how many times
    sooner that is).

    Between two checkpoints the curve is taken as straight. None where a curve is missing or does
    not get there.
    """
    if label not in found or reference not in found:
        return None
    sign = 1 if COLUMNS[name].higher else -1
    (steps, values), (all_steps, goals) = found[label], found[reference]
    gains = sign * (np.asarray(values) - goals[-1])
    if not (gains >= 0).any():
        return None
    first = int(np.argmax(gains >= 0))
    step = (
        float(steps[0])
        if first == 0
        else float(np.interp(0.0, gains[first - 1 : first + 1], steps[first - 1 : first + 1]))
    )
    return step, all_steps[-1] / step
