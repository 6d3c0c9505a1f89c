"""The paper's findings as statements about a study's table, each judged by itself.

A comparison of two rows is `reproduced` or `not reproduced` by their means; `within spread` says
that they are closer to each other than the larger of their standard deviations over seeds, so that
more seeds could turn it.
"""

from typing import NamedTuple

from re2pix_jax.evaluation.evaluators import COLUMNS

CONDITIONED = ('truth_only', 'predicted_only', 'no_nested_dropout', 'full')


class Claim(NamedTuple):
    """row `better` than row `worse` by a metric; `source` is where the paper says so."""

    metric: str
    better: str
    worse: str


class Verdict(NamedTuple):
    claim: str
    found: str
    verdict: str


CLAIMS = (
    *(Claim('miou', row, 'baseline') for row in CONDITIONED),
    *(Claim('miou', 'truth_only', row) for row in CONDITIONED if row != 'truth_only'),
    *(
        Claim('frechet_video', 'full', row)
        for row in (
            'baseline',
            'baseline_large',
            'truth_only',
            'predicted_only',
            'no_nested_dropout',
        )
    ),
    *(
        Claim('frechet_video', row, 'truth_only')
        for row in ('baseline', 'predicted_only', 'no_nested_dropout')
    ),
    Claim('miou', 'full, guided', 'full'),
    Claim('frechet_video', 'full', 'full, guided'),
)  # the paper's table [P]


def judge(table) -> list[Verdict]:
    """A verdict for each claim whose two rows are in `table` ({label: {metric: Cell}})."""
    verdicts = []
    for metric, better, worse in CLAIMS:
        cells = [table.get(row, {}).get(metric) for row in (better, worse)]
        if None not in cells:
            verdicts.append(_compare(metric, better, worse, *cells))
    if (close := _eight_channels(table)) is not None:
        verdicts.append(close)
    return verdicts


def _compare(metric, better, worse, ours, theirs):
    title, higher = COLUMNS[metric].title, COLUMNS[metric].higher
    gain = (ours.mean - theirs.mean) * (1 if higher else -1)
    spreads = [cell.spread for cell in (ours, theirs) if cell.spread is not None]
    verdict = 'reproduced' if gain > 0 else 'not reproduced'
    if not spreads:
        verdict += ' (one seed)'
    elif abs(gain) < max(spreads):
        verdict += ' (within spread)'
    return Verdict(
        f'{title}: {better} is better than {worse}',
        f'{ours.mean:.4g} against {theirs.mean:.4g}',
        verdict,
    )


def _eight_channels(table):
    """With 8 channels at inference the Fréchet video measure stays nearer to that with all of them
    than the baseline's is [P].
    """
    cells = [
        table.get(row, {}).get('frechet_video') for row in ('full, 8 channels', 'full', 'baseline')
    ]
    if None in cells:
        return None
    few, full, baseline = (cell.mean for cell in cells)
    verdict = 'reproduced' if abs(few - full) < abs(baseline - full) else 'not reproduced'
    return Verdict(
        'Fréchet video: with 8 channels nearer to full than the baseline is',
        f'{few:.4g}, {full:.4g}, {baseline:.4g}',
        verdict,
    )
