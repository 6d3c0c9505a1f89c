"""What the study's runs are judged by, and which rows its table has; the command is in
launch/study.sh.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

_evaluate = runpy.run_path(str(pathlib.Path(__file__).with_name('evaluate.py')))['get_config']


def get_config():
    config = ConfigDict()
    config.evaluation = _evaluate()  # of the last checkpoint; `model` is each run's own
    # 160 clips: a Fréchet distance of 128 dimensions takes more than as many. Half of the usual
    # sampler steps: there are many runs.
    config.evaluation.update(clips=160, sampler_steps=10)
    for name in ('probe', 'depth', 'reconstruction'):
        del config.evaluation.evals[name]
    config.curve = ConfigDict(
        {
            'clips': 64,  # of an evaluation of the checkpoints before the last
            'seeds': 1,  # how many seeds' runs have a curve; 0 = none
        }
    )
    config.sheets = ConfigDict({'clips': 3})  # that the page shows as every row continues them
    config.only = ()  # labels of the rows below that the table has; () = all
    # label → the run that is evaluated, and what of `evaluation` is changed.
    config.rows = ConfigDict(
        {
            'baseline': {'run': 'baseline'},
            'baseline_large': {'run': 'baseline_large'},
            'truth_only': {'run': 'truth_only'},
            'predicted_only': {'run': 'predicted_only'},
            'no_nested_dropout': {'run': 'no_nested_dropout'},
            'full': {'run': 'full'},
            'full, 8 channels': {'run': 'full', 'channels': 8},
            'full, guided': {'run': 'full', 'guidance': 0.4},
        }
    )
    return config
