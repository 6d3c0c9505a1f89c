"""The colour of what a pixel sees: ground, sky and quads, under the light and through the air of
the clip.
"""

import dataclasses

import numpy as np

from re2pix_jax import cityscapes
from re2pix_jax.world import furniture
from re2pix_jax.world.quads import (
    ACCENT,
    BALL,
    BILLBOARD,
    BOARD,
    BRICKS,
    COLOUR,
    CYLINDER,
    ELLIPSE,
    EMISSION,
    FOLIAGE,
    GRID,
    LABEL,
    LAMPS,
    MATERIAL,
    NOSE,
    PARAMETERS,
    PLAIN,
    SLATS,
    TAIL,
    TAPER,
    WHEEL,
    P,
)
from re2pix_jax.world.street import JUNCTION, STOP_LINE, ZEBRA
from re2pix_jax.world.weather import look

HILL_DEPTH = 400.0  # metres; where the skyline of the hills is taken to be
GREEN_LAMP, AMBER_LAMP, RED_LAMP = (0.10, 0.95, 0.45), (1.0, 0.70, 0.10), (1.0, 0.10, 0.06)


class Layout:
    """What the ground shader must know of the road ahead in one frame: where rows cut the
    centreline, what lies across it.
    """

    def __init__(self, course, camera, s):
        self.course, self.camera = course, camera
        self.first = s - 12.0
        along = self.first + np.arange(260.0)
        offset = course.centre(along) - camera.position
        sin, cos = np.sin(camera.heading), np.cos(camera.heading)
        self.along, self.across = along, offset @ np.array([cos, -sin])
        ahead = offset @ np.array([sin, cos])
        self.ahead = np.maximum.accumulate(ahead + 1e-6 * np.arange(len(ahead)))
        self.turn = course.heading(along) - camera.heading
        self.kind = np.zeros(1040, np.uint8)
        for crossing in course.crossings(self.first, self.first + 260.0):
            marks = [(-1.9, 1.9, ZEBRA)]
            if crossing.junction:
                marks = [
                    (-5.0, 5.0, JUNCTION),
                    (-9.4, -5.8, ZEBRA),
                    (5.8, 9.4, ZEBRA),
                    (-10.6, -10.1, STOP_LINE),
                ]
            for low, high, kind in marks:
                i, j = np.round((crossing.s + np.array([low, high]) - self.first) * 4).astype(int)
                self.kind[max(i, 0) : max(j, 0)] = kind


def ground(layout, weather, x, inverse, level, shade):
    """Colour float32 [3, R, W] and label uint8 [R, W] of the rows that see the ground.

    x [W]: rays; inverse, level [R]: see Camera.ground; shade [R, W]: share of light that shadows
    leave.
    """
    course, section, camera = layout.course, layout.course.section, layout.camera
    depth = 1 / inverse
    ahead = depth * level
    across, along, turn = (
        np.interp(ahead, layout.ahead, a) for a in (layout.across, layout.along, layout.turn)
    )
    beyond = np.maximum(ahead - layout.ahead[-1], 0.0)
    sin, cos = np.sin(turn), np.cos(turn)
    f = np.float32
    side = depth.astype(f)[:, None] * x.astype(f) - across.astype(f)[:, None]
    bend = (0.5 * course.curvature(along) * sin * sin).astype(f)[:, None]
    d = side * cos.astype(f)[:, None] + bend * side * side
    s = (along - layout.first + beyond).astype(f)[:, None] + side * sin.astype(f)[
        :, None
    ]  # from layout.first on
    index = section.index(d)
    colour, label = np.take(section.colour, index, axis=1), section.label[index]
    kind = layout.kind[np.clip((s * f(4)).astype(np.int32), 0, len(layout.kind) - 1)]
    # float64 would cost twice; road positions stay below 1e5 m.
    place = layout.first + s
    dash = np.flatnonzero(section.dashed[index] & (np.mod(place, f(7.0)) < 3.0) & (kind == 0))
    flat = colour.reshape(3, -1)
    flat[:, dash] = section.white[:, None]
    marked = np.flatnonzero(kind)
    if len(marked):
        what, dd = kind.ravel()[marked], d.ravel()[marked]
        bare = (what == JUNCTION) | (np.abs(dd) < course.kerb)
        flat[:, marked[bare]] = section.asphalt[:, None]
        label.ravel()[marked[what == JUNCTION]] = cityscapes.ROAD
        stripe = (what == ZEBRA) & (np.abs(dd) < course.kerb - 0.4) & (np.mod(dd, f(1.1)) < 0.55)
        stripe |= (what == STOP_LINE) & (dd > 0.2) & (dd < course.lane * course.lanes)
        flat[:, marked[stripe]] = section.white[:, None]
    east = f(camera.position[0] % 1024)
    north = f(camera.position[1] % 1024)
    c, n = f(np.cos(camera.heading)), f(np.sin(camera.heading))
    lateral, forward = depth.astype(f)[:, None] * x.astype(f), ahead.astype(f)[:, None]
    we, wn = east + lateral * c + forward * n + f(4096), north - lateral * n + forward * c + f(4096)
    fade = np.minimum(1.0, 14.0 * inverse).astype(f)[:, None]
    rough = f(0.10) * look(we * f(0.75), wn * f(0.75)) + f(0.07) * fade * look(we * f(6), wn * f(6))
    rough *= np.where(label == cityscapes.TERRAIN, f(2.2), f(1.0))
    light = weather.ambient + weather.direct * max(weather.sun[1], 0.0)
    clear = weather.clear(depth.astype(f))[:, None]
    rough += 1
    rough *= shade
    rough *= clear
    for channel in range(3):
        colour[channel] *= rough * f(light[channel])
        colour[channel] += (1 - clear) * f(weather.horizon[channel])
    return colour, label


