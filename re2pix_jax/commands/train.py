"""Trains what a config describes; the same command goes on from the latest checkpoint.

Example:
  python -m re2pix_jax train --config=configs/forecaster.py:tiny --workdir=runs/forecaster \
      --config.steps=100

The workdir gets checkpoints/, log.jsonl (one row of numbers each config.log_every steps),
tensorboard/ and config.json.
SIGTERM finishes the step, saves and ends with status 143. Several processes: set
    JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID for each, or RE2PIX_DISTRIBUTED=1 where the cluster describes
itself.
"""

from re2pix_jax.commands import (
    cli,
)  # first: it quietens what the native libraries print while they load

# isort: split
import contextlib

from absl import flags

from re2pix_jax import tasks
from re2pix_jax.data import loader
from re2pix_jax.training import loop, mesh

_CONFIG = cli.config_flag()
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)


def main(argv):
    del argv
    config = _CONFIG.value
    mesh.initialize_processes()
    task = tasks.create(config)

    def make_data(settings, training):
        data = loader.create(settings, config.batch_size, config.seed, training)
        task.check_data(data.encoded_by())
        return data

    def make_eval_data():
        return make_data(config.eval_data, training=False)

    with contextlib.closing(make_data(config.data, training=True)) as train_data:
        state = loop.train(task, config, _WORKDIR.value, train_data, make_eval_data)
    return 0 if int(state.step) >= config.steps else 143
