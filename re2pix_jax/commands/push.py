r"""Puts a bundle on the Hugging Face Hub, with a card that says what it is worth.

    re2pix push runs/bundles/streets hf:owner/streets --license=cc-by-4.0 \
        --datasets=owner/streets --scores=runs/evaluation

Parts that lie elsewhere travel inside. The card's head, which the hub reads, holds the license, the
datasets and, of every workdir of `re2pix evaluate` in --scores, what was measured and by which
protocol. HF_TOKEN is who puts it there. Given again after an interruption, it goes on. Who wants
the model says `re2pix predict --model=hf:owner/streets`.
"""

import pathlib
import tempfile

from absl import flags

from re2pix_jax import bundles, schema
from re2pix_jax.bundles import hub, sharing
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import protocol, tables

LICENSE = flags.DEFINE_string('license', '', 'License of the weights, as the hub spells it.')
DATASETS = flags.DEFINE_list('datasets', [], 'Names of what it was trained on.')
SCORES = flags.DEFINE_list('scores', [], 'Workdirs of re2pix evaluate, for the card.')
PRIVATE = flags.DEFINE_bool('private', False, 'A repository that is made is private.')
MESSAGE = flags.DEFINE_string('message', 'A re2pix_jax bundle', 'Message of the commit.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Show the card and the files, and send nothing.')

ARGUMENTS = ('bundle', 'hf:owner/name')
NO_PATHS = ('license', 'datasets', 'message')


def main(argv):
    _, name, reference = argv
    hub.parse(reference)
    if not DRY_RUN.value:
        hub.client(reference)
    reports = {folder: _measured(folder) for folder in SCORES.value}
    with tempfile.TemporaryDirectory() as folder:
        packed = pathlib.Path(folder) / 'bundle'
        sharing.pack(name, packed)
        bundles.load(packed)  # what could not be opened does not travel
        sharing.write_card(packed, LICENSE.value, DATASETS.value, reports)
        files = [file for file in sorted(packed.rglob('*')) if file.is_file()]
        size = sum(file.stat().st_size for file in files) / 1e6
        if DRY_RUN.value:
            print((packed / sharing.README).read_text(encoding='utf-8'))
            print('\n'.join(str(file.relative_to(packed)) for file in files))
            print(f'{len(files)} files, {size:.1f} MB would go to {reference}')
            return
        print(f'{len(files)} files, {size:.1f} MB to {reference} ...', flush=True)
        print(f'there as {hub.upload(packed, reference, PRIVATE.value, MESSAGE.value)}')


def _measured(folder) -> dict:
    """What the card says of an evaluation: its protocol and the numbers of what was evaluated."""
    file = pathlib.Path(folder) / 'metrics.json'
    if not file.is_file():
        raise UserError(f'{folder}: no metrics.json there; give a --workdir of re2pix evaluate')
    report = next(iter(schema.read_json(file, dict, 'evaluate again').values()))
    method = next(name for name in tables.EVALUATED if name in report['overall'])
    return {
        'protocol': protocol.describe(report['protocol']),
        'scores': {
            name: value for name, value in report['overall'][method].items() if value is not None
        },
    }
