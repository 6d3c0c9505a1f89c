r"""Prints what samplers make of held-out clips, and for how much work.

    re2pix samplers --config=samplers
    re2pix samplers --config=samplers --config.rows="(('euler',50,'even'),('heun',9,'shifted:2'))"

A row of config.rows is a sampler, its steps and the grid of its times.
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
from re2pix_jax import bundles
from re2pix_jax.evaluation import samplers

_CONFIG = cli.config_flag()


def main(argv):
    del argv
    config = _CONFIG.value
    _config.check_fields(config, 'samplers', 'rows', 'model')
    print(samplers.table_of(bundles.load(config.model, 're2pix'), config))
