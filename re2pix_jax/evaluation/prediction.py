"""Predicts a clip's future, measures it where truth is known, and writes what people look at."""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from re2pix_jax import bundles, errors, files, world
from re2pix_jax.data import video, windows
from re2pix_jax.data.sources.world import CLIPS
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import evaluators, tables, views
from re2pix_jax.evaluation.held_out import stride_of
from re2pix_jax.evaluation.results import Report
from re2pix_jax.nn.precision import with_dtype
from re2pix_jax.report import colours, panels

FORMAT = 2
"""Of metrics.json."""

MINIMUM_SIZE = 0.5
"""A smaller share of the model's shorter side is refused: frames would be too blown up. [O]"""

EVALS = {'components': {'type': 'components'}, 'image': {'type': 'image'}}
LABELLED = {'segmentation': {'type': 'segmentation'}}
"""What is measured of a clip, and where labels are known: as config.evals elsewhere."""


class Clip(NamedTuple):
    """A context and what is known of its future.

    Attributes:
        name: where it comes from.
        frames: uint8 [M + K, H, W, 3], the model's size and rate; K <= horizon of them future.
        labels: uint8 [M + K, H, W], train ids, or None.
        start: seconds into the source at which the context begins.
    """

    name: str
    frames: np.ndarray
    labels: np.ndarray | None = None
    start: float = 0.0


class Prediction(NamedTuple):
    """A `model.Future` with a leading axis of futures, the clip that it continues, and the metrics
    of every step.
    """

    clip: Clip
    future: Any
    report: dict


def load_model(name, dtype='float32'):
    """The Re2Pix model of that name, computing in `dtype`.

    Raises:
        UserError: an unknown name or a bundle of another kind.
    """
    return with_dtype(bundles.load(name, kind='re2pix'), dtype)


def check_source(paths, world):
    """Raises UserError unless exactly one of videos, of which a single one is readable, and a
    well-formed 'split:index' is given.
    """
    if bool(paths) == bool(world):
        raise UserError(
            f'--video and --world: expected one of them, got {"both" if paths else "neither"}; '
            'give --video=drive.mp4 or --world=validation:3'
        )
    if world:
        parse_world(world)
    elif len(paths) == 1 and not pathlib.Path(paths[0]).is_dir():
        video.probe(paths[0])


def parse_world(text):
    """'validation:3' → ('validation', 3). Raises UserError for another form or an unknown split."""
    split, _, index = text.partition(':')
    if split not in CLIPS or not (index.isascii() and index.isdigit()):
        raise UserError(
            f'--world={text}: expected SPLIT:INDEX with a split of {", ".join(CLIPS)} and an index '
            'from 0 on, e.g. --world=validation:3'
        )
    return split, int(index)


def least_side(model) -> int:
    """Of a video's height and width, in pixels."""
    return round(MINIMUM_SIZE * min(model.size))


def read_video(model, path, horizon, start=0.0, folder_fps=windows.BASE_FPS):
    """`Clip` of a video file, or of an image folder taken at `folder_fps`, from `start` seconds on,
    at the model's rate and size, as far as nothing interrupts the recording.

    Raises:
        UserError: no such file, not a video, too slow for the model's rate, fewer frames than the
            context, a context across a pause, too small.
    """
    frames = video.read(
        path,
        fps=model.fps,
        start=start,
        max_frames=model.context_frames + horizon,
        size=model.size,
        min_frames=model.context_frames,
        min_size=least_side(model),
        folder_fps=folder_fps,
        unbroken=True,
    )
    return Clip(str(path), frames, start=start)


def read_world(model, text, horizon, start=0.0):
    """`Clip`, with labels, of the procedural world: 'split:index' from `start` seconds on."""
    split, index = parse_world(text)
    video.check_start(start)
    first = round(start * windows.BASE_FPS)
    indices = first + stride_of(model) * np.arange(model.context_frames + horizon)
    rendered = world.render(split, index, [int(k) for k in indices], model.size)
    return Clip(f'world {split}:{index}', rendered.frames, rendered.labels, start)


