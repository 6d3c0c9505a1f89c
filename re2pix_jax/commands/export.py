"""Turns a checkpoint of a run into a bundle, the folder that people share.

    re2pix export --workdir=runs/forecaster --out=bundles/forecaster

The latest checkpoint, or that of --step. re2pix_jax.load opens the bundle.
"""

import contextlib
import os

from absl import flags

from re2pix_jax import bundles, tasks
from re2pix_jax.data import loader
from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults, loop

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_OUT = flags.DEFINE_string('out', None, 'Bundle folder to write.', required=True)
_STEP = flags.DEFINE_integer(
    'step', None, 'Step of the checkpoint; the latest without it.', lower_bound=0
)
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Precision of the tensors in the files.'
)
_CARD = flags.DEFINE_string(
    'card', None, 'Text file that becomes MODEL_CARD.md; a short one is made without it.'
)
_EMA = flags.DEFINE_bool(
    'ema', True, 'Export the running average of the parameters rather than the last ones.'
)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace a bundle of the same kind at --out.')

REMOTE = ('workdir', 'out')


def main(argv):
    del argv
    card = ''
    if _CARD.value:
        if not os.path.isfile(_CARD.value):
            raise UserError(f'--card={_CARD.value}: no such file; give the text of the model card')
        with open(_CARD.value, encoding='utf-8') as file:
            card = file.read()
    run = loop.open_run(_WORKDIR.value, tasks.create, _STEP.value)
    config, task = run.config, run.task
    bundles.check_place(_OUT.value, task.kind, _OVERWRITE.value)
    variables = run.state.ema if _EMA.value else run.state.variables
    saving = {'storage': _STORAGE.value, 'card': card, 'overwrite': _OVERWRITE.value}
    with contextlib.ExitStack() as stack:
        batches = None
        if task.measured:
            clips = defaults.evaluated(config)
            batches = loader.create(clips, config.batch_size, config.seed, training=False)
            stack.enter_context(contextlib.closing(batches))
        task.save(variables, _OUT.value, batches, **saving)
    print(f'{_OUT.value}: step {int(run.state.step)} of {_WORKDIR.value}')
