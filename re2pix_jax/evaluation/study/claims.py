"""The paper's findings as statements about a study's rows, each judged by itself.

A statement is that a number is above zero: how much better one row is than another by a metric.
With its interval above zero it is `reproduced`, below `not reproduced`, else `undecided`. What a
verdict rests on is said beside it: intervals of Fréchet distances are over clips and seeds, those
of other metrics over seeds alone.
"""

from typing import NamedTuple

import numpy as np

from re2pix_jax.evaluation.evaluators import COLUMNS
from re2pix_jax.evaluation.study import intervals, numbers
from re2pix_jax.progress import counted

CONDITIONED = ('truth_only', 'predicted_only', 'no_nested_dropout', 'full')
OF_VIDEOS = ('fvd', 'frechet_judge', 'frechet_random3d')
"""FVD and what stands for it: distances between sets of videos, on pixels."""
OF_FRAMES = ('fid', 'frechet_frames')
"""FID and what stands for it."""
EIGHT = 'with 8 channels nearer to full than the baseline is'


class Claim(NamedTuple):
    """row `better` than row `worse` by a metric; `ours`: a question of our own, not the paper's."""

    metric: str
    better: str
    worse: str
    ours: bool = False


class Verdict(NamedTuple):
    """A claim, the means that it compares, the gain with its interval, what these rest on, and the
    verdict.
    """

    claim: str
    found: str
    gain: str
    rests_on: str
    verdict: str


CLAIMS = (
    *(Claim('miou', row, 'baseline') for row in CONDITIONED),
    *(Claim('miou', 'truth_only', row) for row in CONDITIONED if row != 'truth_only'),
    Claim('miou', 'full, guided', 'full'),
    *(
        Claim(metric, better, worse)
        for metric in OF_VIDEOS
        for better, worse in (
            ('full', 'baseline'),
            ('full', 'baseline_large'),
            ('full', 'truth_only'),
            ('full', 'predicted_only'),
            ('full', 'no_nested_dropout'),
            ('baseline', 'truth_only'),
            ('predicted_only', 'truth_only'),
            ('no_nested_dropout', 'truth_only'),
            ('full', 'full, guided'),
        )
    ),
    *(
        Claim(metric, better, worse)
        for metric in OF_FRAMES
        for better, worse in (
            *((row, 'baseline') for row in CONDITIONED),
            ('full', 'truth_only'),
            ('full', 'predicted_only'),
            ('full', 'no_nested_dropout'),
            ('full, guided', 'full'),
        )
    ),
    *(
        Claim(metric, better, worse, ours=True)
        for metric in (*OF_VIDEOS, *OF_FRAMES)
        for better, worse in (('full', 'full_doublings'), ('final_tenth_undropped', 'full'))
    ),
)  # the paper's table [P], and ours [O]


def judge(points, horizon: int, draws: intervals.Resampling) -> list[Verdict]:
    """A verdict for each claim whose rows have a seed in common, over the first `horizon` future
    frames, by what the rows make of stage 1's forecast.
    """
    finals = {}
    for point in points:
        if point.final:
            finals.setdefault(point.label, {})[point.seed] = point
    verdicts = []
    for claim in CLAIMS:
        higher = COLUMNS[claim.metric].higher
        gain = lambda ours, theirs, higher=higher: (ours - theirs) * (1 if higher else -1)
        words = f'{claim.better} is better than {claim.worse}'
        words = f'{words} (ours)' if claim.ours else words
        rows = (claim.better, claim.worse)
        verdicts.append(_judge(claim.metric, words, rows, gain, finals, horizon, draws))
    for metric in OF_VIDEOS:
        rows = ('full, 8 channels', 'full', 'baseline')
        nearer = lambda few, full, baseline: np.abs(baseline - full) - np.abs(few - full)
        verdicts.append(_judge(metric, EIGHT, rows, nearer, finals, horizon, draws))
    return [verdict for verdict in verdicts if verdict is not None]


def missing(points, horizon: int) -> list[str]:
    """What is not judged, and why: rows that are not there, columns that were not measured."""
    finals = [point for point in points if point.final]
    labels = {point.label for point in finals}
    rows = sorted({row for claim in CLAIMS for row in claim[1:3]} - labels)
    lines = [f'no claim about {", ".join(rows)}: not among the rows that were evaluated'] * (
        len(rows) > 0
    )
    for name in (*OF_VIDEOS, *OF_FRAMES):
        if all(numbers.read(name, point, 're2pix', horizon) is None for point in finals):
            title = COLUMNS[name].title
            reasons = {
                line.removeprefix(f'{title}: ')
                for point in finals
                for line in point.report['left_out']
                if line.startswith(f'{title}: ')
            }
            why = '; '.join(sorted(reasons)) or f'not measured within {horizon} future frames'
            lines.append(f'no claim about {title}: {why}')
    return lines


def _judge(metric, words, rows, statistic, finals, horizon, draws) -> Verdict | None:
    seeds = sorted(set.intersection(*(set(finals.get(row, ())) for row in rows)))
    if not seeds:
        return None
    values = _values(metric, [[finals[row][s] for s in seeds] for row in rows], horizon, draws)
    if values is None:
        return None
    values = COLUMNS[metric].scale * values
    found = draws.interval(values, statistic, clips=values.shape[2] > 1)
    means = [f'{mean:.4g}' for mean in values[:, :, 0].mean(1)]
    rests = [counted(found.clips, 'clip')] * (found.clips > 0)
    rests.append(counted(found.seeds, 'seed'))
    gain, verdict = f'{found.value:+.3g}', 'reproduced' if found.value > 0 else 'not reproduced'
    if found.low is None:
        verdict += ' (no interval)'
    else:
        gain += f' [{found.low:+.3g}, {found.high:+.3g}]'
        verdict = verdict if found.low > 0 or found.high < 0 else 'undecided'
    return Verdict(
        f'{COLUMNS[metric].title}: {words}',
        ' against '.join(means) if len(means) == 2 else ', '.join(means),
        gain,
        ', '.join(rests),
        verdict,
    )


def _values(metric, points, horizon, draws):
    """[rows, seeds, draws], the last axis 1 where clips are not drawn; None where one has none."""
    if metric in numbers.OF_SETS:
        drawn = [
            [draws.distances(metric, point, 're2pix', horizon) for point in row] for row in points
        ]
        if all(values is not None for row in drawn for values in row):
            return np.asarray(drawn)
    scale = COLUMNS[metric].scale
    plain = [[numbers.read(metric, point, 're2pix', horizon) for point in row] for row in points]
    if any(value is None for row in plain for value in row):
        return None
    return np.asarray(plain)[:, :, None] / scale
