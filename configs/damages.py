"""How measures of video rank damages whose order is known; the command is

    re2pix damages --config=damages

About six minutes on 2 cores; what it prints of the shipped judge is in configs/README.md.
"""

import pathlib
import runpy

_evaluate = runpy.run_path(str(pathlib.Path(__file__).with_name('evaluate.py')))['get_config']


def get_config():
    config = _evaluate()
    config.kind = 'forecaster'  # `model` is only asked for the components of its encoder
    config.evals = {
        name: config.evals[name] for name in ('frechet_judge', 'frechet_random3d', 'video')
    }
    return config
