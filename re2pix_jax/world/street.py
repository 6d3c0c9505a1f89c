"""The static street of a clip: its course, its cross-section and what stands along it, as a
function of road position.

The road is laid along a centreline that is an analytic function of the arc length s (m); a place is
(s, d) with d (m) to the right of the centreline. What stands on it comes in chunks of CHUNK metres;
a chunk depends on the clip and on its own number only, so that nothing appears or vanishes because
of where the camera is.
"""

import dataclasses

import numpy as np

from re2pix_jax.world import furniture, houses, models, quads
from re2pix_jax.world.quads import (
    ROAD,
    SIDEWALK,
    TERRAIN,
)

CHUNK = 70.0
STROLL = 30.0  # how far people walk from where they were at time 0 (m)
NORMAL, ZEBRA, JUNCTION, STOP_LINE = range(4)
START, STEP = -400.0, 0.5  # of the table of the centreline
LUT_HALF, LUT_SCALE = 48.0, 16.0  # the cross-section reaches 48 m to both sides, 16 entries a metre


@dataclasses.dataclass(frozen=True)
class Crossing:
    s: float  # middle of the crossing road, or of the zebra
    junction: bool
    phase: float  # of its traffic lights (s); meaningful at junctions only


@dataclasses.dataclass(frozen=True)
class Chunk:
    rows: np.ndarray  # quads [n, COLUMNS]
    # arrays [k]: s, d, speed_s, speed_d, start, phase, heading offset, scale, and paints [k, 3]
    people: dict
    crossing: Crossing | None


def paint(rng, n):
    """Colours that cars and clothes come in: float [n, 3]."""
    table = np.array(
        [
            [0.75, 0.08, 0.07],
            [0.10, 0.20, 0.60],
            [0.85, 0.85, 0.86],
            [0.55, 0.57, 0.60],
            [0.12, 0.12, 0.14],
            [0.12, 0.40, 0.35],
            [0.80, 0.55, 0.10],
            [0.25, 0.45, 0.70],
            [0.45, 0.08, 0.15],
        ]
    )
    return np.clip(table[rng.integers(len(table), size=n)] * rng.uniform(0.8, 1.1, (n, 1)), 0, 1)


