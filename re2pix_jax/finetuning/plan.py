"""What is about to be done: what the footage holds, how long each part takes here, how much disk.

Each part leaves a file or a folder in the work folder that is there whole or not at all, so that a
run that is begun again goes on behind the last.

What follows from the clock or from measurements (how many steps fit into the time, whether the VAE
needs tuning) is written down before it is used: a run that was killed ends as it would have.
"""

import json
import math
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from re2pix_jax import bundles, files, schema
from re2pix_jax.data import footage, timeline, video
from re2pix_jax.data.sources import encoded, videos
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.prediction import least_side
from re2pix_jax.model import Re2Pix
from re2pix_jax.progress import counted, duration
from re2pix_jax.training import hardware

PLAN = 'plan.json'
HORIZON = 4
"""Future frames of the evaluation: with the context, a window of `footage.FRAMES`."""
LEAST_SHARE = 0.5
"""Of the clips of a split that must hold a window, as data.least_share elsewhere."""
CLIPS = 256
"""Held-out clips that are evaluated, at most."""


class Run(NamedTuple):
    """What is made of what.

    Attributes:
        footage: folder of videos.
        out: the bundle to write; work: folder beside it for what comes before.
        name: of the bundle that is tuned; model: it, opened.
        minutes: of training.
        steps: {part: steps}, in the place of the minutes; empty: as many as fit into these.
        folder_fps: of image folders. seed: of everything.
        load: 'NAME:SIZE' → the config of that name.
    """

    footage: pathlib.Path
    out: pathlib.Path
    work: pathlib.Path
    name: str
    model: Re2Pix
    minutes: float
    steps: dict
    folder_fps: float
    seed: int
    load: Callable[[str], ConfigDict]

    @property
    def source(self) -> str:
        """The prepared clips."""
        return f'records:{self.work / "clips"}'


class Look(NamedTuple):
    """What the footage holds: usable clips, their frames and seconds, by split; a line a file."""

    clips: dict
    frames: dict
    seconds: dict
    lines: list


def look(run: Run) -> Look:
    """Opens every file.

    Raises:
        UserError: there is nothing to train on, or to evaluate on, or too much of it is unusable.
    """
    seen = Look({}, {}, {}, [])
    for split in ('train', 'validation'):
        try:
            source = opened(run, split)
        except UserError as error:
            if split == 'train':
                raise
            bad = ''.join(f'; {line}' for line in seen.lines if footage.UNREADABLE in line)
            raise UserError(
                f'{run.footage}: a single clip, and none to hold out: the model is judged on what '
                f'it was not trained on; add footage, two clips of two seconds at the least{bad}'
            ) from error
        usable = [
            piece
            for k, piece in enumerate(source.pieces)
            if footage.count(source, k) and predictable(run, piece.path)
        ]
        lines = footage.lines(source, run.model.size)
        if len(usable) < max(1, LEAST_SHARE * len(source)):
            raise UserError(
                f'{run.footage}: {len(usable)} of {len(source)} {split} clips hold a window of '
                f'{footage.FRAMES} frames at {run.model.fps:.4g} per second or more and of '
                f'{least_side(run.model)} pixels or more, expected {LEAST_SHARE:.0%} at the '
                f'least: {"; ".join(lines)}'
            )
        seen.clips[split] = len(usable)
        seen.frames[split] = sum(piece.frames for piece in usable)
        seen.seconds[split] = sum(piece.frames / piece.fps for piece in usable)
        seen.lines.extend(f'{split}: {line}' for line in lines)
    return seen


def predictable(run: Run, path) -> bool:
    """Whether `re2pix predict` takes a file: it is fast and large enough."""
    line = timeline.of(path, run.folder_fps)
    return video.fast_enough(run.model.fps, line.rate) and min(line.size) >= least_side(run.model)


def opened(run: Run, split: str) -> videos.Videos:
    """The footage of a split, at the model's size."""
    given = {'folder_fps': run.folder_fps, 'keep_unreadable': True}
    return videos.Videos(run.footage, split, size=run.model.size, **given)


def disk(run: Run, seen: Look) -> float:
    """Bytes that the run will take at most: frames as PNG, what the networks make of them, and two
    checkpoints of each training.
    """
    model, frames = run.model, sum(seen.frames.values())
    image = math.prod(model.size) * 3
    rows = model.forecaster.net.grid + (model.forecaster.net.components,)
    latents = math.prod(model.generator.net.latent_grid) * model.generator.net.latent_channels
    stored = encoded.STORED.itemsize * (math.prod(rows) + latents)
    trained = (model.vae.params, model.forecaster.params, model.generator.params)
    state = sum(16 * leaf.size for leaf in jax.tree.leaves(trained))
    return frames * (image + stored) + 3 * state


