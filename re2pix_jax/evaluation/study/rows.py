"""What a study evaluates: the checkpoints of every row's runs, alike, and once each.

A study's folder holds runs/ROW/SEED (workdirs of `re2pix train`) and evaluations/*.json, one a
checkpoint and way of using it.
"""

import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from re2pix_jax import files
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out
from re2pix_jax.training import checkpoint


class Point(NamedTuple):
    """One evaluation."""

    label: str
    seed: str
    step: int
    clips: int
    final: bool
    report: dict


def evaluate(folder, config, open_model: Callable, note=print, out=None) -> list[Point]:
    """Evaluates what has not been evaluated yet of the runs in `folder`; returns all of it.

    Args:
        folder: of the study.
        config: as configs/study_evaluate.py makes it.
        open_model: (workdir, step) -> the model that a checkpoint holds.
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
        run = _identity(workdir, step)
        report = _known(path, settings, run)
        if report is None:
            note(
                f'{number}/{len(jobs)}: {label}, seed {workdir.name}, step {step}, '
                f'{settings["clips"]} clips'
            )
            reports, _ = held_out.evaluate(open_model(str(workdir), step), settings)
            (report,) = reports.values()
            stored = {'settings': checkpoint.plain(settings), 'run': run, 'report': report}
            files.write_text(path, json.dumps(stored, allow_nan=False) + '\n')
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
                settings.update(
                    changes | changes_of(row) | {'methods': () if references else ('re2pix',)}
                )
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


def _identity(workdir, step) -> dict:
    """What tells a run from another in the same folder: its config and the bundles it used."""
    meta = checkpoint.Checkpoints(workdir, read_only=True).meta(step)
    return {'config': meta['config_sha256'], 'bundles': meta['bundles']}


def _known(path, settings, run):
    """The report that lies at `path`, if it is of this run and was made with the same settings; one
    of all methods serves where fewer are asked for.
    """
    if not path.is_file():
        return None
    stored, asked = json.loads(path.read_text()), json.loads(json.dumps(checkpoint.plain(settings)))
    if stored.get('run') != json.loads(json.dumps(run)):
        return None
    methods = stored['settings']['methods'] and asked['methods']
    return stored['report'] if stored['settings'] == asked | {'methods': methods} else None