class Street:
    """seed: a tuple of integers that names the clip."""

    def __init__(self, seed):
        self.seed = seed
        rng = np.random.default_rng([*seed, 1])
        wavelength = rng.uniform([130, 250], [260, 600])
        radius = rng.uniform([90, 150], [400, 700])
        self.waves = 2 * np.pi / wavelength
        self.turns = np.minimum(1 / (radius * self.waves), [0.22, 0.35])
        self.phases = rng.uniform(0, 2 * np.pi, 2)
        self.lanes = 2 if rng.random() < 0.3 else 1  # a direction
        self.lane = rng.uniform(3.2, 3.7)
        self.parking = 2.2 if rng.random() < 0.6 else 0.0
        self.kerb = self.lanes * self.lane + self.parking + 0.2
        self.verge = np.where(rng.random(2) < 0.5, rng.uniform(1.2, 2.2, 2), 0.0)  # left, right
        self.walk = rng.uniform(1.8, 3.2, 2)
        self.styles = rng.dirichlet([1.6, 1.3, 1.0])  # town, suburb, park
        self.crowd = rng.uniform(0.05, 0.26)  # walkers a metre of one side
        self.parked = rng.uniform(0.35, 0.85)
        self._colours(rng)
        self._table = self._extend(600.0)
        self._crossings, self._chunks, self._crossers = (
            {},
            {},
            {},
        )  # drawn once, kept as long as the clip

    def _colours(self, rng):
        asphalt = rng.uniform(0.25, 0.38) * np.array([1.0, 1.0, 1.03])
        pavement = rng.uniform(0.46, 0.62) * np.array([1.04, 1.0, 0.94 + 0.06 * rng.random()])
        grass = np.array([0.33, 0.37, 0.15]) * rng.uniform(0.8, 1.15) + rng.uniform(
            -0.04, 0.06
        ) * np.array([1, 0.2, 0])
        d = (np.arange(int(2 * LUT_HALF * LUT_SCALE)) + 0.5) / LUT_SCALE - LUT_HALF
        side, far = (d > 0).astype(int), np.abs(d)
        kerb = far - self.kerb
        walk = self.verge[side] + 0.28
        label = np.full(d.shape, TERRAIN, np.uint8)
        label[(kerb >= walk) & (kerb < walk + self.walk[side])] = SIDEWALK
        label[(kerb >= 0) & (kerb < 0.28)] = SIDEWALK
        label[kerb < 0] = ROAD
        colour = np.where(
            (label == ROAD)[:, None],
            asphalt,
            np.where((label == SIDEWALK)[:, None], pavement, grass),
        )
        colour[(kerb >= 0) & (kerb < 0.28)] = pavement * 1.2
        colour[(kerb >= -0.3) & (kerb < 0)] *= 0.75
        flagstones = (label == SIDEWALK) & (kerb >= walk) & (np.mod(kerb - walk, 1.2) < 0.1)
        colour[flagstones] *= 0.85
        white = np.array([0.86, 0.86, 0.84])
        edge = np.abs(far - self.lanes * self.lane) < 0.1
        dashed = np.zeros(d.shape, bool)
        for lane in range(self.lanes):
            dashed |= np.abs(far - lane * self.lane) < 0.1
        if rng.random() < 0.4:  # an unbroken middle line
            colour[far < 0.1] = white
            dashed &= far > 0.5
        if self.parking or rng.random() < 0.7:
            colour[edge] = white
        self.section_label, self.section_colour, self.section_dashed = (
            label,
            np.ascontiguousarray(colour.T, np.float32),
            dashed,
        )
        self.asphalt, self.white = asphalt.astype(np.float32), white.astype(np.float32)

    # --- course
    # ----------------------------------------------------------------------------------------------
    def heading(self, s):
        """Direction of the centreline (rad, clockwise from north)."""
        s = np.asarray(s, np.float64)[..., None]
        return (self.turns * np.sin(self.waves * s + self.phases)).sum(-1)

    def curvature(self, s):
        s = np.asarray(s, np.float64)[..., None]
        return (self.turns * self.waves * np.cos(self.waves * s + self.phases)).sum(-1)

    def _extend(self, until):
        s = START + STEP * np.arange(int((until - START) / STEP) + 2)
        middle = self.heading(s + STEP / 2)
        step = STEP * np.stack([np.sin(middle), np.cos(middle)], -1)
        return np.concatenate([np.zeros((1, 2)), np.cumsum(step, 0)])[
            :-1
        ]  # sums from START on: no value depends on `until`

    def centre(self, s):
        """Points (east, north) of the centreline, [..., 2]; START <= s."""
        place = (np.asarray(s, np.float64) - START) / STEP
        top = float(np.max(place, initial=0.0))
        if top + 2 >= len(self._table):
            self._table = self._extend(START + (top + 2000) * STEP)
        low = np.clip(np.floor(place).astype(np.int64), 0, len(self._table) - 2)
        part = (place - low)[..., None]
        return self._table[low] * (1 - part) + self._table[low + 1] * part

    def position(self, s, d):
        """World coordinates (east, north) [..., 2] of road coordinates (s, d)."""
        angle = self.heading(s)
        return self.centre(s) + np.asarray(d, np.float64)[..., None] * np.stack(
            [np.cos(angle), -np.sin(angle)], -1
        )

    # --- chunks
    # ----------------------------------------------------------------------------------------------
    def crossing(self, number):
        """The crossing of a chunk, or None."""
        if number not in self._crossings:
            self._crossings[number] = self._draw_crossing(number)
        return self._crossings[number]

    def _draw_crossing(self, number):
        rng = np.random.default_rng([*self.seed, 2, number + (1 << 20)])
        s, kind, phase = (
            CHUNK * (number + rng.uniform(0.3, 0.7)),
            rng.random(),
            rng.uniform(0, furniture.GREEN - 4),
        )
        if rng.random() < 0.25:
            phase = rng.uniform(0, furniture.CYCLE)
        return None if kind < 0.2 else Crossing(s, kind > 0.42, phase)

    def crossings(self, low, high):
        found = (
            self.crossing(k)
            for k in range(int(np.floor(low / CHUNK)), int(np.floor(high / CHUNK)) + 1)
        )
        return [c for c in found if c is not None]

    def chunk(self, number):
        if number not in self._chunks:
            self._chunks[number] = self._draw_chunk(number)
        return self._chunks[number]

    def _draw_chunk(self, number):
        rng = np.random.default_rng([*self.seed, 3, number + (1 << 20)])
        crossing = self.crossing(number)
        parts = []
        for side in (-1, 1):
            self._side(rng, number * CHUNK, side, crossing, parts)
        if crossing is not None:
            self._crossing_furniture(rng, crossing, parts)
        return Chunk(self._stand(parts), self._people(rng, number, crossing), crossing)

    def _put(self, parts, thing, s, d, turn=0.0):
        """Notes quads in local axes to be stood at (s, d), turned from the road's direction."""
        parts.append((thing, s, d, turn))

    def _stand(self, parts):
        """All noted quads in the world, [n, COLUMNS]."""
        if not parts:
            return np.zeros((0, quads.COLUMNS))
        things, s, d, turn = zip(*parts, strict=True)
        count, s = [len(thing) for thing in things], np.array(s)
        xz, heading = self.position(s, np.array(d)), self.heading(s) + np.array(turn)
        return quads.stand(
            np.concatenate(things), *(np.repeat(a, count) for a in (xz[:, 0], xz[:, 1], heading))
        )

    def _side(self, rng, start, side, crossing, parts):
        verge, walk = self.verge[int(side > 0)], self.walk[int(side > 0)]
        inner, back = self.kerb + 0.28, self.kerb + 0.28 + verge + walk
        gap = lambda s, margin: (
            crossing is not None
            and abs(s - crossing.s) < margin + (5.0 if crossing.junction else 0.0)
        )
        style = rng.choice(3, p=self.styles)
        setback = (rng.uniform(0.2, 1.5), rng.uniform(3.5, 7.0), rng.uniform(12.0, 18.0))[style]
        cursor = start + rng.uniform(0, 4)
        while cursor < start + CHUNK - 7:
            width = min(
                (rng.uniform(9, 20), rng.uniform(8, 13), rng.uniform(10, 16))[style],
                start + CHUNK - cursor,
            )
            tall = (rng.uniform(7, 19), rng.uniform(4.5, 7), rng.uniform(4, 8))[style]
            if not gap(cursor + width / 2, width / 2 + 2) and (style < 2 or rng.random() < 0.3):
                self._put(
                    parts,
                    houses.building(rng, side, width, tall, style),
                    cursor + width / 2,
                    side * (back + setback),
                )
            cursor += (
                width + (rng.choice([0.0, 0.3, 4.0]), rng.uniform(4, 12), rng.uniform(2, 14))[style]
            )
        if style > 0 or rng.random() < 0.4:  # a fence, a wall or a hedge behind the pavement
            d = side * (back + 0.15)
            # Panels on the outside of a bend are longer.
            stretch = lambda s, d=d: 1.02 - d * self.curvature(s)
            for piece, at in houses.fence(rng, start, CHUNK, stretch, gap):
                self._put(parts, piece, at, d)
        if style > 0 or setback > 3:
            for s in np.arange(start + 3, start + CHUNK - 2, 8.0 if style == 2 else 13.0):
                s = s + rng.uniform(-3, 3)
                if not gap(s, 3):
                    self._put(
                        parts,
                        quads.rows(furniture.tree(rng)),
                        s,
                        side * (back + rng.uniform(2.5, 3.5 + setback * 0.4)),
                    )
        edge = inner + 0.5 * verge if verge else inner + 0.35
        period = rng.uniform(9, 15)
        for s in np.arange(
            start + 2, start + CHUNK - 2, period
        ):  # the line of trees, lamps and signs along the kerb
            s, kind = s + rng.uniform(-1.5, 1.5), rng.random()
            if gap(s, 2.5):
                continue
            if kind < (0.45 if verge else 0.15):
                self._put(parts, quads.rows(furniture.tree(rng)), s, side * edge)
            elif kind < 0.62:
                self._put(parts, quads.rows(furniture.street_lamp(side)), s, side * edge)
            elif kind < 0.85:
                self._put(
                    parts,
                    quads.rows(furniture.traffic_sign(rng)),
                    s,
                    side * edge,
                    0.0 if side > 0 or rng.random() < 0.5 else np.pi,
                )
            elif verge:
                self._put(parts, quads.rows(furniture.bush(rng)), s, side * edge)
        if self.parking:
            self._parked(rng, start, side, gap, parts)

    def _parked(self, rng, start, side, gap, parts):
        s = start + np.arange(3.0, CHUNK - 2, 6.2)
        s = s + rng.uniform(-0.5, 0.5, len(s))
        keep = (rng.random(len(s)) < self.parked) & [not gap(value, 5.0) for value in s]
        colours, kind, size = (
            paint(rng, len(s)),
            rng.random(len(s)),
            rng.uniform(0.94, 1.08, (len(s), 3)),
        )
        d = side * (self.kerb - 1.1)
        turn = 0.0 if side > 0 else np.pi
        for i in np.flatnonzero(keep):
            van = kind[i] < 0.06
            thing = quads.place(
                models.TEMPLATES['truck' if van else 'car'],
                0.0,
                0.0,
                0.0,
                paint=colours[i : i + 1],
                second=np.array([[0.8, 0.8, 0.78]]),
                scale=np.array([[0.8, 0.85, 0.72]]) if van else size[i : i + 1],
            )
            self._put(parts, thing, s[i], d, turn)

    def _crossing_furniture(self, rng, crossing, parts):
        d = self.kerb + 0.7
        if crossing.junction:
            for along, side in ((-6.5, 1), (-6.5, -1), (6.5, 1)):
                self._put(
                    parts,
                    quads.rows(furniture.traffic_light(crossing.phase)),
                    crossing.s + along,
                    side * d,
                )
        for side in (-1, 1):
            if not crossing.junction or rng.random() < 0.5:
                self._put(
                    parts,
                    quads.rows(furniture.traffic_sign(rng)),
                    crossing.s - side * (9.5 if crossing.junction else 3.0),
                    side * d,
                    0.0 if side > 0 else np.pi,
                )

    def _people(self, rng, number, crossing):
        columns = []
        for side in (-1, 1):
            n = rng.poisson(self.crowd * CHUNK)
            low = self.kerb + 0.28 + self.verge[int(side > 0)]
            d = side * (low + rng.uniform(0.4, self.walk[int(side > 0)] - 0.3, n))
            speed = rng.choice([-1.0, 1.0], n) * rng.uniform(0.9, 1.7, n) * (rng.random(n) > 0.12)
            columns.append(np.stack([CHUNK * (number + rng.random(n)), d, speed, 0 * d, 0 * d], -1))
        if crossing is not None:
            n = rng.integers(1, 5)
            side = rng.choice([-1.0, 1.0], n)
            start = rng.uniform(-4, 9, n)
            if (
                -15 < crossing.s < 45
            ):  # nobody steps before a car that is already too near when the clip begins
                start += 9.0
            s = crossing.s - (7.6 if crossing.junction else 0.0) + rng.uniform(-1.1, 1.1, n)
            columns.append(
                np.stack(
                    [s, side * (self.kerb + 0.8), 0 * s, -side * rng.uniform(1.1, 1.7, n), start],
                    -1,
                )
            )
        table = np.concatenate(columns)
        n = len(table)
        return {
            'motion': table,
            'phase': rng.uniform(0, 2 * np.pi, n),
            'scale': np.repeat(rng.uniform(0.88, 1.08, (n, 1)), 3, 1),
            'shirt': paint(rng, n),
            'trousers': paint(rng, n) * 0.5,
        }

    def crossers(self, number):
        """Those people of a chunk who cross the road: (s, d before, span, speed_d, start), each
        [k]; see `walkers`.
        """
        if number not in self._crossers:
            s, d, _, vd, start = self.chunk(number).people['motion'].T
            who = vd != 0
            self._crossers[number] = (
                s[who],
                d[who],
                2 * np.abs(d[who] / vd[who]),
                vd[who],
                start[who],
            )
        return self._crossers[number]

    def walkers(self, number, time):
        """Where the people of a chunk are at a time (s): (s, d, speed_s, speed_d), each [k]."""
        s, d, vs, vd, start = self.chunk(number).people['motion'].T
        span = np.divide(2 * np.abs(d), np.abs(vd), out=np.zeros_like(d), where=vd != 0)
        passed = np.clip(time - start, 0, span)
        walking = (passed > 0) & (passed < span)
        turn = (
            np.mod(vs * time + STROLL, 4 * STROLL) - 2 * STROLL
        )  # to and fro, so that nobody leaves the chunk behind
        return (
            s + STROLL - np.abs(turn),
            d + vd * passed,
            vs * np.where(turn < 0, 1.0, -1.0),
            vd * walking,
        )