def predict(
    model,
    clip: Clip,
    horizon=8,
    seed=0,
    num_futures=1,
    name='model',
    **options,
) -> Prediction:
    """Predicts `num_futures` futures of `horizon` frames after a clip's context and measures them.

    The options are those of `Re2Pix.rollout_encoded`, from guidance to context_noise.

    Returns:
        `Prediction`. Its report holds the protocol, the model's `name` and one row a step:
        {'step', 'seconds', method: {column: number}}, the mean over the futures for 're2pix'. A
        step whose truth is unknown has no numbers.

    Raises:
        UserError: an option that the model cannot follow.
    """
    guidance = options.get('guidance', 0.0)
    asked = {name: options.get(name) for name in ('sampler', 'sampler_steps', 'sampler_grid')}
    sampler, sampler_steps, sampler_grid = model.sampling(**asked)
    with errors.blaming('predict'):
        model.drawing(**options)
    context = clip.frames[: model.context_frames]
    future = model.predict(context, horizon, seed, num_futures, **options)
    known = len(clip.frames) - model.context_frames
    measured = _measure(model, clip, future) if known else []
    futures = [_rows(report.steps, model.fps, horizon) for report in measured]
    report = {
        'format': FORMAT,
        'model': name,
        'source': clip.name,
        'seed': seed,
        'num_futures': num_futures,
        'guidance': guidance,
        'protocol': {
            'fps': model.fps,
            'stride': round(windows.BASE_FPS / model.fps),
            'base_fps': windows.BASE_FPS,
            'size': list(model.size),
            'context_frames': model.context_frames,
            'horizon': horizon,
            'true_future_frames': known,
            'start_seconds': clip.start,
            'sampler': sampler,
            'sampler_steps': sampler_steps,
            'sampler_grid': sampler_grid,
            'context_noise': options.get('context_noise', 0.0),
            'network_evaluations': model.evaluations(horizon, guidance, **asked),
            'dtype': model.generator.net.dtype,
            'channels': options.get('channels') or model.generator.net.components,
            'guidance_channels': options.get('guidance_channels', 8) if guidance else None,
        },
        'steps': _averaged(futures) if futures else _rows([], model.fps, horizon),
    }
    if num_futures > 1:
        report['futures'] = [
            {'future': number, 'steps': rows} for number, rows in enumerate(futures)
        ]
    return Prediction(clip, future, report)


def _measure(model, clip, future) -> list[Report]:
    """A report of each future: the evaluators that serve everywhere, on one clip."""
    context, known = model.context_frames, len(clip.frames) - model.context_frames
    labelled = clip.labels is not None and model.head is not None
    batch = {
        'frames': clip.frames[None],
        'known': np.ones(1, bool),
        'record': np.zeros(1, np.int32),
    }
    if labelled:
        batch['labels'] = clip.labels[None, context:]
    measuring = evaluators.create(EVALS | (LABELLED if labelled else {}))
    for one in measuring:
        one.parts = model.head if one.name in LABELLED else ()
    parts = {one.name: one.parts for one in measuring}
    reports = []
    for of_future in zip(future.frames, future.components, strict=True):
        frames, components = (values[None, :known] for values in of_future)
        found = _observe(model, parts, batch, frames, components, labelled=labelled)
        totals = {(name, m): state for name, of in found.items() for m, state in of.items()}
        reports.append(Report.of(measuring, totals, measuring))
    return reports


@functools.cache
def _measuring(labelled: bool):
    """The evaluators of a clip, for `_observe`: what they report is kept by others."""
    return evaluators.create(EVALS | (LABELLED if labelled else {}))


@functools.partial(jax.jit, static_argnames='labelled')
def _observe(model, parts, batch, frames, components, labelled):
    """{evaluator: {method: state}} of a clip's known future [1, K, ...]; compiled once for all
    clips whose truth is as long.
    """
    shown = views.views_of(model, batch, frames.shape[1], False, {}, 0)
    shown['re2pix'] = views.View(model.forecaster, frames=lambda: frames)
    shown['forecast'] = views.View(model.forecaster, components=lambda: components)
    return {
        one.name: {
            method: one.measure(parts[one.name], shown[method], shown, batch)
            for method in one.methods
            if method in shown
        }
        for one in _measuring(labelled)
    }


def _rows(steps, fps, horizon) -> list[dict]:
    """A row for every step of the horizon, those without truth without numbers."""
    found = [*steps, *[{}] * (horizon - len(steps))]
    return [
        {'step': number, 'seconds': number / fps, **columns}
        for number, columns in enumerate(found, 1)
    ]


