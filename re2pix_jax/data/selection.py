"""Which clips of a source can be used, and which frames of a clip."""

import math
import sys

import numpy as np
from jaxtyping import Int64

from re2pix_jax.data import windows
from re2pix_jax.data.settings import Settings
from re2pix_jax.data.sources.source import Source
from re2pix_jax.errors import UserError

LOOKED_AT = 1000
"""Clips of a source whose size is looked at."""


def window(
    source: Source, index: int, settings: Settings, rng: np.random.Generator
) -> Int64[np.ndarray, ' t']:
    """The native frames of a window: a random one in training, the fixed one in evaluation.

    Raises:
        UserError: the clip is too short for it.
    """
    frames, strides = settings.frames, settings.strides
    if settings.window == 'target':
        target = _target(source, index)
        if settings.training:
            return windows.random_target_window(rng, target, frames, strides)
        return windows.target_window(target, frames, strides[0])
    # With None strides are native ones already.
    length = source.num_frames(index)
    fps = None if settings.window in ('native', 'keyframes') else source.fps(index)
    if settings.training:
        return windows.window(rng, length, fps, frames, strides)
    return windows.evaluation_window(length, fps, frames, strides[0], settings.start)


def usable(source: Source, name: str, settings: Settings) -> tuple[list[int], list[str]]:
    """The clips that a source can give whole and that are long enough for a window; and what is
    wrong with those that are left out, a line each (those that training leaves out for their length
    alone are counted on stderr).

    Raises:
        UserError: these are none, or fewer than data.least_share of all; or one cannot be opened,
            or in evaluation is too short, and data.unreadable is 'stop'.
    """
    rng, stop = np.random.default_rng(0), settings.unreadable == 'stop'
    problem = getattr(source, 'problem', lambda _: None)
    found, short, left_out = [], {}, []
    for index in range(len(source)):
        try:
            if bad := problem(index):
                left_out.append(f'{name}/{source.name(index)}: {bad}')
                continue
            source.num_frames(index)
        except UserError as error:
            if stop:
                raise
            left_out.append(str(error))
            continue
        try:
            window(source, index, settings, rng)
            found.append(index)
        except UserError as error:
            short[index] = str(error)
            if settings.training:
                continue
            left_out.append(f'{name}/{source.name(index)}: {error}')
            if stop:
                raise UserError(left_out[-1]) from error
    if not found and short:
        longest = max(short, key=source.num_frames)
        none = 'no clip can be used, not'
        none = none if settings.window == 'target' else 'all clips are too short,'
        raise UserError(f'{name}: {none} even {source.name(longest)}: {short[longest]}')
    if not found:
        first = left_out[0] if left_out else 'it has none'
        raise UserError(f'{name}: no clip can be used, the first because: {first}')
    if len(found) < settings.least_share * len(source):
        first = next(iter([*left_out, *short.values()]))
        raise UserError(
            f'{name}: {len(found)} of {len(source)} clips of split {settings.split} can be used, '
            f'data.least_share = {settings.least_share:g} asks for more; the first that cannot: '
            f'{first}; mend them, or set data.least_share'
        )
    if short and settings.training:
        before = ' before the frame that their protocol predicts'
        print(
            f'{name}: {len(short)} of {len(source)} clips are too short for {settings.frames} '
            f'frames at stride {min(settings.strides)}'
            f'{before if settings.window == "target" else ""} and are left out',
            file=sys.stderr,
            flush=True,
        )
    return found, left_out


def enlarged(source: Source, name: str, found: list[int], settings: Settings) -> float:
    """Share of the training windows whose crop has fewer pixels than they are resized to, as far as
    the source tells the size of its clips.

    Raises:
        UserError: it is above data.most_enlarged.
    """
    low, high = settings.crop if settings.training else (1.0, 1.0)
    shares = []
    for index in found[:: -(-len(found) // LOOKED_AT)]:
        size = getattr(source, 'size_of', lambda _: None)(index)
        if size:
            box = windows.centre_box(*size, settings.size)
            least = max(side / of for side, of in zip(settings.size, (box.height, box.width)))
            # Half a pixel of rounding is none.
            least -= 0.5 / box.height
            share = (least - low) / (high - low) if high > low else least > low
            shares.append(min(max(float(share), 0.0), 1.0))
    share = sum(shares) / len(shares) if shares else 0.0
    if settings.training and share > settings.most_enlarged:
        height, width = settings.size
        raise UserError(
            f'{name}: data.crop = {settings.crop} enlarges {share:.0%} of the windows to '
            f'{height}x{width}, data.most_enlarged = {settings.most_enlarged:g}; take frames of '
            f'{math.ceil(height / low)}x{math.ceil(width / low)} or more (prepare --size), or set '
            'data.crop'
        )
    return share


def _target(source, index) -> int:
    """The native frame that the protocol of the clip's dataset predicts."""
    target, frames = getattr(source, 'target', lambda _: None)(index), source.num_frames(index)
    if target is None:
        raise UserError('has no frame that a protocol evaluates; set data.window="start"')
    if target >= frames:
        raise UserError(
            f'{frames} frames are too few: the protocol predicts frame {target}; leave the clip '
            'out or set data.window="start"'
        )
    return target
