"""Stage 1 by the protocol of its field [R]: from four context frames, the features of one later
frame, read by heads.

The predicted frame is the one that the dataset labels (`Source.target`); the context moves back
with the term, at stride 3: one step (short), three (mid) or six (long) before it. Three sets of
features are compared:

- forecast: rolled out by the model; copy_last: those of the last context frame; oracle: those of
  the frame itself, what a perfect forecast would score.

All of them are read through the principal components, as heads are trained. Depth is compared with
the source's where both are in metres or both are published ordinal classes, and true normals are
derived from metres alone. Nothing depends on the batch size, on
the number of devices or on that of processes: sums go over clips and pixels, and what fills up a
    last batch counts for nothing.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import bundles, cityscapes
from re2pix_jax.data import loader, records, sources, windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.batches import whole
from re2pix_jax.evaluation.evaluators import features as feature_metrics
from re2pix_jax.evaluation.evaluators import segmentation
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.normals import LIMITS, NormalErrors, from_depth
from re2pix_jax.evaluation.protocol import fingerprint
from re2pix_jax.heads import Head
from re2pix_jax.progress import track
from re2pix_jax.report import colours, panels, table
from re2pix_jax.training import mesh as meshes

FORMAT = 1
METHODS = ('forecast', 'copy_last', 'oracle')


class Picture(NamedTuple):
    """What a clip's panels are drawn from, numpy."""

    name: str
    frames: np.ndarray  # uint8 [M + 1, H, W, 3], context and target
    labels: np.ndarray  # uint8 [h, w]
    components: dict  # method → [grid, P]
    guessed: dict  # method → uint8 [h, w]


def evaluate(forecaster, heads: dict, config):
    """All numbers of a forecaster, and pictures.

    Args:
        forecaster: `Forecaster`.
        heads: name → `Head` for that forecaster's encoder: segmentation, depth or normals, any of
            them.
        config: as configs/eval_forecaster.py makes it; its `heads` are what the report calls them.

    Returns:
        (JSON-able report {'format', 'protocol', 'terms': {term: {method: {metric: value}}},
        'left_out'}, {term: list of `Picture`}).

    Raises:
        UserError: a term that is not known or does not fit the clips, settings out of range, a head
            of other features or of another encoder, a truth of another kind than the head's or
            smaller than `config.label_size`.
    """
    _check(config)
    _check_heads(forecaster, heads)
    mesh = meshes.create(config.mesh.data, config.mesh.model)
    meshes.check_batch_size(config.batch_size, mesh)
    size = tuple(side * forecaster.encoder.net.patch_size for side in forecaster.net.grid)
    label_size = tuple(config.label_size) or size
    source = sources.open_source(config.source, config.split, size, config.clips)
    windows = _windows(config, source, forecaster.net.frames - 1)
    _check_depth(config, heads, source)
    _check_sizes(config, heads, source, size, label_size)
    report, pictures = {}, {}
    with jax.set_mesh(mesh):
        parts = jax.device_put((forecaster, heads), meshes.replicated(mesh))
        for term in config.terms:
            report[term], pictures[term], clips = _evaluate_term(
                *parts, config, term, size, label_size, mesh
            )
    metrics = {'segmentation': 'mIoU', 'depth': 'depth errors', 'normals': 'angular errors'}
    left_out = [f'{metrics[name]}: no head given' for name in metrics if name not in heads]
    left_out += [
        f'{metrics[name]}: split {config.split} of {config.source} has no labels for it'
        for name in heads
        if all(method[name] is None for method in next(iter(report.values())).values())
    ]
    protocol = {
        'source': config.source,
        'split': config.split,
        'clips': clips,
        'context_frames': forecaster.net.frames - 1,
        'stride': windows.STRIDE,
        'steps': {term: windows.TERMS[term] for term in config.terms},
        **windows,
        'size': list(size),
        'label_size': list(label_size),
        'components': forecaster.net.components,
        'heads': {
            name: {'bundle': config.heads.get(name, ''), 'sha256': fingerprint(head.params)}
            for name, head in heads.items()
        },
        'field_of_view': config.field_of_view,
    }
    return {'format': FORMAT, 'protocol': protocol, 'terms': report, 'left_out': left_out}, pictures


def _check(config):
    for term in config.terms:
        if term not in windows.TERMS:
            raise UserError(f'config.terms: {term!r} is none of {", ".join(windows.TERMS)}')
    for name, least in (('batch_size', 1), ('clips', 0), ('pictures', 0)):
        if config[name] < least:
            raise UserError(f'config.{name} = {config[name]}: expected at least {least}')
    if not config.terms:
        raise UserError(f'config.terms is empty: expected some of {", ".join(windows.TERMS)}')
    if not 0 < config.field_of_view < 180:
        raise UserError(
            f'config.field_of_view = {config.field_of_view}: expected degrees between 0 and 180'
        )
    if config.source.startswith('encoded:'):
        raise UserError(
            f'config.source = {config.source}: encoded clips hold neither frames nor labels; give '
            'the clips that they were '
            'encoded from'
        )


