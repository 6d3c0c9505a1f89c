"""A procedural driving world: clips of a street seen from a moving car, with semantic labels, depth
and ego motion.

A clip is a pure function of its split and its number; a frame of it does not depend on which others
are asked for. It is rendered with numpy only. Frames come at FPS frames a second; there is no end
to a clip.
"""

import dataclasses
import operator
import zlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, UInt8

from re2pix_jax.errors import UserError
from re2pix_jax.world import quads, raycast, shading, traffic
from re2pix_jax.world.camera import Camera, Mount
from re2pix_jax.world.models import TEMPLATES
from re2pix_jax.world.street import CHUNK, STROLL, Street
from re2pix_jax.world.traffic import FPS
from re2pix_jax.world.weather import Weather

SPLITS = ('train', 'validation', 'test')
SAMPLES = 2  # rays a pixel, in each direction
SMALLEST = 32

__all__ = ['FPS', 'SPLITS', 'Clip', 'render']


@dataclasses.dataclass(frozen=True)
class Clip:
    """What `render` gives.

    Attributes:
        frames: RGB.
        labels: Cityscapes train ids.
        depth: metres along the optical axis, 0 where unknown (sky).
        motion: float arrays of the ego car a frame: speed (m/s) [T], yaw_rate (rad/s, positive to
            the right) [T], position (m, east and north) [T, 2], heading (rad, clockwise from north)
            [T]; and of its camera: camera_height (m), camera_pitch (rad, positive looks down),
            camera_view (rad, horizontal field of view), each [T].
    """

    frames: UInt8[np.ndarray, 't h w 3']
    labels: UInt8[np.ndarray, 't h w']
    depth: Float32[np.ndarray, 't h w']
    motion: dict[str, np.ndarray]


def render(
    split: str, index: int, frames: Iterable[int], size: tuple[int, int] = (64, 128)
) -> Clip:
    """Frames of a clip. Labels and depth belong to the ray through one of the four samples of a
    pixel; colours are the mean over the four.

    Args:
        split: one of `SPLITS`.
        index: of the clip, from 0 on.
        frames: numbers from 0 on, in any order; frame k is k / FPS seconds into the clip.
        size: (height, width), 32 or more each.

    Raises:
        UserError: an unknown split, a negative number, or too small a size.
    """
    split, index, frames, size = _checked(split, index, frames, size)
    world = _World((zlib.crc32(split.encode()), index), max(frames, default=0))
    height, width = size
    clip = Clip(
        np.empty((len(frames), height, width, 3), np.uint8),
        np.empty((len(frames), height, width), np.uint8),
        np.empty((len(frames), height, width), np.float32),
        world.motion(frames),
    )
    for i, k in enumerate(frames):
        clip.frames[i], clip.labels[i], clip.depth[i] = world.frame(k, height, width)
    return clip


def _checked(split, index, frames, size):
    if split not in SPLITS:
        raise UserError(
            f'split {split!r} of the driving world is unknown: use one of {", ".join(SPLITS)}'
        )
    try:
        index, frames, size = (
            operator.index(index),
            [operator.index(k) for k in frames],
            tuple(operator.index(n) for n in size),
        )
    except TypeError:
        raise UserError(
            f'index, frames and size of a world clip must be whole numbers, not {index!r}, '
            f'{frames!r}, {size!r}: pass e.g. index=0, frames=range(5), size=(64, 128)'
        ) from None
    if index < 0:
        raise UserError(f'clip index {index} is negative: number clips from 0')
    if any(k < 0 for k in frames):
        raise UserError(f'frame {min(frames)} of a world clip is negative: number frames from 0')
    if len(size) != 2 or min(size) < SMALLEST:
        raise UserError(
            f'size {size} of a world clip is not a height and a width of at least {SMALLEST} '
            'pixels: enlarge it'
        )
    return split, index, frames, size


