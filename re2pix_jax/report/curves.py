"""Plots (matplotlib, no display needed)."""

import numpy as np


def explained_variance(path, shares) -> None:
    """Writes a PNG: the share of the variance that the first n components hold, over n.

    Args:
        path: the file.
        shares: [P], of each component.
    """
    from matplotlib.figure import Figure  # here: half a second that other commands need not wait for
    figure = Figure(figsize=(6, 3.5), layout='constrained')
    axes = figure.subplots()
    held = 100 * np.cumsum(shares)
    axes.plot(np.arange(1, len(held) + 1), held)
    axes.set(xlabel='principal components', ylabel='variance held, %', ylim=(0, 101), xlim=(1, max(2, len(held))),
             title=f'{len(held)} components hold {held[-1]:.1f} %')
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
