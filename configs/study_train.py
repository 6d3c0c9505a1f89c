r"""The study of the paper's table: one generator, trained in six ways, each one thing apart.

    re2pix train --config=study_train:full --workdir=runs/study/runs/full/0 \
        --config.frozen.forecaster=tiny/forecaster --config.frozen.vae=tiny/vae \
        --config.frozen.head=tiny/head

A row by itself is of size tiny; study_train:full-small is of another. `bash launch/study.sh` trains
all rows with all seeds and makes the tables. All rows have the steps, batches and optimiser of the
same base, and nested dropout unless it is what is left out.
"""

import pathlib
import runpy

from re2pix_jax.errors import UserError

ROWS = {
    'baseline': {'model.components': 0},
    'baseline_large': {'model.components': 0},  # and wider, see below
    'truth_only': {'loss.predicted_fraction': 0.0},
    'predicted_only': {'loss.predicted_fraction': 1.0},
    'no_nested_dropout': {'loss.nested_dropout': False},
    'full': {},
}
POINTS = 5  # checkpoints of a run that become points of its curve

_generator = runpy.run_path(str(pathlib.Path(__file__).with_name('generator.py')))['get_config']


def get_config(row='full'):
    row, _, size = row.partition('-')
    size = size or 'tiny'
    if row not in ROWS:
        raise UserError(
            f'study row {row!r}: expected one of {", ".join(ROWS)}, as in --config=study_train:full'
        )
    large = row == 'baseline_large'  # at least the parameters of generator and forecaster
    config = _generator(f'{size}-baseline-large' if large else size)
    if (
        size == 'tiny'
    ):  # many runs on two cores: a smaller network, and fewer steps, than the shipped bundle's
        config.model.update(patch_size=4, width=192 if large else 144, depth=5 if large else 3)
        config.steps = 400
    config.optimizer.warmup_steps = 50
    config.update_from_flattened_dict(ROWS[row])
    config.checkpoint_every = (
        config.get_ref('steps') // POINTS
    )  # also where the command line changes the steps
    config.keep = POINTS
    return config
