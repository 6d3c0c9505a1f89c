r"""Measures the measures of video by damages whose order is known.

    re2pix damages --config=damages
    re2pix damages --config=damages --config.evals.frechet_judge.network=runs/bundles/judge

Damages held-out clips in seven ways and four strengths each, and prints how far every measure of
config.evals finds them from the true ones, and whether it rises with each strength.
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
from re2pix_jax import bundles
from re2pix_jax.evaluation import damages

_CONFIG = cli.config_flag()


def main(argv):
    del argv
    config = _CONFIG.value
    _config.check_fields(config, 'damages', 'kind', 'model', 'evals')
    part = bundles.load(config.model, config.kind or ('re2pix', 'forecaster'))
    rows, about = damages.measure(part, config)
    print(f'{about}\n\n{damages.describe(rows)}')
