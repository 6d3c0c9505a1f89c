"""Trains what a config describes; the same command goes on from the latest checkpoint.

    re2pix train --config=forecaster:tiny --workdir=runs/forecaster --config.steps=100

The workdir gets checkpoints/, log.jsonl (one row of numbers each config.log_every steps),
timing.jsonl (how fast they went), tensorboard/ and config.json; it may lie in a bucket, as
--workdir=gs://BUCKET/runs/forecaster, and is one for all processes.
--config.log.writers="('wandb',)" or "('mlflow',)" shows the run there, --config.log.pictures=4 with
clips of eval_data at each evaluation. --config.profile.steps="(10,15)" leaves a trace of these
steps in profile/. SIGTERM, or the first Ctrl-C, finishes the step, saves and ends with status 143.
A batch is shared out evenly over all devices; --fill_devices makes it as large as that needs.
Several processes: set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID for each, or
RE2PIX_DISTRIBUTED=1 where the cluster describes itself. Status 75: killed, or another process is
gone; the same command goes on, and --restarts=N gives it again by itself.
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
import contextlib
import sys

import jax
from absl import flags

from re2pix_jax import evaluation, tasks
from re2pix_jax.data import loader
from re2pix_jax.evaluation import pictures
from re2pix_jax.training import checkpoint, defaults, loop, mesh

_CONFIG = cli.config_flag()
flags.declare_key_flag('restarts')
_FILL = flags.DEFINE_bool(
    'fill_devices', False, 'Rounds config.batch_size up to what all devices share out evenly.'
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)

REMOTE = ('workdir',)
CHECKS = {'workdir': checkpoint.check_place}
GOES_ON = True


def main(argv):
    del argv
    config = _CONFIG.value
    _config.check_fields(config, 'generator:tiny', 'task', 'model', 'optimizer')
    defaults.check(config)
    mesh.initialize_processes()
    devices = mesh.create(**mesh.sizes(config))
    if _FILL.value:
        given = config.batch_size
        config.batch_size = mesh.filled(given, devices, config.accumulate)
        if config.batch_size > given and not jax.process_index():
            told = f'batch_size is {config.batch_size}, not {given}'
            print(f'{told}: as many clips on each device', file=sys.stderr)
    task = tasks.create(config)
    with contextlib.ExitStack() as stack:
        opened = lambda closable: stack.enter_context(contextlib.closing(closable))
        share = mesh.share(devices)
        data = opened(loader.create(config.data, config.batch_size, config.seed, share=share))
        task.check_data(data.encoded_by(), data.depth_kinds())
        for name, enlarged in data.enlarged.items():
            if enlarged and not jax.process_index():
                print(f'{name}: data.crop enlarges {enlarged:.0%} of the windows', file=sys.stderr)
        evaluate = None
        if config.evals and config.eval_every:
            clips = defaults.evaluated(config)
            measured = opened(
                evaluation.open(config.evals, clips, config.batch_size, config.seed, mesh=devices)
            )
            measured.check(task.judged(task.shapes))
            for evaluator in measured.evaluators:
                if evaluator.left_out and not jax.process_index():
                    print(f'evaluation leaves out: {evaluator.left_out}', file=sys.stderr)
            evaluate = lambda variables: measured.run(task.judged(variables)).scalars()
            evaluate.about = measured.about
            evaluate.pictures = lambda variables: pictures.of_training(
                task.judged(variables), measured, config.log.pictures
            )
        state = loop.train(task, config, _WORKDIR.value, data, evaluate)
    return 0 if int(state.step) >= config.steps else 143