def _check_heads(forecaster, heads):
    channels = forecaster.principal.components.shape[1]
    encoder = (
        bundles.identity(forecaster.encoder)
        if any(head.encoder for head in heads.values())
        else None
    )
    for name, head in heads.items():
        if head.reads != name:
            raise UserError(
                f'config.heads.{name}: reads {head.reads}; expected a head that reads {name}'
            )
        if head.channels != channels:
            raise UserError(
                f'config.heads.{name}: takes features of {head.channels} channels, the '
                f"forecaster's encoder gives {channels}; "
                'use a head that was trained for this encoder'
            )
        if head.encoder not in (None, encoder):
            raise UserError(
                f'config.heads.{name}: was trained on another encoder ({head.encoder[:12]}) than '
                "the forecaster's "
                f'({encoder[:12]}); use a head that was trained for this encoder'
            )


def _windows(config, source, context):
    """{'target': native frames that are forecast, the same in all clips of a dataset; 'context':
    {term: for each of them its context}}.

    Raises:
        UserError: a clip that begins too late for one of the terms, before any of them is
            evaluated.
    """
    found = {term: {} for term in config.terms}
    for index in range(min(config.clips or len(source), len(source))):
        target = getattr(source, 'target', lambda _: None)(index)
        try:
            if target is None:
                raise UserError('has no frame that a protocol evaluates; give a source that has')
            for term in config.terms:
                window = windows.target_window(
                    target, context + windows.TERMS[term], windows.STRIDE
                )
                found[term][int(target)] = window[:context].tolist()
        except UserError as error:
            raise UserError(f'{config.source}/{source.name(index)}: {error}') from error
    targets = sorted(found[config.terms[0]])
    return {
        'target': targets,
        'context': {term: [found[term][target] for target in targets] for term in config.terms},
    }


def _check_depth(config, heads, source):
    """Refuses to compare ordinal classes with metres: their scores mean nothing."""
    kind_of = getattr(source, 'depth_kind', lambda _: None)
    kinds = {kind_of(index) for index in range(len(source))} - {None}
    if 'depth' in heads:
        mine, theirs = ('classes', 'metres')[:: -1 if heads['depth'].depth_range else 1]
        if theirs in kinds:
            words = {'classes': 'ordinal classes', 'metres': 'metres'}
            raise UserError(
                f'config.heads.depth: gives {words[mine]}, and the depth of {config.source} is '
                f'{words[theirs]}; use a head for '
                f'{words[theirs]}, a source of {words[mine]}, or leave it empty'
            )
    if 'normals' in heads and 'classes' in kinds:
        raise UserError(
            f'config.heads.normals: the depth of {config.source} is ordinal classes, and normals '
            'are derived from metres; '
            'use a source of metres, or leave it empty'
        )


def _check_sizes(config, heads, source, size, label_size):
    """Refuses labels and depth that would have to be enlarged: scores of invented pixels mean
    nothing.
    """
    needed = {'labels': 'labels'} | (
        {'depth': 'depth maps'} if {'depth', 'normals'} & heads.keys() else {}
    )
    for stored in _stored_sizes(source):
        box = windows.centre_box(*stored['frames'], size)
        for name, words in needed.items():
            if stored[name] is None:
                continue
            found = [
                round(side * of / frame)
                for side, of, frame in zip((box.height, box.width), stored[name], stored['frames'])
            ]
            if found[0] < label_size[0] or found[1] < label_size[1]:
                raise UserError(
                    f'config.label_size = {label_size}: {words} of {config.source} have '
                    f'{found[0]}x{found[1]} pixels; ask for '
                    'no more than that'
                )


def _stored_sizes(source):
    """Distinct {'frames', 'labels', 'depth': (height, width), None where nothing is known}, of all
    prepared clips or of another source's first one.
    """
    if isinstance(source, records.Records):
        sizes = ((clip['size'], clip['label_size'], clip['depth_size']) for clip in source.clips)
        return [
            dict(zip(('frames', 'labels', 'depth'), found))
            for found in {tuple(x and tuple(x) for x in clip) for clip in sizes}
        ]
    target = getattr(source, 'target', lambda _: None)
    if not len(source) or target(0) is None or target(0) >= source.num_frames(0):
        return []  # the loader says what is wrong
    clip = source.read(0, [target(0)])
    known = {
        'frames': True,
        'labels': (clip['labels'] != cityscapes.IGNORE).any(),
        'depth': clip['depth'].any(),
    }
    return [{name: clip[name].shape[1:3] if there else None for name, there in known.items()}]


