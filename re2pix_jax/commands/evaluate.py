r"""Evaluates on held-out clips: a model step by step, or stage 1 by its protocol.

    re2pix evaluate --config=evaluate --workdir=runs/evaluate
    re2pix evaluate --config=evaluate --config.model=runs/bundles/re2pix --config.clips=64 \
        --workdir=runs/evaluate
    re2pix evaluate --config=eval_forecaster --workdir=runs/eval_forecaster

Prints tables and writes metrics.json and metrics.txt to --workdir; of stage 1 also pictures.html.
"""

import json

import jax
from absl import flags

from re2pix_jax import bundles
from re2pix_jax.commands import cli
from re2pix_jax.evaluation import forecaster, model, prediction
from re2pix_jax.report import page
from re2pix_jax.training import mesh

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'folder to write to', required=True)


def main(argv):
    config = CONFIG.value
    mesh.initialize_processes()
    if jax.process_index():  # the others take part and write nothing
        _evaluate(config)
        return
    with prediction.staged(WORKDIR.value) as folder:
        report, text, sheets = _evaluate(config)
        (folder / 'metrics.json').write_text(json.dumps(report, indent=2, allow_nan=False) + '\n')
        (folder / 'metrics.txt').write_text(text + '\n')
        if sheets:
            page.write(folder / 'pictures.html', f'Stage 1: {config.model}', text, sheets)
    print(text)
    print(
        f'written to {WORKDIR.value}: metrics.json, '
        f'metrics.txt{", pictures.html" if sheets else ""}'
    )


def _evaluate(config):
    """(report, its text, captioned pictures)"""
    bundle = bundles.load(config.model, kind=('re2pix', 'forecaster'))
    if 'terms' not in config:
        report = {'model': config.model} | model.evaluate(bundle, config)
        return report, model.describe(report), []
    bundle = getattr(bundle, 'forecaster', bundle)
    heads = {name: bundles.load(path, 'head') for name, path in config.heads.items() if path}
    report, pictures = forecaster.evaluate(bundle, heads, config)
    report = {'model': config.model} | report
    return (
        report,
        forecaster.describe(report),
        [forecaster.sheet(picture, term) for term in pictures for picture in pictures[term]],
    )