def sky(weather, camera, x, y):
    """Colour [3, n], label [n] and depth [n] for rays at x, y [n] that meet neither ground nor
    quad.
    """
    f = np.float32
    x, y = x.astype(f), y.astype(f)
    up = -y * f(np.cos(camera.pitch)) - f(np.sin(camera.pitch))
    ahead = f(np.cos(camera.pitch)) - y * f(np.sin(camera.pitch))
    slope = up / np.sqrt(ahead * ahead + x * x)
    rise = np.clip(slope * f(1.6), 0, 1) ** f(0.7)
    colour = (
        weather.horizon.astype(f)[:, None]
        + rise * (weather.zenith - weather.horizon).astype(f)[:, None]
    )
    c, n = f(np.cos(camera.heading)), f(np.sin(camera.heading))
    far = f(40.0) / np.maximum(up, f(0.06))
    east, north = (x * c + ahead * n) * far, (ahead * c - x * n) * far
    a, b, g, h = weather.shift.astype(f)
    cloud = look(east * f(0.35) + a + f(8192), north * f(0.35) + b + f(8192)) * f(0.7)
    cloud += look(east * f(1.1) + g + f(8192), north * f(1.1) + h + f(8192)) * f(0.3)
    cloud = (
        np.clip((cloud + f(weather.cover * 1.4 - 0.7)) * f(1.3), 0, 1)
        * np.clip(slope * f(7), 0, 1)
        * f(0.85)
    )
    white = (0.55 * weather.horizon + 0.45).astype(f)[:, None] * (
        f(0.97) - f(0.13) * (cloud > 0.55)
    )
    colour += cloud * (white - colour)
    label = np.full(len(x), cityscapes.SKY, np.uint8)
    depth = np.zeros(len(x), f)
    if weather.hills:
        azimuth = camera.heading + np.arctan2(x, ahead)
        height = f(weather.hills) * (
            1
            + f(0.7) * np.sin(azimuth * 5 + a) * np.sin(azimuth * 11 + b)
            + f(0.2) * np.sin(azimuth * 29 + g)
        )
        hill = np.flatnonzero(slope < height)
        haze = 0.60 * weather.horizon + 0.40 * np.array([0.20, 0.30, 0.20]) * (
            weather.ambient + 0.4 * weather.direct
        )
        colour[:, hill] = haze[:, None]
        label[hill], depth[hill] = cityscapes.VEGETATION, HILL_DEPTH
    return colour, label, depth