def _evaluate_term(forecaster, heads, config, term, size, label_size, mesh):
    """({method: {metric: value}}, pictures, number of clips) of one term."""
    context, steps = forecaster.net.frames - 1, windows.TERMS[term]
    data = ConfigDict(
        {
            'sources': (config.source,),
            'split': config.split,
            'size': size,
            'frames': context + steps,
            'strides': (windows.STRIDE,),
            'window': 'target',
            'label_size': label_size,
            'clips': config.clips,
            'workers': config.workers,
        }
    )
    batches = loader.create(data, config.batch_size, training=False)
    limit = min(config.clips or batches.clips, batches.clips)
    fixed = {'steps': steps, 'label_size': label_size, 'field_of_view': config.field_of_view}
    observe = jax.jit(functools.partial(_observe, **fixed), out_shardings=meshes.replicated(mesh))
    readings = {method: {name: ERRORS[name]() for name in heads} for method in METHODS}
    values, pictures = {method: [] for method in METHODS}, []
    try:
        numbered = zip(batches, range(0, limit, config.batch_size))
        for local, first in track(
            numbered,
            limit,
            f'evaluate {term}',
            size=lambda item: min(config.batch_size, limit - item[1]),
        ):
            batch = _compared(whole(local, config.batch_size, first, limit), context)
            readings, seen = observe(forecaster, heads, readings, meshes.global_batch(batch, mesh))
            seen = jax.device_get(seen)
            for method in METHODS:
                errors = seen[method]['errors'].items()
                values[method].append(
                    {name: np.asarray(error, np.float64)[seen['known']] for name, error in errors}
                )
            if len(pictures) < config.pictures:
                pictures += _pictures(batches, batch, seen)[: config.pictures - len(pictures)]
    finally:
        batches.close()
    if not limit:
        raise UserError(f'{config.source}: split {config.split} holds no clips to evaluate')
    return (
        {method: _scores(readings[method], values[method]) for method in METHODS},
        pictures,
        limit,
    )


def _compared(batch, context):
    """Of each clip what counts: context and target frame, and the target's labels."""
    frames = [*range(context), batch['frames'].shape[1] - 1]
    return batch | {
        'frames': batch['frames'][:, frames],
        'labels': batch['labels'][:, -1],
        'depth': batch['depth'][:, -1],
    }


def _observe(forecaster, heads, readings, batch, steps, label_size, field_of_view):
    """Adds a batch to the readings; gives back each clip's errors and what pictures are drawn
    from.
    """
    components = forecaster.encode(batch['frames'])
    past, truth = components[:, :-1], components[:, -1]
    forecast = forecaster.forecast(past, steps)[:, -1]
    compared = jnp.stack(
        [forecast, past[:, -1], truth], axis=1
    )  # the methods side by side, where a head expects time
    features = forecaster.features(compared)
    smooth_l1 = feature_metrics.smooth_l1(compared, truth[:, None])
    cosine = feature_metrics.cosine(features, features[:, METHODS.index('oracle'), None])
    seen = {'known': batch['known'], 'context': past[:, -1]}
    for k, method in enumerate(METHODS):
        seen[method] = {
            'errors': {'smooth_l1': smooth_l1[:, k], 'cosine': cosine[:, k]},
            'components': compared[:, k],
        }
    truths = {
        'segmentation': lambda: batch['labels'],
        'depth': lambda: batch['depth'],
        'normals': lambda: from_depth(batch['depth'], field_of_view),
    }
    added = {method: {} for method in METHODS}
    for name, head in heads.items():
        read, true = READ[name](head, features, label_size), truths[name]()
        for k, method in enumerate(METHODS):
            added[method][name] = readings[method][name].update(true, read[:, k])
            if name == 'segmentation':
                seen[method]['labels'] = read[:, k]
    return added, seen


ERRORS = {
    'segmentation': segmentation.Confusion.create,
    'depth': DepthErrors.create,
    'normals': NormalErrors.create,
}
READ = {'segmentation': Head.labels, 'depth': Head.depth, 'normals': Head.normals}


def _scores(readings, values):
    """{metric: value}: means over clips of the feature errors, and each head's scores, None where
    nothing was labelled.
    """
    means = {
        name: float(np.concatenate([batch[name] for batch in values]).mean()) for name in values[0]
    }
    scores = {name: reading.scores() for name, reading in readings.items()}
    labelled = {name: reading.counts() for name, reading in readings.items()}
    return means | {
        name: scores[name].to_dict() if _any(labelled[name]) else None for name in readings
    }


