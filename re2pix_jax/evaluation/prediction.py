"""Predicts the future of one clip, measures it where the truth is known, and writes what people
look at.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from re2pix_jax import bundles
from re2pix_jax.data import video, windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.evaluators import features as feature_metrics
from re2pix_jax.evaluation.evaluators import image, segmentation
from re2pix_jax.report import colours, panels
from re2pix_jax.tasks.task import with_dtype

FORMAT = 1
"""Of metrics.json."""

MINIMUM_SIZE = 0.5
"""Frames whose height or width is below this share of the model's shorter side are refused: they
would be blown up beyond use. [O]
"""

FRAMES_AT_ONCE = 16
"""How many frames are measured together."""

WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class Clip(NamedTuple):
    """A context and what is known of its future.

    Attributes:
        name: where it comes from.
        frames: uint8 [M + K, H, W, 3] at the model's size and rate, K <= horizon true future
            frames.
        labels: uint8 [M + K, H, W], train ids, or None.
        start: seconds into the source at which the context begins.
    """

    name: str
    frames: np.ndarray
    labels: np.ndarray | None = None
    start: float = 0.0


class Prediction(NamedTuple):
    """A `pipeline.Future` with a leading axis of futures, the clip that it continues, and the
    metrics of every step.
    """

    clip: Clip
    future: Any
    report: dict


def load_model(name, dtype='float32'):
    """The Re2Pix model of that name, computing in `dtype`. Raises UserError for an unknown name or
    a bundle of another kind.
    """
    return with_dtype(bundles.load(name, kind='re2pix'), dtype)


def check_source(path, world):
    """Raises UserError unless exactly one of a readable video and a well-formed 'split:index' is
    given.
    """
    if bool(path) == bool(world):
        raise UserError(
            f'--video and --world: expected one of them, got {"both" if path else "neither"}; '
            'give --video=drive.mp4 or --world=validation:3'
        )
    if world:
        parse_world(world)
    else:
        video.probe(path)


def parse_world(text):
    """'validation:3' → ('validation', 3). Raises UserError for another form or an unknown split."""
    from re2pix_jax.data.sources import world

    split, _, index = text.partition(':')
    if split not in world.CLIPS or not (index.isascii() and index.isdigit()):
        raise UserError(
            f'--world={text}: expected SPLIT:INDEX with a split of {", ".join(world.CLIPS)} and '
            'an index from 0 on, '
            'e.g. --world=validation:3'
        )
    return split, int(index)


def stride_of(model):
    """The model's step in frames of the base rate, 17 Hz. Raises UserError where it is not a whole
    number.
    """
    stride = round(windows.BASE_FPS / model.fps)
    if stride < 1 or abs(stride * model.fps / windows.BASE_FPS - 1) > 0.01:
        raise UserError(
            f'the model runs at {model.fps:g} frames per second, a frame rate that no whole '
            'stride of '
            f'{windows.BASE_FPS:g} frames per second makes; use a video instead'
        )
    return stride


def read_video(model, path, horizon, start=0.0):
    """`Clip` of a video file or an image folder from `start` seconds on, at the model's rate and
    size.

    Raises UserError: no such file, not a video, too slow for the model's rate, fewer frames than
        the context, too
    small.
    """
    frames = video.read(
        path,
        fps=model.fps,
        start=start,
        max_frames=model.context_frames + horizon,
        size=model.size,
        min_frames=model.context_frames,
        min_size=round(MINIMUM_SIZE * min(model.size)),
    )
    return Clip(str(path), frames, start=start)


def read_world(model, text, horizon, start=0.0):
    """`Clip`, with labels, of the procedural world: 'split:index' from `start` seconds on."""
    from re2pix_jax import world

    split, index = parse_world(text)
    video.check_start(start)
    first = round(start * windows.BASE_FPS)
    indices = first + stride_of(model) * np.arange(model.context_frames + horizon)
    rendered = world.render(split, index, [int(k) for k in indices], model.size)
    return Clip(f'world {split}:{index}', rendered.frames, rendered.labels, start)


def predict(
    model,
    clip,
    horizon=8,
    seed=0,
    num_futures=1,
    name='model',
    guidance=0.0,
    guidance_channels=8,
    sampler='euler',
    sampler_steps=None,
    channels=None,
):
    """Predicts `num_futures` futures of `horizon` frames after a clip's context and measures them.

    The options from `guidance` on are those of `Re2Pix.rollout`, which raises UserError for what
    cannot be.

    Returns:
        `Prediction`. Its report holds the protocol, the model's `name` and one row a step, of PSNR
        in dB, SSIM, feature error (SmoothL1 on the principal components of the frame; beside it,
        for Re2Pix, that of stage 1's forecast) and, where labels are known and the model has a
        head, the mIoU of that one frame. They are given for Re2Pix (mean over the futures), the
        last context frame repeated ('copy_last'), the true frame through the VAE ('vae') and, mIoU
        only, the true frame ('truth'). A step whose truth is unknown has no numbers.
    """
    drawn = dict(guidance=guidance, sampler=sampler, sampler_steps=sampler_steps)
    future = model.predict(
        clip.frames[: model.context_frames],
        horizon,
        seed,
        num_futures,
        guidance_channels=guidance_channels,
        channels=channels,
        **drawn,
    )
    futures, copy, vae, truth = _measure(model, clip, future)
    steps = []
    for step in range(horizon):
        row = {'step': step + 1, 'seconds': (step + 1) / model.fps}
        if step < len(copy):
            mean = {
                name: _mean([values[step][name] for values in futures]) for name in futures[0][step]
            }
            row |= {'re2pix': mean, 'copy_last': copy[step], 'vae': vae[step]}
            row |= {'truth': truth[step]} if truth else {}
        steps.append(row)
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
            'true_future_frames': len(copy),
            'start_seconds': clip.start,
            'sampler': sampler,
            'sampler_steps': model.sampler_steps if sampler_steps is None else sampler_steps,
            'network_evaluations': model.evaluations(horizon, **drawn),
            'dtype': model.generator.net.dtype,
            'channels': channels or model.generator.net.components,
            'guidance_channels': guidance_channels if guidance else None,
        },
        'steps': steps,
    }
    if num_futures > 1:
        report['futures'] = [
            {'future': number, 'steps': values} for number, values in enumerate(futures)
        ]
    return Prediction(clip, future, report)


def _measure(model, clip, future):
    """Rows for each true future frame: one list a future, then copy-last, VAE and (with labels)
    truth.
    """
    context = model.context_frames
    frames, known = clip.frames[context:], len(clip.frames) - context
    if not known:
        return [[] for _ in future.frames], [], [], []
    labels = clip.labels[context:] if clip.labels is not None and model.head is not None else None
    components = _in_parts(model.forecaster.encode, clip.frames)
    reconstructed = _in_parts(lambda clip: model.vae.decode(model.vae.encode(clip)), frames)
    repeated = np.broadcast_to(clip.frames[context - 1], frames.shape)

    def rows(predicted, **forecast):
        columns = {
            'psnr': image.psnr(predicted, frames),
            'ssim': image.ssim(predicted, frames),
            'feature_error': error_of(_in_parts(model.forecaster.encode, predicted)),
            **{
                name: error_of(forecast_components)
                for name, forecast_components in forecast.items()
            },
        }
        found = [{name: float(values[k]) for name, values in columns.items()} for k in range(known)]
        return [row | scores for row, scores in zip(found, segmented(predicted), strict=True)]

    def error_of(predicted_components):
        return np.asarray(feature_metrics.smooth_l1(predicted_components, components[context:]))

    def segmented(predicted):
        if labels is None:
            return [{} for _ in range(known)]
        guessed = _in_parts(model.segment, predicted)
        scores = [
            segmentation.Confusion.create().update(labels[k], guessed[k]).scores().to_dict()
            for k in range(known)
        ]
        return [{name: values[name] for name in ('miou', 'moving_miou')} for values in scores]

    futures = [
        rows(future.frames[n][:known], forecast_error=future.components[n][:known])
        for n in range(len(future.frames))
    ]
    return (
        futures,
        rows(repeated),
        rows(reconstructed),
        segmented(frames) if labels is not None else [],
    )


def _in_parts(function, frames):
    """`function` of clips [1, T, H, W, 3] over frames [T, H, W, 3], a few at a time: memory does
    not grow with T.
    """
    parts = [
        frames[start : start + FRAMES_AT_ONCE] for start in range(0, len(frames), FRAMES_AT_ONCE)
    ]
    longest = len(parts[0])  # the last one is filled up to it, so that one program serves all
    filled = [
        np.pad(part, [(0, longest - len(part)), (0, 0), (0, 0), (0, 0)], mode='edge')
        for part in parts
    ]
    return np.concatenate(
        [
            np.asarray(function(part[None])[0])[: len(kept)]
            for part, kept in zip(filled, parts, strict=True)
        ]
    )


def _mean(values):
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def pictures(model, prediction):
    """The panels of a prediction and the seconds of their frames: truth, every predicted future,
    predicted and true features.

    The features are the first three principal components as colours, scaled by the context's; the
    predicted ones are stage 1's.
    """
    clip, future = prediction.clip, prediction.future
    context, horizon = model.context_frames, future.frames.shape[1]
    past, size = clip.frames[:context], model.size
    components = _in_parts(model.forecaster.encode, clip.frames)
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


def write(folder, model, prediction):
    """Writes future.mp4 (the panels side by side), sheet.png (the panels through time) and
    metrics.json to a folder.
    """
    folder = pathlib.Path(folder)
    shown, seconds = pictures(model, prediction)
    report = prediction.report
    video.write(folder / 'future.mp4', panels.video(shown, seconds), model.fps)
    heading = f'{report["model"]} on {report["source"]}, seed {report["seed"]}'
    Image.fromarray(panels.sheet(shown, seconds, heading)).save(folder / 'sheet.png')
    (folder / 'metrics.json').write_text(json.dumps(report, indent=2, allow_nan=False) + '\n')


@contextlib.contextmanager
def staged(out):
    """A folder inside `out` for the output; when all is well its files move to `out`, otherwise
    nothing is left of it.

    Raises UserError where `out` can't be written, before any work is done, and where the disk runs
    full later.
    """
    out = pathlib.Path(out)
    made = not out.exists()
    staging = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = pathlib.Path(tempfile.mkdtemp(prefix='.partial-', dir=out))
    except OSError as error:
        raise UserError(
            f"{out}: can't be written ({error.strerror.lower()}); choose another folder or make "
            'this one writable'
        ) from error
    try:
        yield staging
        for file in sorted(staging.iterdir()):
            os.replace(file, out / file.name)
    except OSError as error:
        if error.errno not in WRITE_ERRORS:
            raise
        raise UserError(
            f'{out}: writing failed ({os.strerror(error.errno).lower()}); nothing half-written '
            'was left, '
            'free some space or choose another folder'
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if made and not any(out.iterdir()):
            out.rmdir()
