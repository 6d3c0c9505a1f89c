"""Trains micro versions of configs in a process of its own: `python -m tests.micro_run BUNDLES
WORKDIR TASK... [field=value ...]`.
"""

import ast
import pathlib
import sys

from re2pix_jax import tasks
from re2pix_jax.data import loader
from re2pix_jax.training import loop
from tests.conftest import load_config, shrink


def main(bundles, workdir, *arguments):
    overrides = dict(argument.split('=') for argument in arguments if '=' in argument)
    for name in (argument for argument in arguments if '=' not in argument):
        config = shrink(
            load_config(name),
            pathlib.Path(bundles),
            **{field: ast.literal_eval(value) for field, value in overrides.items()},
        )
        task = tasks.create(config)
        loop.train(
            task,
            config,
            f'{workdir}/{name}',
            loader.create(config.data, config.batch_size, config.seed),
        )


if __name__ == '__main__':
    main(*sys.argv[1:])