class _World:
    def __init__(self, seed, last):
        self.street, self.mount, self.weather = Street(seed), Mount.draw(seed), Weather.draw(seed)
        self.history = traffic.simulate(self.street, seed, last)

    def _ego(self, k):
        """(s, position [2], heading) in frame k."""
        h = self.history
        s, d = h.s[k, 0], h.d[k, 0]
        return s, self.street.position(s, d), float(self.street.heading(s) + h.turn[k, 0])

    def camera(self, k):
        _, position, heading = self._ego(k)
        return Camera.at(self.mount, position, heading, self.history.accel[k, 0])

    def motion(self, frames):
        k, h = np.asarray(frames, np.int64), self.history
        s, d, v, turn = h.s[k, 0], h.d[k, 0], h.v[k, 0], h.turn[k, 0]
        curvature = self.street.curvature(s)
        cameras = [self.camera(i) for i in frames]
        return {
            'speed': v * (1 - d * curvature) / np.cos(turn),
            'yaw_rate': v * curvature + h.twist[k, 0],
            'position': self.street.position(s, d),
            'heading': self.street.heading(s) + turn,
            'camera_height': np.array([c.height for c in cameras]),
            'camera_pitch': np.array([c.pitch for c in cameras]),
            'camera_view': np.array([c.view for c in cameras]),
        }

    def _rows(self, k, s):
        """All quads near the car at road position s."""
        low, high = s - 35.0, s + raycast.FAR
        parts = [
            self.street.chunk(c).rows for c in range(int(low // CHUNK), int(high // CHUNK) + 1)
        ]
        h, time = self.history, k / FPS
        near = (h.s[k] > low) & (h.s[k] < high) & (np.arange(len(h.kind)) > 0)
        for code, kind in enumerate(traffic.KINDS):
            which = np.flatnonzero(near & (h.kind == code))
            if not len(which):
                continue
            at, way = self.street.position(h.s[k, which], h.d[k, which]), h.way[which]
            turn = self.street.heading(h.s[k, which]) + np.where(
                way > 0, h.turn[k, which], np.pi - h.turn[k, which]
            )
            swing = np.sin(h.s[k, which] * 1.1) if kind == 'cyclist' else np.zeros(len(which))
            rows = quads.place(
                TEMPLATES[kind],
                at[:, 0],
                at[:, 1],
                turn,
                h.scale[which],
                h.colour[which],
                h.second[which],
                swing,
            )
            brakes = np.repeat(h.accel[k, which] < -0.7, len(TEMPLATES[kind]))
            rows[brakes & (rows[:, quads.MATERIAL] == quads.TAIL), quads.PARAMETERS.start] = 2.0
            parts.append(rows)
        parts.append(self._people(time, low, min(high, s + 110.0)))
        return np.concatenate(parts)

    def _people(self, time, low, high):
        template, found = TEMPLATES['person'], []
        for c in range(int((low - STROLL) // CHUNK), int((high + STROLL) // CHUNK) + 1):
            people = self.street.chunk(c).people
            s, d, along, across = self.street.walkers(c, time)
            which = np.flatnonzero((s > low) & (s < high))
            s, d, along, across = s[which], d[which], along[which], across[which]
            at, pace = self.street.position(s, d), np.hypot(along, across)
            turn = self.street.heading(s) + np.arctan2(across, along)
            swing = np.minimum(pace, 1) * np.sin(
                time * 5.2 * np.maximum(pace, 0.5) + people['phase'][which]
            )
            found.append(
                quads.place(
                    template,
                    at[:, 0],
                    at[:, 1],
                    turn,
                    people['scale'][which],
                    people['shirt'][which],
                    people['trousers'][which],
                    swing,
                )
            )
        return np.concatenate(found)

    def frame(self, k, height, width):
        """(frame, label, depth) of frame k."""
        s, _, _ = self._ego(k)
        camera = self.camera(k)
        x, y = camera.rays(height * SAMPLES, width * SAMPLES)
        inverse, level = camera.ground(y)
        scene = raycast.gather(self._rows(k, s), camera)
        hits, shadows = raycast.cast(scene, x, y, inverse)
        colour = np.empty((3, len(y), len(x)), np.float32)
        label, depth = np.empty((len(y), len(x)), np.uint8), np.empty((len(y), len(x)), np.float32)
        # Of the rows that see the ground; above, the air hides it.
        first = int(np.searchsorted(inverse, 1.0 / 2000.0))
        shade = np.ones(len(y) * len(x), np.float32)
        fall = (2 * shadows.u - 1) ** 2 + (2 * shadows.v - 1) ** 2
        np.minimum.at(
            shade,
            shadows.pixel,
            (
                1
                - scene.rows[shadows.quad, quads.PARAMETERS.start] * np.clip(1.5 * (1 - fall), 0, 1)
            ).astype(np.float32),
        )
        layout = shading.Layout(self.street, camera, s)
        colour[:, first:], label[first:] = shading.ground(
            layout,
            self.weather,
            x,
            inverse[first:],
            level[first:],
            shade.reshape(len(y), len(x))[first:],
        )
        depth[first:] = (1 / inverse[first:, None]).astype(np.float32)
        flat, flat_label, flat_depth = colour.reshape(3, -1), label.reshape(-1), depth.reshape(-1)
        above = np.ones(len(y) * len(x), bool)
        above[hits.pixel] = False
        above = np.flatnonzero(above[: first * len(x)])
        flat[:, above], flat_label[above], flat_depth[above] = shading.sky(
            self.weather, camera, x[above % len(x)], y[above // len(x)]
        )
        flat[:, hits.pixel], flat_label[hits.pixel] = shading.quads(
            scene, hits, self.weather, camera, k / FPS
        )
        flat_depth[hits.pixel] = hits.depth
        total = colour[:, 0::2] + colour[:, 1::2]
        total = total[..., 0::2] + total[..., 1::2]
        frame = np.clip(total * np.float32(255 / 4) + np.float32(0.5), 0, 255).astype(np.uint8)
        return frame.transpose(1, 2, 0), label[1::2, 1::2], depth[1::2, 1::2]
