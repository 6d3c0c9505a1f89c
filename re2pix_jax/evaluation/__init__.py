"""The one evaluation, run by train, evaluate, study and predict alike.

`open(config.evals, data, ...)` gives an `Evaluation`, whose `run(part)` gives a `Report`: a number
for each method and column. What is measured is a file each in `evaluators/`.
"""

from re2pix_jax.evaluation.results import Report
from re2pix_jax.evaluation.runner import Evaluation

open = Evaluation  # the name by which others ask: evaluation.open(...)

__all__ = ['Evaluation', 'Report', 'open']
