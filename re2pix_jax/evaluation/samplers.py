"""Samplers beside each other on the same clips and noise: what their frames are worth, and what
they cost. From this table a model's own sampler is chosen.
"""

from re2pix_jax import errors
from re2pix_jax.evaluation import held_out, protocol
from re2pix_jax.evaluation.evaluators import COLUMNS
from re2pix_jax.generator import sampler as samplers
from re2pix_jax.report.table import Number, table


def table_of(model, config) -> str:
    """The table of config.rows, as configs/samplers.py has them, under its protocol; at its end the
    true frames through the VAE, the best that there is.

    Raises:
        UserError: a row that is no sampler; as of `held_out.measure`.
    """
    with errors.blaming('config.rows'):  # before any of them runs
        for sampler, steps, grid in config.rows:
            samplers.find(sampler)
            samplers.times(steps, grid)
    reports = {}
    for sampler, steps, grid in config.rows:
        config.update(sampler=sampler, sampler_steps=steps, sampler_grid=grid)
        reports[sampler, steps, grid] = held_out.measure(model, config)[0]['']
    first = next(iter(reports.values()))
    found = {}
    for (sampler, steps, grid), report in reports.items():
        count = model.evaluations(
            config.horizon, config.guidance, sampler=sampler, sampler_steps=steps
        )
        found[count, sampler, steps, grid] = report.overall['re2pix']
    found = {key: found[key] for key in sorted(found)}
    if 'vae' in first.overall:
        found[None, 'VAE of the truth', None, ''] = first.overall['vae']
    names = [name for name in COLUMNS if name in first.overall['re2pix']]
    rows = [
        [*key, *(_cell(name, columns[name]) for name in names)] for key, columns in found.items()
    ]
    header = ['evaluations', 'sampler', 'steps', 'grid', *(COLUMNS[name].title for name in names)]
    about = protocol.describe(first.protocol | {'sampler': ''})
    return f'{about}\n\n{table(header, rows)}'


def _cell(name, value):
    """To four digits: distances may be small."""
    return None if value is None else Number(f'{COLUMNS[name].scale * value:.4g}')
