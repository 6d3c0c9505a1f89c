r"""Evaluates the runs of a study and makes its tables, curves and page.

    re2pix study --config=study_evaluate --workdir=runs/study

The workdir holds runs/ROW/SEED and shared/NAME, what they start from, as launch/study.sh trains
them; it gets evaluations/, study.txt, study.json, curves/*.png and study.html. What is evaluated
already is not evaluated again. With --out another folder gets them, as for an evaluation over
longer futures:

    re2pix study --config=study_evaluate --workdir=runs/study --out=runs/study_32 \
        --config.evaluation.source=records:data/world_long --config.evaluation.horizon=32 \
        --config.horizons="(16,32)"
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
import pathlib

from absl import flags

from re2pix_jax import tasks
from re2pix_jax.evaluation.study import page, rows, sheets
from re2pix_jax.training import loop

_CONFIG = cli.config_flag()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the study.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder of what is written; unset: the workdir.')


def main(argv):
    del argv
    config, folder = _CONFIG.value, pathlib.Path(_WORKDIR.value)
    _config.check_fields(config, 'study_evaluate', 'rows', 'evaluation', 'horizons')
    out = pathlib.Path(_OUT.value or folder)
    note = lambda line: print(line, flush=True)
    points = rows.evaluate(folder, config, _model, note, out)
    shared = {path.name: rows.trained(path) for path in sorted(folder.glob('shared/*'))}
    shown = sheets.draw(folder, config, _model)
    print(page.write(out, points, config.horizons, config.bootstrap, shown, shared))
    print(f'written to {out}: study.txt, study.json, curves, study.html')


def _model(workdir, step):
    run = loop.open_run(workdir, tasks.create, step)
    return run.task.part(run.state.ema)
