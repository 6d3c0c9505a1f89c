r"""Measures a model on held-out clips, every stage by itself and the predicted frames step by step.

    python -m re2pix_jax.evaluate --config=configs/evaluate.py --workdir=runs/evaluate
    python -m re2pix_jax.evaluate --config=configs/evaluate.py \
        --config.model=runs/bundles/re2pix --config.clips=64 --workdir=runs/evaluate

Prints tables and writes metrics.json and metrics.txt to --workdir.
"""

import json

from absl import flags

from re2pix_jax import cli, evaluation, prediction, weights

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'folder to write to', required=True)


def main(argv):
    config = CONFIG.value
    with prediction.staged(WORKDIR.value) as folder:
        model = weights.load(config.model, kind=('re2pix', 'forecaster'))
        report = {'model': config.model} | evaluation.evaluate(model, config)
        text = evaluation.describe(report)
        (folder / 'metrics.json').write_text(json.dumps(report, indent=2, allow_nan=False) + '\n')
        (folder / 'metrics.txt').write_text(text + '\n')
    print(text)
    print(f'written to {WORKDIR.value}: metrics.json, metrics.txt')


if __name__ == '__main__':
    cli.run(main, arguments=())