def quads(scene, hits, weather, camera, time):
    """Colour float32 [3, n] and label uint8 [n] of the pixels in `hits`; time (s) turns the traffic
    lights.
    """
    f = np.float32
    rows, quad = scene.rows, hits.quad
    sun = camera.turn(weather.sun)
    normal = scene.normal / np.linalg.norm(scene.normal, axis=1, keepdims=True)
    facing = np.maximum(normal @ sun, 0.0)
    level = np.abs(normal @ camera.turn(np.array([0.0, 1.0, 0.0])))
    light = weather.ambient[:, None] * (0.80 + 0.20 * level) + weather.direct[:, None] * facing
    upright = rows[:, BILLBOARD] > 0
    light[:, upright] = (weather.ambient * 0.9 + weather.direct * 0.5)[:, None]
    columns = np.ascontiguousarray(rows.T, f)
    colour, light = np.take(columns[COLOUR], quad, axis=1), np.take(light.astype(f), quad, axis=1)
    material = rows[:, MATERIAL].astype(np.uint8)[quad]
    for code, shader in SHADERS.items():
        chosen = np.flatnonzero(material == code)
        if len(chosen):
            shader(
                Surface(
                    colour, light, chosen, columns, quad[chosen], hits.u[chosen], hits.v[chosen]
                ),
                sun.astype(f),
                time,
                weather,
            )
    glow = columns[EMISSION][quad]
    clear = weather.clear(hits.depth)
    light *= (1 - glow) * clear
    light += glow * clear
    colour *= light
    colour += (1 - clear) * weather.horizon.astype(f)[:, None]
    return colour, rows[:, LABEL].astype(np.uint8)[quad]


@dataclasses.dataclass
class Surface:
    """The pixels `at` of one material: colour and light [3, n] to be changed in place, u and v on
    their quads.
    """

    colour: np.ndarray
    light: np.ndarray
    at: np.ndarray
    columns: np.ndarray
    quad: np.ndarray
    u: np.ndarray
    v: np.ndarray

    def column(self, which):
        """A column of the pixels' rows, [n]."""
        return self.columns[which][self.quad]

    def parameter(self, number):
        return self.column(PARAMETERS.start + number)

    def scale(self, factor):
        for channel in range(3):
            self.colour[channel, self.at] *= factor

    def shine(self, ambient, direct, weather):
        """Light of a round thing: ambient and direct shares, numbers or [n]."""
        for channel in range(3):
            self.light[channel, self.at] = ambient * np.float32(
                weather.ambient[channel]
            ) + direct * np.float32(weather.direct[channel])

    def dye(self, mask, colour=None, light=None):
        """Gives the pixels in `mask` a colour (the accent of their quad where none is named), and a
        light of their own.
        """
        some = np.flatnonzero(mask)
        if not len(some):
            return
        at = self.at[some]
        self.colour[:, at] = (
            np.take(self.columns[ACCENT], self.quad[some], axis=1)
            if colour is None
            else np.reshape(colour, (3, 1))
        )
        if light is not None:
            self.light[:, at] = light


def _plain(on, sun, time, weather):
    on.scale(0.94 + 0.10 * on.v)


def _grid(on, sun, time, weather):
    """Panes in a frame: windows of a house or a bus, a windscreen, doors of a truck."""
    margin, low, high = on.parameter(2), on.parameter(3), on.parameter(4)
    cu, cv = on.u * on.parameter(0), on.v * on.parameter(1)
    fu, fv = cu - np.floor(cu), cv - np.floor(cv)
    pane = (np.abs(fu - 0.5) < 0.5 - margin) & (fv > low) & (fv < high)
    on.scale(0.90 + 0.16 * on.v)
    on.dye(pane)
    pane &= on.column(LABEL) == cityscapes.BUILDING  # no two windows of a house are alike
    at, quad = on.at[pane], on.quad[pane]
    seed = on.columns[P.start][quad] * np.float32(0.37) + on.columns[COLOUR.start][
        quad
    ] * np.float32(977)
    vary = look(np.floor(cu[pane]) * 13 + seed + 65536, np.floor(cv[pane]) * 29 + seed + 65536)
    on.colour[:, at] *= 1 + np.float32(0.5) * vary
    on.colour[:, at] += np.float32(0.05) * fv[pane]


def _foliage(on, sun, time, weather):
    nx, ny = 2 * on.u - 1, 1 - 2 * on.v
    nz = -np.sqrt(np.maximum(0.05, 1 - nx * nx - ny * ny))
    lit = np.clip(0.35 + 0.65 * (nx * sun[0] + ny * sun[1] + nz * sun[2]), 0, 1)
    on.shine(0.75 + 0.25 * on.v, lit, weather)
    shift = on.parameter(0) * 23
    on.scale(1 + np.float32(0.32) * look(on.u * 14 + shift, on.v * 14 + shift))


