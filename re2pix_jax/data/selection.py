"""Which clips of a source can be used, and which frames of a clip."""

import sys

import numpy as np
from jaxtyping import Int64

from re2pix_jax.data import windows
from re2pix_jax.data.settings import Settings
from re2pix_jax.data.sources import Source
from re2pix_jax.errors import UserError


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
    """The clips that are long enough for a window; and what is wrong with those that are left out,
    a line each (those that training leaves out for their length alone are counted on stderr).

    Raises:
        UserError: none is; or one cannot be opened, or in evaluation is too short, and
            data.unreadable is 'stop'.
    """
    rng, stop = np.random.default_rng(0), settings.unreadable == 'stop'
    found, short, left_out = [], {}, []
    for index in range(len(source)):
        try:
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
