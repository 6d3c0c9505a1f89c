r"""Evaluates on held-out clips: a model step by step, or stage 1 by its protocol.

    re2pix evaluate --config=evaluate --workdir=runs/evaluation
    re2pix evaluate --config=evaluate --config.model=runs/bundles/re2pix --config.clips=64 \
        --workdir=runs/evaluation
    re2pix evaluate --config=eval_forecaster --workdir=runs/eval_forecaster

Prints tables and writes metrics.json and metrics.txt to --workdir, and pictures.html where
config.pictures asks for clips.
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
import json

import jax
from absl import flags

from re2pix_jax import bundles, files
from re2pix_jax.evaluation import held_out, tables
from re2pix_jax.report import page
from re2pix_jax.training import mesh

CONFIG = cli.config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'folder to write to', required=True)

REMOTE = ('workdir',)


def main(argv):
    del argv
    config = CONFIG.value
    likes = 'evaluate or --config=eval_forecaster'
    _config.check_fields(config, likes, 'source', 'horizon', 'evals')
    mesh.initialize_processes()
    held_out.check(config)
    if jax.process_index():  # the others take part and write nothing
        _evaluate(config)
        return
    with files.staging(WORKDIR.value) as folder:
        reports, text, pictures = _evaluate(config)
        files.write_text(
            folder / 'metrics.json', json.dumps(reports, indent=2, allow_nan=False) + '\n'
        )
        files.write_text(folder / 'metrics.txt', text + '\n')
        if pictures:
            page.write(folder / 'pictures.html', f'{config.model}', text, pictures)
    print(text)
    written = 'metrics.json, metrics.txt' + (', pictures.html' if pictures else '')
    print(f'written to {WORKDIR.value}: {written}')


def _evaluate(config):
    """({term: report}, their text, captioned pictures)"""
    part = bundles.load(config.model, config.kind or ('re2pix', 'forecaster'))
    reports, pictures = held_out.evaluate(part, config)
    text = '\n\n'.join(
        (f'{term}-term: ' if term else '') + tables.describe(report)
        for term, report in reports.items()
    )
    drawn = [picture for of_term in pictures.values() for picture in of_term]
    return reports, text, [(picture.caption, picture.sheet) for picture in drawn]
