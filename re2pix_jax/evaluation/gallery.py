"""A page of predictions, the best and the worst: what a model is worth at a glance."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from re2pix_jax.data import video
from re2pix_jax.evaluation import prediction
from re2pix_jax.report import page, panels


class Shown(NamedTuple):
    """A prediction on the page.

    Attributes:
        name: of the clip.
        gain: dB of PSNR over repeating the last context frame, over all steps; nan without truth.
        psnr: of the prediction, dB.
        picture, film: a sheet uint8 [H, W, 3], and the bytes of an mp4.
    """

    name: str
    gain: float
    psnr: float
    picture: np.ndarray
    film: bytes


def predicted(model, clips: Iterable[prediction.Clip], horizon: int, seed: int, name: str) -> list:
    """Every clip's prediction: [Shown]."""
    found = []
    for clip in clips:
        one = prediction.predict(model, clip, horizon, seed, name=name)
        rows = [row for row in one.report['steps'] if 're2pix' in row]
        psnr, copied = (
            float(np.mean([row[method]['psnr'] for row in rows])) if rows else math.nan
            for method in ('re2pix', 'copy_last')
        )
        shown, seconds = prediction.pictures(model, one)
        film = video.encode(panels.video(shown, seconds), model.fps)
        at = f'{clip.name}, from {clip.start:.1f} s on'
        found.append(Shown(at, psnr - copied, psnr, panels.sheet(shown, seconds), film))
    return found


def chosen(found: list[Shown], count: int) -> list[tuple[str, Shown]]:
    """(what it stands for, prediction): the `count` with the most gain, the most typical and those
    with the least; each once, all of them where there are few. Those without truth are left out.
    """
    ranked = sorted((one for one in found if not math.isnan(one.gain)), key=lambda one: -one.gain)
    middle = max(count, (len(ranked) - count) // 2)
    groups = {
        'among the best': ranked[:count],
        'in the middle': ranked[middle : middle + count],
        'among the worst': ranked[max(middle + count, len(ranked) - count) :],
    }
    return [(what, one) for what, group in groups.items() for one in group]


def write(path, title: str, about: str, picked: list[tuple[str, Shown]]) -> None:
    """The page, one file that opens anywhere."""
    sections = [
        (
            f'{what}: {one.name}; {one.psnr:.1f} dB, {one.gain:+.1f} dB over the last frame '
            'repeated',
            one.picture,
            one.film,
        )
        for what, one in picked
    ]
    page.write(path, title, about, sections)