def _any(counts) -> bool:
    return bool(counts['pixels'] if isinstance(counts, dict) else counts.any())


def _pictures(batches, batch, seen) -> list[Picture]:
    """Of this process's clips."""
    names = [batches.record_name(record) for record in batch['record']]
    return [
        Picture(
            names[row],
            batch['frames'][row],
            batch['labels'][row],
            {
                'context': seen['context'][row],
                **{method: seen[method]['components'][row] for method in METHODS},
            },
            {method: seen[method]['labels'][row] for method in METHODS if 'labels' in seen[method]},
        )
        for row in np.flatnonzero(batch['known'])
    ]


def sheet(picture: Picture, term: str):
    """(caption, uint8 [H, W, 3]): last context frame, target and forecast side by side, as frames,
    labels and components.
    """
    height, width = picture.frames.shape[1:3]

    def label(labels):
        return colours.label_colours(
            windows.pick(labels[None], windows.Box(0, 0, *labels.shape), (height, width))[0]
        )

    def component(name):
        return colours.principal_colours(
            picture.components[name][None], picture.components['context'][None], (height, width)
        )[0]

    rows = [
        panels.Panel('frames', [picture.frames[-2], picture.frames[-1], None], 'to be forecast')
    ]
    if (picture.labels != cityscapes.IGNORE).any():
        rows.append(panels.Panel('labels', [None, label(picture.labels), None], ''))
    if picture.guessed:
        rows.append(
            panels.Panel(
                'read from features',
                [label(picture.guessed[method]) for method in ('copy_last', 'oracle', 'forecast')],
            )
        )
    rows.append(
        panels.Panel('components', [component(name) for name in ('context', 'oracle', 'forecast')])
    )
    seconds = windows.TERMS[term] * windows.STRIDE / windows.BASE_FPS
    return f'{term}, {picture.name}: last context frame, target, forecast', panels.sheet(
        rows, np.array([0.0, seconds, seconds])
    )


def describe(report) -> str:
    """A report as text: a table a term, with its protocol."""
    protocol, blocks = report['protocol'], []
    for term, methods in report['terms'].items():
        steps = protocol['steps'][term]
        height, width = protocol['label_size']
        heading = (
            f'{term}-term: {report.get("model", "model")} on {protocol["clips"]} clips of '
            f'{protocol["source"]}, split '
            f'{protocol["split"]}: {protocol["context_frames"]} context frames at stride '
            f'{protocol["stride"]}, the frame {steps} '
            f'step{"s" if steps > 1 else ""} later; frames '
            f'{"x".join(map(str, protocol["size"]))}, labels {height}x{width}'
        )
        rows = [
            [title, *(_value(methods[method], path, scale) for method in METHODS)]
            for title, path, scale in ROWS
        ]
        blocks.append(
            heading
            + '\n'
            + table.table(
                ['', *METHODS], [row for row in rows if any(cell is not None for cell in row[1:])]
            )
        )
    heads = [
        f'{name} {head["bundle"]} (sha256 {head["sha256"][:12]})'
        for name, head in protocol['heads'].items()
    ]
    if heads:
        view = (
            f'; true normals for a field of view of {protocol["field_of_view"]:g} degrees'
            if 'normals' in protocol['heads']
            else ''
        )
        blocks.append(f'heads: {", ".join(heads)}{view}')
    return '\n\n'.join(blocks + [f'left out: {reason}' for reason in report['left_out']])


ROWS = (
    ('component SmoothL1', ('smooth_l1',), 1),
    ('feature cosine', ('cosine',), 1),
    ('mIoU %', ('segmentation', 'miou'), 100),
    ('moving-object mIoU %', ('segmentation', 'moving_miou'), 100),
    *((f'depth delta{k} %', ('depth', f'delta{k}'), 100) for k in (1, 2, 3)),
    ('depth AbsRel', ('depth', 'abs_rel'), 1),
    ('depth RMSE', ('depth', 'rmse'), 1),
    ('depth log10', ('depth', 'log10'), 1),
    ('depth SILog', ('depth', 'silog'), 1),
    ('normals mean, degrees', ('normals', 'mean'), 1),
    ('normals median, degrees', ('normals', 'median'), 1),
    *(
        (
            f'normals under {name.removeprefix("under_").replace("_", ".")} degrees %',
            ('normals', name),
            100,
        )
        for name in LIMITS
    ),
)


def _value(scores, path, scale):
    for name in path:
        scores = scores.get(name) if scores else None
    return None if scores is None else scale * scores
