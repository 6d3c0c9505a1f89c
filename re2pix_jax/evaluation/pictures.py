"""Sheets of evaluated clips: frames, labels that a head reads, and components as colours."""

from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import windows
from re2pix_jax.evaluation import views
from re2pix_jax.evaluation.batches import filled
from re2pix_jax.evaluation.evaluators.segmentation import Segmentation
from re2pix_jax.report import colours, panels

FRAMES = ('re2pix', 'vae')
COMPONENTS = ('truth', 'forecast', 're2pix')
LABELS = ('truth', 'copy_last', 'forecast', 're2pix')


class Picture(NamedTuple):
    """A clip as it is shown: `sheet` uint8 [H, W, 3], `film` uint8 [T, H, W, 3]."""

    caption: str
    sheet: np.ndarray
    film: np.ndarray
    fps: float


def draw(part, evaluation, count: int, term: str = '') -> list[Picture]:
    """The first `count` clips."""
    if not count:
        return []
    head = next((e.parts for e in evaluation.evaluators if isinstance(e, Segmentation)), ()) or None
    head = jax.device_get(head)  # wherever an evaluation placed it
    batches = evaluation.open_split(evaluation.data.split, count, evaluation.data.frames, count)
    try:
        local = filled(next(batches), batches.rows, 0, count)
        names = [batches.record_name(record) for record in local['record']]
    finally:
        batches.close()
    if evaluation.last:
        local = evaluation.only_last(local)
    found = jax.device_get(
        jax.jit(
            lambda part, batch: _arrays(
                views.views_of(
                    part,
                    batch,
                    evaluation.horizon,
                    evaluation.last,
                    evaluation.sampling,
                    evaluation.seed,
                ),
                head,
                batch,
            )
        )(part, local)
    )
    context, last = views.context_of(part), evaluation.horizon - 1
    steps = [last] if evaluation.last else range(evaluation.horizon)
    stride = 1 / float(np.median(evaluation.rates))
    seconds = stride * np.array([*range(1 - context, 1), *(step + 1 for step in steps)])
    drawn = []
    for row, name in enumerate(names[:count]):
        shown = _rows(local, found, row, context)
        caption = f'{term + ", " if term else ""}{name}'
        drawn.append(
            Picture(caption, panels.sheet(shown, seconds), panels.video(shown, seconds), 1 / stride)
        )
    return drawn


def of_training(part, evaluation, count: int) -> list[tuple]:
    """(name, sheet, film, frames a second) of the first `count` clips, for a run's boards; on the
    first process alone, of a part whose arrays lie wherever the run has them.
    """
    if not count:
        return []
    whole = jax.tree.map(
        lambda x: x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True),
        part,
    )
    if jax.process_index():
        return []
    with jax.set_mesh(jax.sharding.Mesh(jax.local_devices()[:1], ('data',))):
        return [
            (f'clips/{number}', picture.sheet, picture.film, picture.fps)
            for number, picture in enumerate(draw(jax.device_get(whole), evaluation, count))
        ]


def _arrays(shown, head, batch):
    """{kind: {method: array}} of what is drawn."""
    size = batch['frames'].shape[2:4]
    return {
        'frames': {m: shown[m].frames for m in FRAMES if m in shown},
        'components': {
            m: shown[m].components[..., :3]
            for m in ('context', *COMPONENTS)
            if m in shown and 'context' in shown  # where nothing is forecast there are none
        },
        'labels': {m: head.labels(shown[m].features, tuple(size)) for m in LABELS if m in shown}
        if head is not None
        else {},
    }


def _rows(local, found, row, context) -> list[panels.Panel]:
    frames, size = local['frames'][row], local['frames'].shape[2:4]
    past, future = list(frames[:context]), len(frames) - context
    rows = [panels.Panel('frames', list(frames))]
    for method, values in found['frames'].items():
        rows.append(panels.Panel(views.TITLES[method], [*past, *values[row]]))
    if 'labels' in local and (local['labels'][row] != IGNORE).any():
        rows.append(panels.Panel('labels', [_labels(x, size) for x in local['labels'][row]]))
    for method, values in found['labels'].items():
        read = [_labels(x, size) for x in np.broadcast_to(values[row], (future, *size))]
        rows.append(
            panels.Panel(f'labels, {views.TITLES[method]}', [None] * context + read, 'context')
        )
    reference = found['components'].get('context', {row: None})[row]
    for method in COMPONENTS:
        if method in found['components'] and reference is not None:
            both = np.concatenate([reference, found['components'][method][row]])
            shades = list(colours.principal_colours(both, reference, size))
            rows.append(panels.Panel(f'features, {views.TITLES[method]}', shades))
    return rows


def _labels(labels, size):
    box = windows.Box(0, 0, *labels.shape)
    return colours.label_colours(windows.pick(labels[None], box, size)[0])
