"""Damages whose order is known, by which measures of video are themselves measured: the stronger
the damage, the larger a distance to the true clips has to be.

Each takes a clip uint8 [T, H, W, 3], a strength and a generator of random numbers, and returns a
clip of the same shape; strength 0 is the identity. What is random is drawn alike for every
strength, so that a stronger damage is the same one, and more of it. Those of time leave the first
frame in its place.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out, protocol
from re2pix_jax.evaluation.batches import filled, numbered
from re2pix_jax.evaluation.evaluators import Frechet
from re2pix_jax.evaluation.results import Report
from re2pix_jax.evaluation.views import View
from re2pix_jax.report.table import Number, table

BLOCK = 8


class Damage(NamedTuple):
    """What is done to a clip, and its rising strengths, in `unit`."""

    apply: Callable
    strengths: tuple
    unit: str


def blur(clip, strength, random):
    """A Gaussian mean of every frame, σ of `strength` pixels; borders are repeated."""
    if not strength:
        return clip
    reach = int(np.ceil(4 * strength))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / strength) ** 2)
    weights /= weights.sum()
    found = clip.astype(np.float32)
    for axis in (1, 2):
        padding = [(reach, reach) if axis == other else (0, 0) for other in range(found.ndim)]
        padded, length = np.pad(found, padding, mode='edge'), found.shape[axis]
        found = sum(
            np.float32(weight) * padded.take(range(first, first + length), axis)
            for first, weight in enumerate(weights)
        )
    return _pixels(found)


def noise(clip, strength, random):
    """Normal noise of `strength` grey levels, another one in every pixel and frame."""
    return _pixels(clip + strength * random.standard_normal(clip.shape, np.float32))


def freezing(clip, strength, random):
    """The last frames, `strength` of all but the first, repeat the one before them."""
    last = len(clip) - 1
    return clip[np.minimum(np.arange(last + 1), last - round(strength * last))]


def frame_drop(clip, strength, random):
    """Each frame is lost with probability `strength`; the one before is shown again."""
    kept = random.random(len(clip)) >= strength
    return clip[np.maximum.accumulate(np.where(kept, np.arange(len(clip)), 0))]


def colour_shift(clip, strength, random):
    """`strength` grey levels more red, and half as many less green and blue."""
    return _pixels(clip + np.float32(strength) * np.array([1, -0.5, -0.5], np.float32))


def temporal_jitter(clip, strength, random):
    """Frames come up to `strength` frames too early or too late, in the order that this makes."""
    moved = np.arange(len(clip)) + strength * random.uniform(-1, 1, len(clip))
    moved[0] = -np.inf
    return clip[np.argsort(moved, kind='stable')]


def block_artefacts(clip, strength, random):
    """The cosine coefficients of every 8x8 block are rounded to multiples of `strength`, as coarse
    JPEG does; what does not fill a block stays as it is.
    """
    if not strength:
        return clip
    height, width = (side // BLOCK * BLOCK for side in clip.shape[1:3])
    inner = clip[:, :height, :width].astype(np.float32)
    blocks = inner.reshape(len(clip), height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    place = np.arange(BLOCK)
    cosines = np.cos(np.pi * (place + 0.5) * place[:, None] / BLOCK) * np.sqrt(2 / BLOCK)
    cosines[0] /= np.sqrt(2)
    cosines, step = cosines.astype(np.float32), np.float32(strength)
    found = np.einsum('ui,vj,thiwjc->thuwvc', cosines, cosines, blocks, optimize=True)
    found = step * np.round(found / step)
    found = np.einsum('ui,vj,thuwvc->thiwjc', cosines, cosines, found, optimize=True)
    damaged = clip.copy()
    damaged[:, :height, :width] = _pixels(found.reshape(inner.shape))
    return damaged


def _pixels(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


DAMAGES = {
    'blur': Damage(blur, (0.5, 1.0, 2.0, 4.0), 'σ, pixels'),
    'noise': Damage(noise, (4, 8, 16, 32), 'σ, grey levels'),
    'freezing': Damage(freezing, (0.25, 0.5, 0.75, 1.0), 'share of frames'),
    'frame drop': Damage(frame_drop, (0.1, 0.25, 0.5, 1.0), 'share of frames'),
    'colour shift': Damage(colour_shift, (4, 8, 16, 32), 'grey levels'),
    'temporal jitter': Damage(temporal_jitter, (0.75, 1.0, 1.5, 3.0), 'frames'),
    'block artefacts': Damage(block_artefacts, (20, 40, 80, 160), 'grey levels'),
}
CHANCE = 'half of the truth'
"""A set that is not damaged at all: every other clip. What is below its distance may be chance."""


class Row(NamedTuple):
    """The distances of one measure, by rising strength of one damage."""

    damage: str
    measure: str
    distances: tuple

    @property
    def monotone(self) -> bool:
        """Whether each distance is larger than the one before it, and the first than none."""
        return all(one < other for one, other in zip((0.0, *self.distances), self.distances))


def measure(part, config) -> tuple[list[Row], str]:
    """The rows of all damages and measures, and in words what they were measured on.

    Args:
        part: a model or a forecaster, whose encoder's components one of the measures may take.
        config: as configs/damages.py makes it; its evals are Fréchet distances.

    Raises:
        UserError: an eval is another than that, or its network is not there; too few clips.
    """
    held_out.check(config)
    with contextlib.closing(held_out.open_for(part, config)) as opened:
        opened.check(part)
        for evaluator in opened.evaluators:
            if not isinstance(evaluator, Frechet):
                raise UserError(
                    f'config.evals.{evaluator.name}: expected type frechet, for only sets of '
                    'videos can be damaged in time'
                )
            if evaluator.left_out:
                raise UserError(evaluator.left_out)
        states = _states(part, config, opened)
        rows, networks = {}, {}
        for evaluator in opened.evaluators:
            found = evaluator.report(states[evaluator.name])
            if evaluator.left_out:
                raise UserError(evaluator.left_out)
            networks[evaluator.name] = evaluator.about()
            (column,) = evaluator.COLUMNS
            distances = {key: overall[column.name] for key, (overall, _) in found.items()}
            rows[CHANCE, evaluator.name] = Row(CHANCE, column.title, (distances[CHANCE, 0],))
            for name, damage in DAMAGES.items():
                values = tuple(distances[name, strength] for strength in damage.strengths)
                rows[name, evaluator.name] = Row(name, column.title, values)
        report = Report({}, [], networks, [], [], {})
        about = protocol.describe(held_out.protocol_of(part, config, opened, report))
    ordered = [rows[name, one.name] for name in (*DAMAGES, CHANCE) for one in opened.evaluators]
    return ordered, about


def _states(part, config, opened):
    """{evaluator: {(damage, strength) or 'truth': its metric state}} over the clips."""
    forecaster = getattr(part, 'forecaster', part)
    asked = [(name, strength) for name, damage in DAMAGES.items() for strength in damage.strengths]
    states = {evaluator.name: {} for evaluator in opened.evaluators}

    @jax.jit
    def features(parts, forecaster, frames):
        view = lambda part: View(forecaster, frames=lambda: part)
        context, future = view(frames[:, :1]), view(frames[:, 1:])
        views = {'context': context, 'truth': future}
        return {
            one.name: one.measure(parts[one.name], future, views, {}) for one in opened.evaluators
        }

    parts = {evaluator.name: evaluator.parts for evaluator in opened.evaluators}
    for first, local in numbered(opened.batches, opened.count, config.batch_size, 'damages'):
        batch = filled(local, opened.batches.rows, first, opened.count)
        clips = batch['frames'][:, opened.clips.context - 1 :]
        sets = {'truth': (clips, batch['known'])}
        odd = (first + np.arange(len(clips))) % 2 == 0
        sets[CHANCE, 0] = clips, batch['known'] & odd
        for key in asked:
            sets[key] = _damaged(clips, *key, batch['record'], config.seed), batch['known']
        for key, (frames, known) in sets.items():
            found = features(parts, forecaster, frames)
            for one in opened.evaluators:
                total = states[one.name].get(key)
                states[one.name][key] = one.add(total, found[one.name], known)
    return states


def _damaged(clips, name, strength, records, seed):
    """Clips of which all frames but the first are damaged, as predictions follow a true frame."""
    found = clips.copy()
    for clip, record in zip(found, records, strict=True):
        random = np.random.default_rng([seed, int(record)])
        clip[1:] = DAMAGES[name].apply(clip, strength, random)[1:]
    return found


def describe(rows: list[Row]) -> str:
    """The rows as text."""
    header = ['damage', 'strengths', 'measure', '1', '2', '3', '4', 'monotone']
    lines = []
    for row in rows:
        damage = DAMAGES.get(row.damage)
        values = [Number(f'{value:.3g}') for value in row.distances]
        if damage is None:
            lines.append([row.damage, '', row.measure, *values, None, None, None, ''])
            continue
        strengths = f'{", ".join(f"{value:g}" for value in damage.strengths)} {damage.unit}'
        lines.append([row.damage, strengths, row.measure, *values, 'yes' if row.monotone else 'NO'])
    return table(header, lines)
