"""How far a difference between two rows may come from the clips and the seeds that were at hand:
a bootstrap over both.

Clips are drawn with replacement, the same for all rows, and a Fréchet distance is taken between the
sets that are left; seeds are drawn from those that all rows of a comparison have, the same for
each. So what clips and seeds do to rows alike does not count.

A set in which clips repeat lies further from the truth, and not equally so for all rows: the less
a row follows its clips, the more. The draws are moved to where their mean is the value itself. [O]
"""

from typing import NamedTuple

import numpy as np

from re2pix_jax.evaluation.evaluators.frechet import Gaussian, distance

SHARE = 95
"""Per cent of the resampled differences that an interval holds."""


class Interval(NamedTuple):
    """Of a number: as it is, and how far its resampled values lie about that (None: one clip set
    and one seed have no bounds); clips, seeds: how many were drawn from, clips 0 where they were
    not drawn.
    """

    value: float
    low: float | None
    high: float | None
    clips: int
    seeds: int


class Resampling:
    """Draws of clips and seeds, the same whoever asks.

    Args:
        clips: of an evaluation; count: of draws.
    """

    def __init__(self, clips: int, count: int, seed: int = 0):
        self.clips, self.count, self.seed = clips, count, seed
        random = np.random.RandomState(seed)
        drawn = random.multinomial(clips, np.full(clips, 1 / clips), size=count)
        # Row 0: every clip once.
        self.weights = np.concatenate([np.ones((1, clips)), drawn])
        self._distances = {}

    def distances(self, name: str, point, method: str, horizon: int):
        """[1 + count] of the clips as they are and as they are drawn; None where `point` kept no
        features.
        """
        key = name, point.label, point.seed, point.step, method, horizon
        if key not in self._distances:
            found = of_point(name, point, method, horizon)
            fits = found is not None and len(found[0]) == self.clips
            self._distances[key] = distances(*found, self.weights) if fits else None
        return self._distances[key]

    def interval(self, values, statistic, clips: bool) -> Interval:
        """Of `statistic` of rows' means over seeds.

        Args:
            values: [rows, seeds, 1 + count]; without `clips` the last axis may be 1.
            statistic: of an array for every row, elementwise.
        """
        values = np.broadcast_to(values, (*np.shape(values)[:2], 1 + self.count))
        seeds = values.shape[1]
        drawn = np.random.RandomState(self.seed + 1).randint(seeds, size=(self.count, seeds))
        # [rows, count, seeds]: in every draw of clips its own draw of seeds.
        resampled = values[:, :, 1:].swapaxes(1, 2)[:, np.arange(self.count)[:, None], drawn]
        value = float(statistic(*values[:, :, 0].mean(1)))
        low = high = None
        if self.count and (clips or seeds > 1):
            tail = (100 - SHARE) / 2
            found = statistic(*resampled.mean(2))
            moved = value - found.mean() if clips else 0.0
            low, high = (moved + np.percentile(found, [tail, 100 - tail])).tolist()
        return Interval(value, low, high, self.clips if clips else 0, seeds)


def of_point(name: str, point, method: str, horizon: int):
    """(features of a method, of the truth), [N, places, D] each, of the places that end within
    `horizon` future frames; None where the evaluation kept none.
    """
    found = [point.features.get(f'{name}/{part}') for part in (method, 'truth', 'ends')]
    if any(part is None for part in found):
        return None
    within = found[2] <= horizon
    return (found[0][:, within], found[1][:, within]) if within.any() else None


def distances(found, truth, weights) -> np.ndarray:
    """Fréchet distances [R] between features [N, places, D] of which every clip counts as often as
    `weights` [R, N] say.
    """
    return np.asarray([distance(_gaussian(found, row), _gaussian(truth, row)) for row in weights])


def _gaussian(features, weights) -> Gaussian:
    samples = features.reshape(-1, features.shape[-1]).astype(np.float64)
    weights = np.repeat(np.asarray(weights, np.float64), features.shape[1])
    count = weights.sum()
    mean = weights @ samples / count
    centred = samples - mean
    return Gaussian(mean, (centred * weights[:, None]).T @ centred / (count - 1), int(count))
