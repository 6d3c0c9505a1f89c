"""Plain-text tables."""

import math
from typing import NamedTuple


def table(header, rows, digits=3):
    """Columns aligned with two spaces between: text to the left, numbers to the right, '-' for None
    and NaN.

    Args:
        header: texts, of several lines if they hold line breaks.
        rows: sequences of texts, integers, floats (rounded to `digits`), `Number`s or None.
    """
    cells = [[_cell(value, digits) for value in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f'a row of {len(row)} cells under {len(header)} columns')
    titles = [title.split('\n') for title in header]
    depth = max(map(len, titles))
    above = [[title[k] if k < len(title) else '' for title in titles] for k in range(depth)]
    widths = [max(map(len, column)) for column in zip(*above, *cells, strict=True)]
    to_right = [all(not isinstance(row[k], str) for row in rows) for k in range(len(header))]
    lines = []
    for line in [*above, ['-' * width for width in widths], *cells]:
        aligned = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, to_right, strict=True)
        ]
        lines.append('  '.join(aligned).rstrip())
    return '\n'.join(lines)


class Number(NamedTuple):
    """A number that is already written: aligned as a number, shown as it is."""

    text: str


def _cell(value, digits):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    if isinstance(value, Number):
        return value.text
    return f'{value:.{digits}f}' if isinstance(value, float) else str(value)


IMAGE_METRICS = {
    'psnr': 'PSNR dB',
    'ssim': 'SSIM',
    'lpips': 'LPIPS',
    'frechet_frames': 'Fréchet, frames',
    'frechet_video': 'Fréchet, video',
    'feature_error': 'feature error',
    'forecast_error': 'stage 1',
}
FEATURE_METRICS = {
    'miou': 'mIoU %',
    'moving_miou': 'moving mIoU %',
    'delta1': 'depth delta1 %',
    'abs_rel': 'depth AbsRel',
}
METRICS = IMAGE_METRICS | FEATURE_METRICS
"""Metrics that a horizon table may show, in this order, and how their columns are called."""

METHODS = {'re2pix': 'Re2Pix', 'copy_last': 'copy', 'vae': 'VAE', 'truth': 'truth'}

DISTANCES = {
    'frechet_frames': 'encoder, frames',
    'frechet_video': 'encoder, video',
    'fid': 'FID',
    'fvd': 'FVD',
}

LEGEND = (
    'copy: the last context frame repeated; VAE: the true frame through the VAE, the best that '
    'the decoder allows;\n'
    'truth: the heads on the true frame; feature error: SmoothL1 on principal components of the '
    'frame; stage 1: that of its forecast'
)


def horizon_table(steps, metrics=METRICS):
    """One row a time step, one column for each metric and method; columns without any number are
    left out.

    Args:
        steps: [{'step', 'seconds', method: {metric: number or None}, ...}, ...] with the methods
            and metrics named above; mIoU and delta1 in [0, 1].
        metrics: those to show, and how they are called.
    """
    pairs = [
        (metric, method)
        for metric in metrics
        for method in METHODS
        if any(row.get(method, {}).get(metric) is not None for row in steps)
    ]
    header, last = ['\nstep', '\ntime'], None
    for metric, method in pairs:
        header.append(f'{metrics[metric] if metric != last else ""}\n{METHODS[method]}')
        last = metric
    rows = []
    for row in steps:
        values = [_written(metric, row.get(method, {}).get(metric)) for metric, method in pairs]
        rows.append([row['step'], Number(f'+{row["seconds"]:.2f} s'), *values])
    return table(header, rows)


def _written(metric, value):
    if value is None:
        return None
    if metric in ('miou', 'moving_miou', 'delta1'):
        return Number(f'{100 * value:.1f}')
    return Number(f'{value:.2f}' if metric == 'psnr' else f'{value:.3f}')
