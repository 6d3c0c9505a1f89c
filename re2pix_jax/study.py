"""Evaluates the runs of a study and makes its tables, curves and page; what is evaluated already is not evaluated again.

Example:
  python -m re2pix_jax.study --config=configs/study_evaluate.py --workdir=runs/study

The workdir holds runs/ROW/SEED, as launch/study.sh trains them; it gets evaluations/, study.txt, study.json, curves/*.png and
study.html.
"""

from re2pix_jax import cli  # first: it quietens what the native libraries print while they load

# isort: split
import pathlib

from absl import flags

from re2pix_jax.evaluation import study, study_sheets
from re2pix_jax.report import study as report

_CONFIG = cli.config_flag()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the study.', required=True)


def main(argv):
    del argv
    folder = pathlib.Path(_WORKDIR.value)
    points = study.evaluate(folder, _CONFIG.value, note=lambda line: print(line, flush=True))
    print(report.write(folder, points, study_sheets.draw(folder, _CONFIG.value)))
    print(f'written to {folder}: study.txt, study.json, curves, study.html')


if __name__ == '__main__':
    cli.run(main, arguments=())
