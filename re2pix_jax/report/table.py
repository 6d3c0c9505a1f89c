"""Plain-text tables."""

import math


def table(header, rows, digits=3):
    """Columns aligned with two spaces between: text to the left, numbers to the right, '-' for None and NaN.

    Args:
        header: texts; rows: sequences of texts, integers, floats (rounded to `digits`) or None.
    """
    cells = [[_cell(value, digits) for value in row] for row in rows]
    for row in cells:
        if len(row) != len(header):
            raise ValueError(f'a row of {len(row)} cells under {len(header)} columns')
    widths = [max(map(len, column)) for column in zip(header, *cells)]
    numeric = [all(not isinstance(row[k], str) for row in rows) for k in range(len(header))]
    lines = []
    for line in [list(header), ['-' * width for width in widths], *cells]:
        lines.append('  '.join(
            text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric)).rstrip())
    return '\n'.join(lines)


def _cell(value, digits):
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return '-'
    return f'{value:.{digits}f}' if isinstance(value, float) else str(value)


METRICS = {'psnr': 'PSNR dB', 'ssim': 'SSIM', 'feature_error': 'feature error', 'miou': 'mIoU %', 'moving_miou': 'moving mIoU %'}
"""Metrics that a horizon table may show, in this order, and how their columns are called."""

METHODS = {'re2pix': 'Re2Pix', 'copy_last': 'copy last', 'vae': 'VAE of truth', 'truth': 'truth'}


def horizon_table(steps):
    """One row a time step, one column for each metric and method; columns without any number are left out.

    Args:
        steps: [{'step', 'seconds', method: {metric: number or None}, ...}, ...] with the methods and metrics named above; mIoU in [0, 1].
    """
    pairs = [
        (metric, method) for metric in METRICS for method in METHODS
        if any(row.get(method, {}).get(metric) is not None for row in steps)]
    header = ['step', 'time'] + [f'{METRICS[metric]}: {METHODS[method]}' for metric, method in pairs]
    rows = []
    for row in steps:
        values = [row.get(method, {}).get(metric) for metric, method in pairs]
        shown = [_round(metric, value) for (metric, _), value in zip(pairs, values)]
        rows.append([row['step'], f'+{row["seconds"]:.2f} s', *shown])
    return table(header, rows)


def _round(metric, value):
    if value is None:
        return None
    return _Text(f'{100 * value:.1f}' if 'miou' in metric else f'{value:.2f}' if metric == 'psnr' else f'{value:.3f}')


class _Text:
    """A number that is already written: shown as it is, aligned as a number."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text
