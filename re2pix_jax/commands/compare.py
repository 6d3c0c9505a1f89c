"""Puts the scores of evaluations that stand under one protocol into one table.

    re2pix compare runs/evaluation runs/evaluation_guided

The workdirs of `re2pix evaluate`. What may differ is what is judged: the model, its sampler,
guidance, seed. Of different clips, windows, sizes or judging networks no table is made.
"""

from re2pix_jax import remote, schema
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import tables

ARGUMENTS = None  # workdirs, any number of them
REMOTE = ('arguments',)


def main(argv):
    folders = argv[1:]
    if len(folders) < 2:
        raise UserError('compare: expected workdirs of at least two evaluations; see --help')
    reports = {folder: _read(folder) for folder in folders}
    terms = {tuple(found) for found in reports.values()}
    if len(terms) == 1:
        joined = {
            term: {folder: found[term] for folder, found in reports.items()}
            for term in next(iter(terms))
        }
    else:  # of different terms: refused, with their names
        pairs = [(folder, term) for folder, found in reports.items() for term in found]
        joined = {'': {f'{folder} {term}'.strip(): reports[folder][term] for folder, term in pairs}}
    texts = {term: tables.joined(found) for term, found in joined.items()}
    print('\n\n'.join((f'{term}-term: ' if term else '') + text for term, text in texts.items()))


def _read(folder) -> dict:
    """{term: report}"""
    file = remote.local(remote.join(folder, 'metrics.json'))
    if not file.is_file():
        raise UserError(f'{folder}: no metrics.json there; give a --workdir of re2pix evaluate')
    reports = schema.read_json(file, dict, 'evaluate again')
    parts = [report.keys() if isinstance(report, dict) else () for report in reports.values()]
    if not parts or not all({'protocol', 'overall'} <= {*keys} for keys in parts):
        raise UserError(
            f'{file}: holds no evaluation (a prediction?); give a --workdir of re2pix evaluate'
        )
    return reports
