"""What a study evaluates: the checkpoints of every row's runs, alike, and once each.

A study's folder holds runs/ROW/SEED (workdirs of `re2pix train`) and, for each checkpoint and way
of using it, evaluations/*.json and beside it *.npz, the features that the Fréchet distances of its
clips are made of.
"""

import io
import json
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from re2pix_jax import bundles, files
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out
from re2pix_jax.progress import counted
from re2pix_jax.training import checkpoint, writer

OWN = ('re2pix', 'oracle')
"""Methods that differ from run to run: what a row predicts, and what it would with stage 1's
forecast replaced by the truth (of config.oracle_seeds runs of a row).
"""
REFERENCES = ('copy_last', 'vae')
"""Methods that are the same for all runs."""


class Point(NamedTuple):
    """One evaluation.

    Attributes:
        label, seed, step: of the row and its run.
        final: whether `step` is the run's last.
        report: as `Report.to_dict` makes it; features: its `kept`; seconds: that it took.
        trained: seconds that its run took to train; 0 but for the last of a row of its own.
    """

    label: str
    seed: str
    step: int
    final: bool
    report: dict
    features: dict
    seconds: float = 0.0
    trained: float = 0.0

    @property
    def clips(self) -> int:
        return self.report['protocol']['clips']


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
    jobs = list(_jobs(folder, config, note))
    if not jobs:
        raise UserError(
            f'{folder}/runs holds no run of the rows '
            f'{", ".join(sorted({row.run for row in rows(config).values()}))}: train them first, '
            'as launch/study.sh does'
        )
    _check_equal_steps(jobs)
    points, networks = [], _networks(config.evaluation.evals)
    for number, (label, workdir, step, final, settings) in enumerate(jobs, 1):
        name = f'{label}-{workdir.name}-{step}{"" if final else "-curve"}.json'.replace(
            ', ', '-'
        ).replace(' ', '_')
        path = out / 'evaluations' / name
        of = {'run': _identity(workdir, step), 'networks': networks}
        stored = _known(path, settings, of)
        if stored is None:
            note(
                f'{number}/{len(jobs)}: {label}, seed {workdir.name}, step {step}, '
                f'{counted(settings["clips"], "clip")}'
            )
            began = time.monotonic()
            model = open_model(str(workdir), step)
            (report,) = held_out.measure(model, settings, keep=final)[0].values()
            stored = of | {
                'settings': checkpoint.plain(settings),
                'report': report.to_dict(),
                'seconds': time.monotonic() - began,
            }
            # The features first: with the report the evaluation is there, whole.
            if report.kept:
                files.write_bytes(path.with_suffix('.npz'), _packed(report.kept))
            files.write_text(path, json.dumps(stored, allow_nan=False) + '\n')
        points.append(
            Point(
                label,
                workdir.name,
                step,
                final,
                stored['report'],
                _features(path.with_suffix('.npz')) if final else {},
                stored['seconds'],
                trained(workdir) if final and not changes_of(rows(config)[label]) else 0.0,
            )
        )
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


def runs(folder, row, note=lambda line: None) -> list[tuple[pathlib.Path, list[int]]]:
    """(workdir, steps of its checkpoints) of each seed's run of a row, those that have not come to
    their end left out.
    """
    workdirs = sorted(
        path for path in (pathlib.Path(folder) / 'runs' / row.run).glob('*') if path.is_dir()
    )
    found = []
    for workdir in workdirs:
        checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
        if steps := checkpoints.steps():
            goal = checkpoints.meta(steps[-1])['config']['steps']
            if steps[-1] >= goal:
                found.append((workdir, steps))
            else:
                note(f'left out: {workdir} is at step {steps[-1]} of {goal}')
    return found[: row.get('seeds')]


def changes_of(row) -> dict:
    """What of the evaluation a row changes."""
    return {name: value for name, value in row.items() if name not in ('run', 'seeds')}


def _jobs(folder, config, note):
    """Yields (label, workdir, step, whether it is the last, settings). Only the first run of all is
    beside the references, which are the same for each.
    """
    references = True
    for label, row in rows(config).items():
        for index, (workdir, steps) in enumerate(runs(folder, row, note)):
            few = {'clips': config.curve.clips, 'horizon': config.horizons[0]}
            curve = steps if index < config.curve.seeds and not changes_of(row) else ()
            for step, final, changes in [
                *((step, False, few) for step in curve),
                (steps[-1], True, {}),
            ]:
                settings = config.evaluation.copy_and_resolve_references()
                methods = OWN if index < config.oracle_seeds else OWN[:1]
                methods += REFERENCES if references else ()
                settings.update(changes | changes_of(row) | {'methods': methods})
                yield label, workdir, step, final, settings
            references = False


def _check_equal_steps(jobs):
    ends = {workdir: step for _, workdir, step, final, _ in jobs if final}
    longest = max(ends.values())
    if short := [f'{workdir} at step {step}' for workdir, step in ends.items() if step < longest]:
        raise UserError(
            f'{", ".join(short)}, and others at {longest}: rows are compared after equal steps; '
            'train on by the same command, or move them away'
        )


def _identity(workdir, step) -> dict:
    """What tells a run from another in the same folder: its config, the bundles it used, and what
    it has learned.
    """
    checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
    meta = checkpoints.meta(step)
    head = meta['config']['frozen'].get('head')
    return {
        'config': meta['config_sha256'],
        'bundles': meta['bundles'],
        'head': bundles.digest(head) if head else None,
        'state': checkpoints.digest(step),
    }


def _networks(evals) -> dict:
    """{eval.option: the identity of the head or network that it names, None of one that is not
    there}.
    """
    found = {}
    for name, settings in evals.items():
        for option in ('head', 'network'):
            if path := settings.get(option):
                try:
                    found[f'{name}.{option}'] = bundles.digest(path)
                except UserError:  # the evaluation says what of it is left out, or refuses it
                    found[f'{name}.{option}'] = None
    return found


def _known(path, settings, of):
    """What lies at `path`, if it is of this run and these networks and was made with the same
    settings; one of more methods serves where fewer are asked for.
    """
    if not path.is_file():
        return None
    stored, asked = json.loads(path.read_text()), checkpoint.plain(settings)
    same = {name: stored.get(name) for name in of} == checkpoint.plain(of)
    methods = stored['settings']['methods']
    fits = set(asked['methods']) <= set(methods)
    return stored if same and fits and stored['settings'] == asked | {'methods': methods} else None


def _packed(arrays: dict) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _features(path) -> dict:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def trained(workdir) -> float:
    """Seconds of the steps that timing.jsonl tells of; those before an interruption count once."""
    path, seconds, before = workdir / writer.TIMING, 0.0, 0
    lines = path.read_text().splitlines() if path.is_file() else ()
    for row in map(json.loads, lines):
        seconds += (row['step'] - before) / row['steps_per_second']
        before = row['step']
    return seconds
