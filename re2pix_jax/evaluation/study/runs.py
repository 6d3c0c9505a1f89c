"""The study: every run's checkpoints evaluated alike, once each, and what they say about the
paper's findings.

A study's folder holds runs/ROW/SEED (workdirs of re2pix_jax.train) and evaluations/*.json, one a
checkpoint and way of using it.
Numbers are taken over seeds: mean and sample standard deviation.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from re2pix_jax import tasks
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import model
from re2pix_jax.report import page
from re2pix_jax.training import checkpoint, loop

REFERENCES = {'copy_last': 'copy-last', 'vae': 'VAE of the truth'}


class Metric(NamedTuple):
    """A number of an evaluation: where it is, and whether more of it is better."""

    title: str
    place: str  # 'steps': the mean over predicted frames; 'distances': one number for all of them
    higher: bool
    scale: float = 1.0

    def read(self, name, report, method):
        """The number of a method ('re2pix', 'copy_last', 'vae'), None where the evaluation has
        none.
        """
        if self.place == 'distances':
            value = report.get('distances', {}).get(name, {}).get(method)
        else:
            values = [step[method].get(name) for step in report['steps'] if method in step]
            value = None if not values or None in values else float(np.mean(values))
        return None if value is None else self.scale * value

    def read_by_time(self, name, report, method):
        """{seconds: the number of a method at that predicted frame}, of the frames that have
        one.
        """
        values = {step['seconds']: step.get(method, {}).get(name) for step in report['steps']}
        return {
            seconds: self.scale * value for seconds, value in values.items() if value is not None
        }


METRICS = {
    'miou': Metric('mIoU %', 'steps', True, 100),
    'moving_miou': Metric('moving mIoU %', 'steps', True, 100),
    'frechet_video': Metric('Fréchet video', 'distances', False),
    'frechet_frames': Metric('Fréchet frames', 'distances', False),
    'fid': Metric('FID', 'distances', False),
    'fvd': Metric('FVD', 'distances', False),
    'feature_error': Metric('feature error', 'steps', False),
    'psnr': Metric('PSNR dB', 'steps', True),
}


class Point(NamedTuple):
    """One evaluation."""

    label: str
    seed: str
    step: int
    clips: int
    final: bool
    report: dict


def evaluate(folder, config, note=print, out=None) -> list[Point]:
    """Evaluates what has not been evaluated yet of the runs in `folder`; returns all of it.

    Args:
        folder: of the study.
        config: as configs/study_evaluate.py makes it.
        note: takes lines that say how far it is.
        out: folder of the evaluations; None: `folder`.

    Raises:
        UserError: no run of any row is there, one cannot be read, they end at different steps, or
            config.only names a row that there is not.
    """
    folder, out = pathlib.Path(folder), pathlib.Path(out or folder)
    jobs = list(_jobs(folder, config))
    if not jobs:
        raise UserError(
            f'{folder}/runs holds no run of the rows '
            f'{", ".join(sorted({row.run for row in rows(config).values()}))}: '
            'train them first, as launch/study.sh does'
        )
    _check_equal_steps(jobs)
    points = []
    for number, (label, workdir, step, final, settings) in enumerate(jobs, 1):
        name = f'{label}-{workdir.name}-{step}{"" if final else "-curve"}.json'.replace(
            ', ', '-'
        ).replace(' ', '_')
        path = out / 'evaluations' / name
        report = _known(path, settings)
        if report is None:
            note(
                f'{number}/{len(jobs)}: {label}, seed {workdir.name}, step {step}, '
                f'{settings["clips"]} clips'
            )
            report = _evaluate(workdir, step, settings)
            path.parent.mkdir(parents=True, exist_ok=True)
            page.text(
                path,
                json.dumps(
                    {'settings': checkpoint.plain(settings), 'report': report}, allow_nan=False
                )
                + '\n',
            )
        points.append(Point(label, workdir.name, step, report['protocol']['clips'], final, report))
    return points


def rows(config) -> dict:
    """{label: row} of config.rows, only those of config.only where that names any. UserError for a
    label that there is not.
    """
    if unknown := sorted(set(config.only) - set(config.rows)):
        raise UserError(
            f'config.only: there is no row {", ".join(unknown)}; choose among '
            f'{"; ".join(config.rows)}'
        )
    return {
        label: row for label, row in config.rows.items() if not config.only or label in config.only
    }


def runs(folder, row) -> list[tuple[pathlib.Path, list[int]]]:
    """(workdir, steps of its checkpoints) of each seed's run of a row, those without a checkpoint
    left out.
    """
    workdirs = sorted(
        path for path in (pathlib.Path(folder) / 'runs' / row).glob('*') if path.is_dir()
    )
    found = [
        (workdir, checkpoint.Checkpoints(workdir, read_only=True).steps()) for workdir in workdirs
    ]
    return [(workdir, steps) for workdir, steps in found if steps]


def changes_of(row) -> dict:
    """What of the evaluation a row changes."""
    return {name: value for name, value in row.items() if name != 'run'}


def _jobs(folder, config):
    """Yields (label, workdir, step, whether it is the last, settings). Only the first run of all is
    beside the references, which are the same for each.
    """
    references = True
    for label, row in rows(config).items():
        for index, (workdir, steps) in enumerate(runs(folder, row.run)):
            few = {'clips': config.curve.clips}
            curve = steps if index < config.curve.seeds and not changes_of(row) else ()
            for step, final, changes in [
                *((step, False, few) for step in curve),
                (steps[-1], True, {}),
            ]:
                settings = config.evaluation.copy_and_resolve_references()
                settings.update(changes | changes_of(row) | {'references': references})
                yield label, workdir, step, final, settings
            references = False


def _check_equal_steps(jobs):
    ends = {workdir: step for _, workdir, step, final, _ in jobs if final}
    longest = max(ends.values())
    if short := [f'{workdir} at step {step}' for workdir, step in ends.items() if step < longest]:
        raise UserError(
            f'{", ".join(short)}, and others at {longest}: rows are compared after equal steps; '
            'train on by the same '
            'command, or move them away'
        )


def _known(path, settings):
    """The report that lies at `path`, if it was made with the same settings; one with references
    serves where none are asked for.
    """
    if not path.is_file():
        return None
    stored, asked = json.loads(path.read_text()), json.loads(json.dumps(checkpoint.plain(settings)))
    references = stored['settings']['references'] or asked['references']
    return stored['report'] if stored['settings'] == asked | {'references': references} else None


def _evaluate(workdir, step, settings):
    run = loop.open_run(str(workdir), tasks.create, step)
    return model.evaluate(run.task.part(run.state.ema), settings)


class Cell(NamedTuple):
    """A number over seeds; `spread` is None for a single one."""

    mean: float
    spread: float | None
    count: int


def summarise(points) -> dict[str, dict[str, Cell]]:
    """{label: {metric: Cell}} of the last checkpoints, and of copy-last and the VAE, which are the
    same for all runs.
    """
    finals = [point for point in points if point.final]
    table = {}
    for label in dict.fromkeys(point.label for point in finals):
        reports = [point.report for point in finals if point.label == label]
        table[label] = _cells(reports, 're2pix')
    for method, title in REFERENCES.items():
        table[title] = _cells([finals[0].report], method)
    return table


def _cells(reports, method):
    cells = {}
    for name, metric in METRICS.items():
        values = [metric.read(name, report, method) for report in reports]
        if None not in values:
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
    finals, metric = [point for point in points if point.final], METRICS[name]
    found = {
        label: [
            metric.read_by_time(name, point.report, 're2pix')
            for point in finals
            if point.label == label
        ]
        for label in dict.fromkeys(point.label for point in finals)
    }
    found |= {
        title: [metric.read_by_time(name, finals[0].report, method)]
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
        value = METRICS[name].read(name, point.report, 're2pix')
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
    sign = 1 if METRICS[name].higher else -1
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