def _ball(on, sun, time, weather):
    nx, ny = 2 * on.u - 1, 1 - 2 * on.v
    on.shine(1.0, np.clip(0.4 + 0.6 * (nx * sun[0] + ny * sun[1]), 0, 1), weather)


def _cylinder(on, sun, time, weather):
    on.scale(0.80 + 0.30 * np.sin(np.float32(np.pi) * on.u) + 0.15 * (on.u - 0.5) * np.sign(sun[0]))


def _slats(on, sun, time, weather):
    along = on.u * on.parameter(0)
    rail = (np.abs(on.v - 0.25) < 0.07) | (np.abs(on.v - 0.78) < 0.07)
    on.dye((along - np.floor(along) > 0.62) & ~rail)


def _bricks(on, sun, time, weather):
    row = on.v * on.parameter(1)
    course = np.floor(row)
    along = on.u * on.parameter(0) + 0.5 * (course % 2)
    on.scale(0.92 + 0.10 * on.v)
    on.dye((row - course < 0.16) | (along - np.floor(along) < 0.06))


def _board(on, sun, time, weather):
    """A rim in the accent, and a bar across the middle of round boards."""
    x, y = 2 * on.u - 1, 2 * on.v - 1
    disc, pointed = on.column(ELLIPSE) > 0, on.column(TAPER) > 0
    edge = np.where(disc, x * x + y * y, np.maximum(x * x, y * y))
    edge = np.where(pointed, np.maximum((np.abs(x) + 0.5 * (y + 1)) ** 2, y * y * (y < 0)), edge)
    on.dye((edge > 0.60) | (disc & (np.abs(y) < 0.16) & (np.abs(x) < 0.55)))


def _lamps(on, sun, time, weather):
    state = furniture.light_state(on.parameter(0), time)
    third = np.clip((on.v * 3).astype(np.int64), 0, 2)  # 0 green below, 1 amber, 2 red above
    inside = (2 * on.u - 1) ** 2 + (2 * (on.v * 3 - third) - 1) ** 2 < 0.85
    for lamp, tint in enumerate((GREEN_LAMP, AMBER_LAMP, RED_LAMP)):
        on.dye(inside & (third == lamp) & (state != lamp), np.multiply(tint, 0.14))
        on.dye(inside & (third == lamp) & (state == lamp), tint, 1.1)


def _wheel(on, sun, time, weather):
    r = (2 * on.u - 1) ** 2 + (2 * on.v - 1) ** 2
    on.dye(r < 0.36)
    on.dye((r < 0.55) & (on.column(LABEL) == cityscapes.BICYCLE), (0.30, 0.30, 0.30))


def _tail(on, sun, time, weather):
    """Rear of a car: lamps (brighter when it brakes: the first parameter is 2), plate, bumper."""
    side = np.abs(on.u - 0.5)
    on.scale(0.85 + 0.2 * on.v)
    on.dye(on.v < 0.22, (0.09, 0.09, 0.10))
    on.dye((side < 0.16) & (np.abs(on.v - 0.36) < 0.11), (0.85, 0.85, 0.80))
    lamp, braking = (side > 0.33) & (on.v > 0.50) & (on.v < 0.88), on.parameter(0) > 1.5
    on.dye(lamp & ~braking, (0.50, 0.03, 0.03))
    on.dye(lamp & braking, (1.0, 0.10, 0.06), 1.15)


def _nose(on, sun, time, weather):
    side = np.abs(on.u - 0.5)
    on.scale(0.9 + 0.1 * on.v)
    on.dye((side < 0.30) & (on.v > 0.12) & (on.v < 0.55), (0.08, 0.08, 0.09))
    on.dye((side > 0.30) & (on.v > 0.48) & (on.v < 0.85), (1.0, 0.97, 0.86), 0.95)


SHADERS = {
    PLAIN: _plain,
    GRID: _grid,
    FOLIAGE: _foliage,
    BALL: _ball,
    CYLINDER: _cylinder,
    SLATS: _slats,
    BRICKS: _bricks,
    BOARD: _board,
    LAMPS: _lamps,
    WHEEL: _wheel,
    TAIL: _tail,
    NOSE: _nose,
}
