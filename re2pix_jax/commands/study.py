r"""Evaluates the runs of a study and makes its tables, curves and page.

    re2pix study --config=study_evaluate --workdir=runs/study
    re2pix study --config=study_evaluate --workdir=runs/study --out=runs/study_16 \
        --config.evaluation.source=records:data/world_long --config.evaluation.horizon=16

The workdir holds runs/ROW/SEED, as launch/study.sh trains them; it gets evaluations/, runs.txt,
runs.json, curves/*.png and runs.html. What is evaluated already is not evaluated again. With --out
another folder gets them, as for an evaluation over longer futures.
"""

from re2pix_jax.commands import (
    cli,
)  # first: it quietens what the native libraries print while they load

# isort: split
import pathlib

from absl import flags

from re2pix_jax.evaluation.study import page as report
from re2pix_jax.evaluation.study import runs, sheets

_CONFIG = cli.config_flag()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the study.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Folder of what is written; unset: the workdir.')


def main(argv):
    del argv
    folder, out = pathlib.Path(_WORKDIR.value), pathlib.Path(_OUT.value or _WORKDIR.value)
    points = runs.evaluate(
        folder, _CONFIG.value, note=lambda line: print(line, flush=True), out=out
    )
    print(report.write(out, points, sheets.draw(folder, _CONFIG.value)))
    print(f'written to {out}: runs.txt, runs.json, curves, runs.html')