def _averaged(futures) -> list[dict]:
    """Rows of the mean over futures; what is the same for all of them stays."""

    def mean(*values):
        numbers = [value for value in values if value is not None]
        return float(np.mean(numbers)) if numbers else None

    averaged = []
    for rows in zip(*futures, strict=True):
        row = dict(rows[0])
        if 're2pix' in row:
            row['re2pix'] = {
                name: mean(*(one['re2pix'][name] for one in rows)) for name in row['re2pix']
            }
        averaged.append(row)
    return averaged


def pictures(model, prediction):
    """The panels of a prediction and the seconds of their frames: truth, every predicted future,
    predicted and true features.

    The features are the first three principal components as colours, scaled by the context's; the
    predicted ones are stage 1's.
    """
    clip, future = prediction.clip, prediction.future
    context, horizon = model.context_frames, future.frames.shape[1]
    past, size = clip.frames[:context], model.size
    components = _components(model, clip.frames)
    true_features = list(colours.principal_colours(components, components[:context], size))
    forecast = np.concatenate([components[:context], future.components[0]])
    absent = [None] * (context + horizon - len(clip.frames))
    several = len(future.frames) > 1
    predictions = [
        panels.Panel(f'prediction {n + 1}' if several else 'prediction', [*past, *frames])
        for n, frames in enumerate(future.frames)
    ]
    shown = [
        panels.Panel('truth', [*clip.frames, *absent]),
        *predictions,
        panels.Panel(
            'predicted features',
            list(colours.principal_colours(forecast, components[:context], size)),
        ),
        panels.Panel('true features', [*true_features, *absent]),
    ]
    return shown, [(k - context + 1) / model.fps for k in range(context + horizon)]


def _components(model, frames):
    """Components [T, h, w, P] of frames [T, H, W, 3]."""
    return np.asarray(_encode(model, jnp.asarray(frames)[None]))[0]


@jax.jit
def _encode(model, frames):
    return views.by_frames(model.forecaster.encode, frames)


def write(folder, model, prediction: Prediction) -> None:
    """Writes future.mp4 (the panels side by side), sheet.png (the panels through time) and
    metrics.json to a folder.
    """
    folder = pathlib.Path(folder)
    shown, seconds = pictures(model, prediction)
    report = prediction.report
    video.write(folder / 'future.mp4', panels.video(shown, seconds), model.fps)
    heading = f'{report["model"]} on {report["source"]}, seed {report["seed"]}'
    Image.fromarray(panels.sheet(shown, seconds, heading)).save(folder / 'sheet.png')
    files.write_text(folder / 'metrics.json', json.dumps(report, indent=2, allow_nan=False) + '\n')


def describe(report: dict, fps: float) -> str:
    """A report as text: what was predicted how, and the numbers by time."""
    protocol = report['protocol']
    text = (
        f'{report["model"]} on {report["source"]}: {protocol["context_frames"]} context frames '
        f'from {protocol["start_seconds"]:g} s on at {fps:.3g} frames per second, '
        f'{"x".join(map(str, protocol["size"]))} pixels, seed {report["seed"]}; '
        f'{protocol["sampler_steps"]} {protocol["sampler"]} steps ({protocol["sampler_grid"]} '
        f'grid), {protocol["network_evaluations"]} evaluations of the generator a future'
    )
    if not protocol['true_future_frames']:
        return f'{text}\nThe video ends with the context: there is no truth to compare with.'
    steps = [
        {name: columns for name, columns in row.items() if name in views.TITLES}
        for row in report['steps']
    ]
    methods = set().union(*steps)
    blocks = [text, *tables.by_time(steps, fps), *_copying(steps), tables.legend(methods)]
    return '\n\n'.join(blocks)


def _copying(steps) -> list[str]:
    """A line where the last context frame, repeated, was nearer to the truth."""
    pairs = [
        (row['re2pix']['psnr'], row['copy_last']['psnr'])
        for row in steps
        if None not in (row.get(m, {}).get('psnr') for m in ('re2pix', 'copy_last'))
    ]
    worse = sum(copied > predicted for predicted, copied in pairs)
    if not worse:
        return []
    predicted, copied = np.mean(pairs, 0)
    return [
        f'Copying the last frame was better in PSNR at {worse} of {len(pairs)} steps: over all '
        f'{copied:.2f} dB, the prediction {predicted:.2f} dB.'
    ]
