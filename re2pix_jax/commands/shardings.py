r"""Shows how a config's network would lie on devices, none of which need be there.

    re2pix shardings --config=generator:base --devices=8 --config.mesh.fsdp=4 \
        --config.mesh.tensor=2

Every parameter, the axes that are cut, and the bytes on each device.
"""

from re2pix_jax.commands import (
    _config,
    cli,
)  # first: it quietens what the native libraries print while they load

# isort: split
from absl import flags

from re2pix_jax import tasks
from re2pix_jax.training import defaults, mesh, resume, sharding

_CONFIG = cli.config_flag()
_DEVICES = flags.DEFINE_integer('devices', 8, 'How many devices.', lower_bound=1)


def main(argv):
    del argv
    config = _CONFIG.value
    _config.check_fields(config, 'generator', 'task', 'model')
    defaults.check(config)
    needs_parts = config.task == 'head'  # its input is as wide as its encoder's features
    task = tasks.create(config, load=needs_parts)
    devices = mesh.abstract(_DEVICES.value, **mesh.sizes(config))
    placed = resume.place(task, task.shapes['params'], devices)
    print(sharding.describe(placed, moments=1 if config.optimizer.name == 'muon' else 2))
