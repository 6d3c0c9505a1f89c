r"""The study of the paper's table: one generator, trained on in several ways, each one thing apart.

    re2pix train --config=study_train:full --workdir=runs/study/runs/full/0 \
        --config.init=runs/study/starts/shared \
        --config.frozen.forecaster=tiny/forecaster --config.frozen.vae=tiny/vae \
        --config.frozen.head=tiny/head

A row by itself is of size tiny; study_train:full-small is of another. `bash launch/study.sh` trains
all rows with all seeds and makes the tables, of the last checkpoint of each run. Curves, where
study_evaluate's curve.seeds asks for some, have a point for each checkpoint that is kept: of tiny
five over the run; small and base save every 500 steps and keep two, or all with --config.keep=1000.

All rows start from the generator that `shared` trains, without features, and so without anything
in which they differ; a row with features adds their embedding, at zero. `baseline_large` is of
other shapes and starts from `shared_large`, which has as many steps. [O] All rows have the steps,
batches and optimiser of the same base, patches of 2 (the features' own grid, nothing is pooled
[P]), and nested dropout over 8, 16, 24, ... unless that is what differs.
"""

import pathlib
import runpy

from re2pix_jax.errors import UserError

ROWS = {
    'shared': {'model.components': 0},
    'shared_large': {'model.components': 0},  # and wider, see below
    'full': {},
    'truth_only': {'loss.predicted_fraction': 0.0},
    'predicted_only': {'loss.predicted_fraction': 1.0},
    'no_nested_dropout': {'loss.nested_dropout': False},
    'full_doublings': {'loss.nested_counts': 'doublings'},
    'final_tenth_undropped': {'loss.nested_share': 0.9},
    'baseline': {'model.components': 0},
    'baseline_large': {'model.components': 0},  # and wider, too
}
SHARED_STEPS, STEPS = 500, 200
POINTS = 5  # checkpoints of a run that become points of its curve

_generator = runpy.run_path(str(pathlib.Path(__file__).with_name('generator.py')))['get_config']


def get_config(row='full'):
    row, _, size = row.partition('-')
    size = size or 'tiny'
    if row not in ROWS:
        raise UserError(
            f'study row {row!r}: expected one of {", ".join(ROWS)}, as in --config=study_train:full'
        )
    large = row.endswith('_large')  # at least the parameters of generator and forecaster
    config = _generator(f'{size}-baseline-large' if large else size)
    if size == 'tiny':  # many runs on two cores
        config.steps = SHARED_STEPS if row.startswith('shared') else STEPS
        config.optimizer.warmup_steps = 50
        # also where the command line changes the steps
        config.checkpoint_every = config.get_ref('steps') // POINTS
        config.keep = POINTS
    config.loss.nested_counts = 'multiples'
    config.update_from_flattened_dict(ROWS[row])
    return config
