"""Sheets of evaluated clips: frames, labels that a head reads, and components as colours."""

import jax
import numpy as np

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import windows
from re2pix_jax.evaluation import views
from re2pix_jax.evaluation.batches import filled
from re2pix_jax.evaluation.evaluators.segmentation import Segmentation
from re2pix_jax.report import colours, panels

FRAMES = ('re2pix', 'vae')
COMPONENTS = ('truth', 'forecast', 're2pix')
LABELS = ('truth', 'copy_last', 'forecast', 're2pix')


def draw(part, evaluation, count: int, term: str = '') -> list[tuple[str, np.ndarray]]:
    """(caption, uint8 [H, W, 3]) of the first `count` clips of this process."""
    if not count:
        return []
    head = next((e.parts for e in evaluation.evaluators if isinstance(e, Segmentation)), ()) or None
    batches = evaluation.open_split(evaluation.data.split, count, evaluation.data.frames, count)
    try:
        local = filled(next(batches), count * jax.process_count(), 0, count * jax.process_count())
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
    stride = evaluation.data.strides[0] / windows.BASE_FPS
    seconds = stride * np.array([*range(1 - context, 1), *(step + 1 for step in steps)])
    return [
        (
            f'{term + ", " if term else ""}{name}',
            panels.sheet(_rows(local, found, row, context), seconds),
        )
        for row, name in enumerate(names[:count])
    ]


def _arrays(shown, head, batch):
    """{kind: {method: array}} of what is drawn."""
    size = batch['frames'].shape[2:4]
    return {
        'frames': {m: shown[m].frames for m in FRAMES if m in shown},
        'components': {
            m: shown[m].components[..., :3] for m in ('context', *COMPONENTS) if m in shown
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
    reference = found['components']['context'][row]
    for method in COMPONENTS:
        if method in found['components']:
            both = np.concatenate([reference, found['components'][method][row]])
            shades = list(colours.principal_colours(both, reference, size))
            rows.append(panels.Panel(f'features, {views.TITLES[method]}', shades))
    return rows


def _labels(labels, size):
    box = windows.Box(0, 0, *labels.shape)
    return colours.label_colours(windows.pick(labels[None], box, size)[0])
