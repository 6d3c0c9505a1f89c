"""What the study's runs are judged by, and which rows its table has; the command is in
launch/study.sh.
"""

import pathlib
import runpy

from ml_collections import ConfigDict

_evaluate = runpy.run_path(str(pathlib.Path(__file__).with_name('evaluate.py')))['get_config']


def get_config():
    config = ConfigDict()
    # Of the last checkpoint; `model` is each run's own, and `methods` are those that differ.
    config.evaluation = _evaluate()
    # As many frames as the longest horizon. 128 clips: a Fréchet distance of 64 dimensions takes
    # more than as many. Heun in 5 steps, 9 evaluations of the generator: there are many runs.
    config.evaluation.update(clips=128, horizon=16, sampler='heun', sampler_steps=5)
    for name in ('probe', 'depth', 'reconstruction'):
        del config.evaluation.evals[name]
    config.horizons = (4, 16)  # future frames that the tables and findings are over
    config.bootstrap = 200  # draws of clips and seeds that intervals are made of
    config.oracle_seeds = 1  # how many seeds' runs are given the true features, too
    config.curve = ConfigDict(
        {
            # of an evaluation of the checkpoints before the last, at the first horizon
            'clips': 64,
            'seeds': 0,  # how many seeds' runs have a curve; 0 = none
        }
    )
    # What the page shows as every row continues it.
    config.sheets = ConfigDict({'clips': 3, 'horizon': 8})
    config.only = ()  # labels of the rows below that the table has; () = all
    # label → the run that is evaluated, of how many seeds (without: all), and what of `evaluation`
    # is changed.
    config.rows = ConfigDict(
        {
            'full': {'run': 'full'},
            'truth_only': {'run': 'truth_only'},
            'predicted_only': {'run': 'predicted_only'},
            'no_nested_dropout': {'run': 'no_nested_dropout'},
            'full_doublings': {'run': 'full_doublings'},
            'final_tenth_undropped': {'run': 'final_tenth_undropped'},
            'baseline': {'run': 'baseline'},
            'baseline_large': {'run': 'baseline_large'},
            'full, 8 channels': {'run': 'full', 'seeds': 1, 'channels': 8},
            'full, guided': {'run': 'full', 'seeds': 1, 'guidance': 0.4},
        }
    )
    return config
