"""Plots (matplotlib, no display needed)."""

import numpy as np


def explained_variance(path, shares) -> None:
    """Writes a PNG: the share of the variance that the first n components hold, over n.

    Args:
        path: the file.
        shares: [P], of each component.
    """
    from matplotlib.figure import (
        Figure,
    )  # here: half a second that other commands need not wait for

    figure = Figure(figsize=(6, 3.5), layout='constrained')
    axes = figure.subplots()
    held = 100 * np.cumsum(shares)
    axes.plot(np.arange(1, len(held) + 1), held)
    axes.set(
        xlabel='principal components',
        ylabel='variance held, %',
        ylim=(0, 101),
        xlim=(1, max(2, len(held))),
        title=f'{len(held)} components hold {held[-1]:.1f} %',
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def training(path, title, curves, levels) -> None:
    """Writes a PNG: a metric over training steps.

    Args:
        path: the file.
        title: of the metric.
        curves: {label: (steps, values)}.
        levels: {label: value} of what does not train, as dashed lines.
    """
    _lines(path, 'training steps', title, curves, levels)


def by_time(path, title, curves) -> None:
    """Writes a PNG: a metric over the time since the last context frame; curves {label: (seconds,
    values)}.
    """
    _lines(path, 'seconds after the last context frame', title, curves, {})


def _lines(path, abscissa, title, curves, levels):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout='constrained')
    axes = figure.subplots()
    for label, (places, values) in curves.items():
        axes.plot(places, values, marker='o', markersize=3, label=label)
    for index, (label, value) in enumerate(levels.items()):
        axes.axhline(value, color=('0.45', '0.7')[index % 2], linestyle='--', label=label)
    axes.set(xlabel=abscissa, ylabel=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
