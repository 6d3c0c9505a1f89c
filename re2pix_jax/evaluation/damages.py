"""Damages whose order is known, by which measures of video are judged: the stronger the damage, the
larger a distance to the true clips has to be.

Each takes clips uint8 [B, T, H, W, 3], a strength and a generator of random numbers, and returns
clips of the same shape. Strength 0 is the identity. What is random is drawn alike for every
strength, so that a stronger damage is the same one, and more of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BLOCK = 8


class Damage(NamedTuple):
    """What is done to clips, and its four rising strengths, in `unit`."""

    apply: Callable
    strengths: tuple
    unit: str


def blur(clips, strength, random):
    """A Gaussian mean of every frame, σ of `strength` pixels; borders are repeated."""
    if not strength:
        return clips
    reach = int(np.ceil(4 * strength))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / strength) ** 2)
    weights /= weights.sum()
    found = clips.astype(np.float32)
    for axis in (2, 3):
        padding = [(reach, reach) if axis == other else (0, 0) for other in range(found.ndim)]
        padded, length = np.pad(found, padding, mode='edge'), found.shape[axis]
        found = sum(
            np.float32(weight) * padded.take(range(first, first + length), axis)
            for first, weight in enumerate(weights)
        )
    return _pixels(found)


def noise(clips, strength, random):
    """Normal noise of `strength` grey levels, another one in every pixel and frame."""
    return _pixels(clips + strength * random.standard_normal(clips.shape, np.float32))


def freezing(clips, strength, random):
    """The last frames of a clip, `strength` of all but the first, repeat the one before them."""
    last = clips.shape[1] - 1
    shown = np.minimum(np.arange(last + 1), last - round(strength * last))
    return clips[:, shown]


def frame_drop(clips, strength, random):
    """Each frame but the first is lost with probability `strength`; the one before is shown
    again.
    """
    count, time = clips.shape[:2]
    kept = random.random((count, time)) >= strength
    kept[:, 0] = True
    shown = np.maximum.accumulate(np.where(kept, np.arange(time), 0), axis=1)
    return clips[np.arange(count)[:, None], shown]


def colour_shift(clips, strength, random):
    """`strength` grey levels more red, and half as many less green and blue."""
    return _pixels(clips + np.float32(strength) * np.array([1, -0.5, -0.5], np.float32))


def temporal_jitter(clips, strength, random):
    """Frames come up to `strength` frames too early or too late, in the order that this makes; the
    first stays.
    """
    count, time = clips.shape[:2]
    moved = np.arange(time) + strength * random.uniform(-1, 1, (count, time))
    moved[:, 0] = -np.inf
    return clips[np.arange(count)[:, None], np.argsort(moved, axis=1, kind='stable')]


def block_artefacts(clips, strength, random):
    """The cosine coefficients of every 8x8 block are rounded to multiples of `strength`, as coarse
    JPEG does; what does not fill a block stays as it is.
    """
    if not strength:
        return clips
    height, width = (side // BLOCK * BLOCK for side in clips.shape[2:4])
    inner = clips[:, :, :height, :width].astype(np.float32)
    shape = inner.shape
    blocks = inner.reshape(*shape[:2], height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
    place = np.arange(BLOCK)
    cosines = np.cos(np.pi * (place + 0.5) * place[:, None] / BLOCK) * np.sqrt(2 / BLOCK)
    cosines[0] /= np.sqrt(2)
    cosines = cosines.astype(np.float32)
    found = np.einsum('ui,vj,bthiwjc->bthuwvc', cosines, cosines, blocks, optimize=True)
    found = np.float32(strength) * np.round(found / np.float32(strength))
    found = np.einsum('ui,vj,bthuwvc->bthiwjc', cosines, cosines, found, optimize=True)
    whole = clips.copy()
    whole[:, :, :height, :width] = _pixels(found.reshape(shape))
    return whole


def _pixels(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


DAMAGES = {
    'blur': Damage(blur, (0.5, 1.0, 2.0, 4.0), 'σ in pixels'),
    'noise': Damage(noise, (4, 8, 16, 32), 'σ in grey levels'),
    'freezing': Damage(freezing, (0.25, 0.5, 0.75, 1.0), 'share of frames'),
    'frame drop': Damage(frame_drop, (0.1, 0.25, 0.5, 1.0), 'share of frames'),
    'colour shift': Damage(colour_shift, (4, 8, 16, 32), 'grey levels'),
    'temporal jitter': Damage(temporal_jitter, (0.75, 1.0, 1.5, 3.0), 'frames'),
    'block artefacts': Damage(block_artefacts, (20, 40, 80, 160), 'step of the coefficients'),
}
