"""The static street of a clip: its course, its cross-section and what stands along it, as a
function of road position.

What stands on it comes in chunks of CHUNK metres; a chunk depends on the clip and on its own number
only, so that nothing appears or vanishes because of where the camera is.
"""

import dataclasses

import numpy as np

from re2pix_jax.cityscapes import FENCE, VEGETATION, WALL
from re2pix_jax.world import furniture, models, quads, section
from re2pix_jax.world.course import Course
from re2pix_jax.world.quads import BRICKS, SLATS

CHUNK = 70.0
STROLL = 30.0  # how far people walk from where they were at time 0 (m)
ZEBRA, JUNCTION, STOP_LINE = 1, 2, 3


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


class Street(Course):
    """A course with its section and what stands along it.

    Args:
        seed: a tuple of integers that names the clip.
    """

    def __init__(self, seed):
        self.seed = seed
        rng = np.random.default_rng([*seed, 1])
        super().__init__(rng)
        self.lanes = 2 if rng.random() < 0.3 else 1  # a direction
        self.lane = rng.uniform(3.2, 3.7)
        self.parking = 2.2 if rng.random() < 0.6 else 0.0
        self.kerb = self.lanes * self.lane + self.parking + 0.2
        self.verge = np.where(rng.random(2) < 0.5, rng.uniform(1.2, 2.2, 2), 0.0)  # left, right
        self.walk = rng.uniform(1.8, 3.2, 2)
        self.styles = rng.dirichlet([1.6, 1.3, 1.0])  # town, suburb, park
        self.crowd = rng.uniform(0.05, 0.26)  # walkers a metre of one side
        self.parked = rng.uniform(0.35, 0.85)
        self.section = section.draw(rng, self)
        # Drawn once, kept as long as the clip.
        self._crossings, self._chunks, self._crossers = {}, {}, {}

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
        parts.append((quads.table(thing), s, d, turn))

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
                    furniture.building(rng, side, width, tall, style),
                    cursor + width / 2,
                    side * (back + setback),
                )
            cursor += (
                width + (rng.choice([0.0, 0.3, 4.0]), rng.uniform(4, 12), rng.uniform(2, 14))[style]
            )
        if style > 0 or rng.random() < 0.4:  # a fence, a wall or a hedge behind the pavement
            self._boundary(rng, start, side * (back + 0.15), gap, parts)
        if style > 0 or setback > 3:
            for s in np.arange(start + 3, start + CHUNK - 2, 8.0 if style == 2 else 13.0):
                s = s + rng.uniform(-3, 3)
                if not gap(s, 3):
                    self._put(
                        parts,
                        furniture.tree(rng),
                        s,
                        side * (back + rng.uniform(2.5, 3.5 + setback * 0.4)),
                    )
        edge = inner + 0.5 * verge if verge else inner + 0.35
        period = rng.uniform(9, 15)
        # The line of trees, lamps and signs along the kerb.
        for s in np.arange(start + 2, start + CHUNK - 2, period):
            s, kind = s + rng.uniform(-1.5, 1.5), rng.random()
            if gap(s, 2.5):
                continue
            if kind < (0.45 if verge else 0.15):
                self._put(parts, furniture.tree(rng), s, side * edge)
            elif kind < 0.62:
                self._put(parts, furniture.street_lamp(side), s, side * edge)
            elif kind < 0.85:
                self._put(
                    parts,
                    furniture.traffic_sign(rng),
                    s,
                    side * edge,
                    0.0 if side > 0 or rng.random() < 0.5 else np.pi,
                )
            elif verge:
                self._put(parts, furniture.bush(rng), s, side * edge)
        if self.parking:
            self._parked(rng, start, side, gap, parts)

    def _boundary(self, rng, start, d, gap, parts):
        kind, step = rng.choice(4, p=[0.36, 0.34, 0.15, 0.15]), 3.5
        tall = (rng.uniform(1.3, 1.9), rng.uniform(1.5, 2.4), rng.uniform(0.9, 1.5), 0.0)[kind]
        if kind == 3:
            return
        first, last = start + rng.uniform(0, 10), start + CHUNK - rng.uniform(0, 10)
        s = np.arange(first, last - step, step)
        s = s[[not gap(value + step / 2, 4.0) for value in s]]
        if not len(s):
            return
        wood = np.array([[0.72, 0.70, 0.64], [0.50, 0.34, 0.18], [0.16, 0.30, 0.26]])[
            rng.integers(3)
        ]
        stone = np.array([[0.58, 0.32, 0.24], [0.60, 0.58, 0.54], [0.68, 0.62, 0.48]])[
            rng.integers(3)
        ]
        label, material, colour, shade, repeats = (
            (FENCE, SLATS, wood, 0.35, (7, 1)),
            (WALL, BRICKS, stone, 0.7, (2.5, round(tall / 0.4))),
            (VEGETATION, BRICKS, np.array([0.14, 0.28, 0.09]), 0.75, (3, 2)),
        )[kind]
        panel = quads.table(
            quads.box(
                (-0.12, 0.12),
                (0, tall),
                (0, step),
                label,
                'blrt',
                material=material,
                colour=colour,
                accent=colour * shade,
                parameters=(*repeats, 0, 0, 0),
            )
        )
        # Panels on the outside of a bend are longer.
        stretch = 1.02 - d * self.curvature(s + step / 2)
        for at, factor in zip(s, stretch, strict=True):
            piece = panel.copy()
            piece[:, [2, 5, 8]] *= factor
            self._put(parts, piece, at, d)

    def _parked(self, rng, start, side, gap, parts):
        s = start + np.arange(3.0, CHUNK - 2, 6.2)
        s = s + rng.uniform(-0.5, 0.5, len(s))
        keep = (rng.random(len(s)) < self.parked) & [not gap(value, 5.0) for value in s]
        colours, kind, size = (
            models.paint(rng, len(s)),
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
                    parts, furniture.traffic_light(crossing.phase), crossing.s + along, side * d
                )
        for side in (-1, 1):
            if not crossing.junction or rng.random() < 0.5:
                self._put(
                    parts,
                    furniture.traffic_sign(rng),
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
            # Nobody steps before a car that is already too near when the clip begins.
            if -15 < crossing.s < 45:
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
            'shirt': models.paint(rng, n),
            'trousers': models.paint(rng, n) * 0.5,
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
        # To and fro, so that nobody leaves the chunk behind.
        turn = np.mod(vs * time + STROLL, 4 * STROLL) - 2 * STROLL
        return (
            s + STROLL - np.abs(turn),
            d + vd * passed,
            vs * np.where(turn < 0, 1.0, -1.0),
            vd * walking,
        )
