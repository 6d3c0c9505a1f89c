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