def estimates(run: Run, seen: Look) -> dict[str, float]:
    """Seconds of each part on this machine, steps that are given left out, from a try: a clip is
    read, a block of frames encoded; what a prediction takes follows from its operations.
    """
    source = opened(run, 'train')
    index = next(k for k in range(len(source)) if footage.count(source, k))
    began = time.perf_counter()
    read = source.read(index, [0], labels=False)['frames']
    of_frame = (time.perf_counter() - began) / source.pieces[index].shown
    frames = jnp.asarray(read)[None].repeat(encoded.BLOCK, 1)
    encode = jax.jit(lambda model, x: (model.forecaster.encode(x), model.vae.encode(x)))
    work = hardware.flops(jax.make_jaxpr(encode)(run.model, frames))
    jax.block_until_ready(encode(run.model, frames))
    began = time.perf_counter()
    jax.block_until_ready(encode(run.model, frames))
    block = time.perf_counter() - began
    context = frames[:, : run.model.context_frames]
    roll = lambda model, x: model.rollout(x, jax.random.split(jax.random.key(0), 1), HORIZON)
    clip = hardware.flops(jax.make_jaxpr(roll)(run.model, context)) / (work / block)
    count = sum(seen.frames.values())
    return {
        'prepare': count * of_frame,
        'encode': count / encoded.BLOCK * block,
        'train': 0.0 if run.steps else 60 * run.minutes,
        'evaluate': 60 + 2 * min(CLIPS, seen.clips['validation']) * clip,
        'predict': 60 + 6 * 2 * clip,
    }


def describe(run: Run, seen: Look, seconds: dict, size: float) -> str:
    """What will be done, how long it takes here, and how much disk."""
    split = ', '.join(
        f'{counted(seen.clips[name], f"{name} clip")} ({duration(seen.seconds[name])})'
        for name in seen.clips
    )
    training = f'{sum(run.steps.values())} steps' if run.steps else duration(seconds['train'])
    total = duration(sum(seconds.values())) + (' and the steps' if run.steps else '')
    return '\n'.join(
        [
            *seen.lines,
            f'{run.footage}: {split}',
            f'about {total} in all, {size / 1e6:.0f} MB in {run.work}:',
            f'  prepare   {duration(seconds["prepare"]):>8}  frames of {run.model.size[0]}x'
            f'{run.model.size[1]}',
            f'  encode    {duration(seconds["encode"]):>8}  what the networks make of them, once',
            f'  train     {training:>8}  VAE and components where they fit this footage badly, '
            'forecaster, generator',
            f'  evaluate  {duration(seconds["evaluate"]):>8}  {run.name} and the tuned model on '
            f'{counted(min(CLIPS, seen.clips["validation"]), "held-out clip")}',
            f'  predict   {duration(seconds["predict"]):>8}  three held-out moments',
            f'The model goes to {run.out}, with index.html to look at. Given again after an '
            'interruption, the command goes on.',
        ]
    )


def begin(run: Run, seen: Look, size: float) -> None:
    """Makes the work folder, or checks that it was begun for the same.

    Raises:
        UserError: it was not; or the disk has not so much room.
    """
    asked = {
        'footage': str(run.footage.resolve()),
        'holds': {'clips': seen.clips, 'frames': seen.frames},
        'model': bundles.digest(run.name, 're2pix'),
        'minutes': run.minutes,
        'steps': run.steps,
        'folder_fps': run.folder_fps,
        'seed': run.seed,
    }
    if (run.work / PLAN).is_file():
        begun = schema.read_json(run.work / PLAN, dict, 'remove that folder')
        if changed := [name for name in asked if begun.get(name) != asked[name]]:
            raise UserError(
                f'{run.work}: was begun with other {", ".join(changed)}; give the same command '
                'again to go on, or remove that folder'
            )
        return
    if run.work.exists():
        raise UserError(
            f'{run.work}: exists, without a {PLAN} of a run to go on with; remove it, or choose '
            'another --out'
        )
    with files.writing(run.work):
        run.work.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run.work.parent).free
        if free < size:
            raise UserError(
                f'{run.work}: needs {size / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB free; '
                'free some, or choose another --out'
            )
        run.work.mkdir()
        files.write_text(run.work / PLAN, json.dumps(asked, indent=1) + '\n')


def once(run: Run, name: str, found: Callable):
    """What `found` gives, measured once and written down: JSON."""
    file = run.work / f'{name}.json'
    if not file.is_file():
        files.write_text(file, json.dumps(found(), indent=1, allow_nan=False) + '\n')
    return json.loads(file.read_text())
