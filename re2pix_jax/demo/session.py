"""What the page does: takes an uploaded video or says why not, shows a moment of it, predicts."""

import os
import pathlib
import shutil
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from re2pix_jax import bundles
from re2pix_jax.data import decoding, timeline
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import prediction
from re2pix_jax.heads import Head
from re2pix_jax.progress import duration
from re2pix_jax.report import colours, panels

OVERLAY = 0.55  # share of the labels' colour in what is laid over a frame [O]
MEGA = 1_000_000


class Limits(NamedTuple):
    """How much one visitor may ask for. [O]"""

    megabytes: int = 200
    seconds: int = 600
    horizon: int = 24
    futures: int = 4


class Served(NamedTuple):
    """What the page shows predictions of: a model, by its name, and a head that reads depth, where
    there is one.
    """

    name: str
    model: Any
    depth: Head | None
    limits: Limits


class Answer(NamedTuple):
    """A prediction: files to play and to keep, and what is said of it."""

    film: str
    sheet: str
    overlay: str
    text: str


def load(name: str, depth: str, limits: Limits) -> Served:
    """Opens the bundles, once for all visitors.

    Raises:
        UserError: there are none of these names.
    """
    head = bundles.load(depth, 'head') if depth else None
    if head is not None and head.reads != 'depth':
        raise UserError(f'{depth}: reads {head.reads}: expected a head that reads depth, or none')
    return Served(name, prediction.load_model(name), head, limits)


def admit(served: Served, path: str) -> float:
    """Seconds of an uploaded video in which a context may begin.

    Raises:
        UserError: the file is too large, no video, too long or too short.
    """
    name, limits = pathlib.Path(path).name, served.limits
    if os.path.getsize(path) > limits.megabytes * MEGA:
        raise UserError(f'{name}: is larger than {limits.megabytes} MB: cut a part of it')
    try:
        # What the header says is looked at before any of the file is: an honest one of ten hours is
        # refused at once.
        with decoding.opened(path) as (container, _):
            promised = (container.duration or 0) / av.time_base
        if promised <= limits.seconds:
            promised = float(timeline.of(path).times[-1])
    except (UserError, OSError) as error:
        raise UserError(f'{name}: {_without(path, error)}') from error
    if promised > limits.seconds:
        raise UserError(
            f'{name}: is {duration(promised)} long, at most {duration(limits.seconds)} are taken: '
            'cut a part of it'
        )
    needed = (served.model.context_frames - 1) / served.model.fps
    if promised < needed:
        raise UserError(
            f'{name}: is {promised:.1f} s long, and the model looks at {needed:.1f} s before it '
            'predicts'
        )
    return promised - needed


def moment(served: Served, path: str, start: float) -> np.ndarray:
    """The context that begins at `start` seconds, side by side: uint8 [H, W, 3]."""
    model = served.model
    try:
        clip = prediction.read_video(model, path, 1, start)
    except UserError as error:
        raise UserError(f'{pathlib.Path(path).name}: {_without(path, error)}') from error
    return np.concatenate(list(clip.frames[: model.context_frames]), axis=1)


def answer(
    served: Served,
    path: str,
    start: float,
    folder: pathlib.Path,
    horizon: int = 8,
    futures: int = 1,
    seed: int = 0,
    guidance: float = 0.0,
    channels: int = 0,
) -> Answer:
    """Predicts what follows the moment, and writes what is shown to `folder`.

    Args:
        served: what predicts.
        path: of the video.
        start: seconds into it at which the context begins.
        folder: existing, for this answer alone.
        horizon: frames to predict; futures: how often; both within the limits.
        seed, guidance: of the sampler.
        channels: leading components that the generator is given; 0 for all.

    Raises:
        UserError: more is asked than the limits allow, or the video does not serve.
    """
    limits, model = served.limits, served.model
    for name, value, most in (
        ('horizon', horizon, limits.horizon),
        ('futures', futures, limits.futures),
    ):
        if not 1 <= value <= most:
            raise UserError(f'{name}: from 1 to {most} can be asked for, not {value}')
    try:
        clip = prediction.read_video(model, path, horizon, start)
    except UserError as error:
        raise UserError(f'{pathlib.Path(path).name}: {_without(path, error)}') from error
    clip = clip._replace(name=pathlib.Path(path).name)
    options = {'guidance': guidance, 'channels': channels or None}
    predicted = prediction.predict(model, clip, horizon, seed, futures, served.name, **options)
    prediction.write(folder, model, predicted)
    overlay = folder / 'overlay.png'
    Image.fromarray(_overlays(served, predicted)).save(overlay)
    return Answer(
        str(folder / 'future.mp4'),
        str(folder / 'sheet.png'),
        str(overlay),
        prediction.describe(predicted.report, model.fps),
    )


def clear(folder: pathlib.Path, path: str | None) -> None:
    """Removes what a visitor left: the folder of the last answer and the upload."""
    shutil.rmtree(folder, ignore_errors=True)
    if path:
        pathlib.Path(path).unlink(missing_ok=True)


def _overlays(served, predicted) -> np.ndarray:
    """Segmentation over the predicted frames, and depth, as heads read them from the forecast
    features; a sheet uint8 [H, W, 3].
    """
    model, frames = served.model, predicted.future.frames[0]
    features = predicted.future.features[:1]
    rows = [panels.Panel('prediction', list(frames))]
    if model.head is not None:
        labels = np.asarray(model.head.labels(features, model.size))[0]
        mixed = OVERLAY * colours.label_colours(labels) + (1 - OVERLAY) * frames
        rows.append(panels.Panel('labels', list(mixed.astype(np.uint8))))
    if served.depth is not None:
        depth = np.asarray(served.depth.depth(features, model.size))[0]
        rows.append(panels.Panel('depth', list(colours.depth_colours(depth))))
    return panels.sheet(rows, [(k + 1) / model.fps for k in range(len(frames))])


def _without(path, error) -> str:
    """What an error says, without where uploads are kept."""
    text = ' '.join(str(error).split()).replace(f'{path}: ', '')
    return text.replace(str(pathlib.Path(path).parent) + os.sep, '')
