"""The motion of the ego car and of the traffic: simulated step by step at 17 frames a second.

Agents live in road coordinates. They follow by the intelligent driver model (Treiber, Hennecke,
Helbing, 2000), keep their lane with a damped spring, change it where a slow leader is ahead and
another lane is free, and stop for red lights and for people on the road. Everything random is drawn
before the first step, so a step costs no random numbers.
"""

import dataclasses

import numpy as np

from re2pix_jax.world import furniture
from re2pix_jax.world.models import paint
from re2pix_jax.world.street import CHUNK

FPS = 17
KINDS = ('car', 'truck', 'bus', 'cyclist')
HALF_LENGTH = np.array([2.2, 4.1, 5.5, 0.9])
BURN_IN = 26  # steps before frame 0
BEHIND, AHEAD = -60.0, 260.0


@dataclasses.dataclass
class History:
    """Arrays over steps [T, N] (agent 0 is the ego car): s, d (m), v (m/s), turn (rad to the road),
    accel (m/s^2), twist (rad/s, the rate of `turn`); fixed [N]: kind, way (+1 with us, -1
    oncoming), paints and scale [N, 3].
    """

    s: np.ndarray
    d: np.ndarray
    v: np.ndarray
    turn: np.ndarray
    accel: np.ndarray
    twist: np.ndarray
    kind: np.ndarray
    way: np.ndarray
    colour: np.ndarray
    second: np.ndarray
    scale: np.ndarray


def _populate(street, rng):
    """Start of all agents: lists of (s, lane offset d, way, kind, wish for speed)."""
    wish = rng.uniform(9.0, 17.0)
    agents = [
        (0.0, street.lane * (0.5 if street.lanes == 1 or rng.random() < 0.5 else 1.5), 1, 0, wish)
    ]
    mix = rng.dirichlet([5.0, 1.6, 1.6])
    for lane in range(street.lanes):
        d = street.lane * (lane + 0.5)
        same = abs(d - agents[0][1]) < 1
        s = rng.uniform(16, 34) if same else rng.uniform(-12, 22)
        while s < 230:
            kind = rng.choice(3, p=mix)
            agents.append(
                (
                    s + HALF_LENGTH[kind],
                    d,
                    1,
                    kind,
                    wish * rng.uniform(0.82, 1.12) if same else rng.uniform(7, 15),
                )
            )
            s += 2 * HALF_LENGTH[kind] + rng.uniform(10, 45)
        s = rng.uniform(4, 30)
        while s < AHEAD - 15:
            kind = rng.choice(3, p=mix)
            agents.append((s + HALF_LENGTH[kind], -d, -1, kind, rng.uniform(7, 12)))
            s += 2 * HALF_LENGTH[kind] + rng.uniform(9, 40)
    edge = street.lanes * street.lane - 0.15
    for way, first in ((1, 9.0), (-1, 15.0)):
        s = rng.uniform(first, first + 30)
        while s < 220:
            agents.append((s, way * edge, way, 3, rng.uniform(4.5, 7.0)))
            s += rng.uniform(24, 80)
    return [np.array(column) for column in zip(*agents, strict=True)]


def simulate(street, seed, last):
    """History of frames 0..last (int), [last + 1, N]."""
    rng = np.random.default_rng([*seed, 4])
    s, d, way, kind, wish = _populate(street, rng)
    n = len(s)
    way, cyclist = way.astype(float), kind == 3
    beat, tide, deep = (
        rng.uniform(0.25, 0.9, n),
        rng.uniform(0, 2 * np.pi, n),
        rng.uniform(0.03, 0.24, n) * ~cyclist,
    )
    sway, swing, wide = (
        rng.uniform(0.2, 0.6, n),
        rng.uniform(0, 2 * np.pi, n),
        rng.uniform(0.05, 0.22, n),
    )
    eager = rng.uniform(10, 35, n)
    colour = paint(rng, n)
    colour[kind == 2] = np.array([[0.78, 0.10, 0.08], [0.88, 0.62, 0.06], [0.10, 0.35, 0.70]])[
        rng.integers(3, size=(kind == 2).sum())
    ]
    colour[cyclist] = np.array([[0.95, 0.80, 0.05], [0.95, 0.40, 0.05], [0.85, 0.10, 0.45]])[
        rng.integers(3, size=cyclist.sum())
    ]
    second = np.array(
        [[0.85, 0.85, 0.82], [0.80, 0.76, 0.62], [0.70, 0.74, 0.80], [0.82, 0.45, 0.15]]
    )[rng.integers(4, size=n)]
    second[cyclist] = np.array([[0.05, 0.42, 0.40], [0.40, 0.10, 0.10], [0.10, 0.15, 0.45]])[
        rng.integers(3, size=cyclist.sum())
    ]
    scale = rng.uniform(0.94, 1.08, (n, 3))
    scale[cyclist] = 1.1
    v, accel = wish * rng.uniform(0.75, 1.0, n), np.zeros(n)
    home, slide, waited = d.copy(), np.zeros(n), np.zeros(n)
    half, width = HALF_LENGTH[kind], np.where(cyclist, 0.7, 1.9)
    limits = np.where(cyclist, 0.8, 1.7)
    dt, keep = 1.0 / FPS, []
    for step in range(-BURN_IN, last + 1):
        time = step * dt
        gap, pace = _leaders(s, d, v, way, half, width)
        stop = _stops(street, s, d, v, way, time)
        goal = wish * (1 - deep * (1 + np.sin(beat * time + tide)))
        ratio = np.maximum(v, 0.0) / goal
        want = limits * (
            1 - np.minimum(ratio, 1.6) ** 4 - _press(v, pace, gap) ** 2 - _press(v, 0.0, stop) ** 2
        )
        before = np.arctan2(slide, np.maximum(v, 1.0))  # `turn` of the step before
        accel = accel + 0.22 * (np.clip(want, -7.0, limits) - accel)
        v = np.maximum(v + accel * dt, 0.0)
        s = s + way * v * dt
        if street.lanes == 2:
            waited = waited + 1
            _change_lanes(street, s, home, v, way, half, wish, gap, pace, cyclist, waited, eager)
        pull = home + wide * np.sin(sway * time + swing) * np.minimum(v / 5, 1)
        slide = slide + dt * (2.2 * np.clip(pull - d, -0.7, 0.7) - 1.5 * slide)
        slide = np.clip(slide, -0.16 * v, 0.16 * v)
        d = d + slide * dt
        if step >= 0:
            turn = np.arctan2(slide, np.maximum(v, 1.0))
            keep.append((s, d, v, turn, accel, (turn - before) / dt))
        near = s - s[0]
        gone = (way < 0) & (near < BEHIND) | (way > 0) & (near < BEHIND) & (np.arange(n) > 0)
        # Those we have left behind come again far ahead.
        s = np.where(gone, s + (AHEAD - BEHIND), s)
    fields = (np.stack(column) for column in zip(*keep, strict=True))
    return History(*fields, kind, way.astype(int), colour, second, scale)


def _press(v, other, gap):
    """Wished gap over gap of the intelligent driver model."""
    wished = 3.0 + np.maximum(0.0, 1.1 * v + v * (v - other) / (2 * np.sqrt(1.5 * 2.2)))
    return wished / np.maximum(gap, 0.8)


def _leaders(s, d, v, way, half, width):
    ahead = (s[None] - s[:, None]) * way[:, None]
    side = np.abs(d[None] - d[:, None]) < (width[None] + width[:, None]) * 0.47
    gap = ahead - half[None] - half[:, None]
    gap = np.where(side & (ahead > 0) & (way[None] == way[:, None]), gap, 1e3)
    which = gap.argmin(1)
    gap = gap[np.arange(len(s)), which]
    return gap, np.where(gap < 900, v[which], v)


def _stops(street, s, d, v, way, time):
    """Distance (m) of each agent to the next thing that it must stop for and still can; 1000 where
    there is none.
    """
    stop = np.full(len(s), 1e3)
    brake = v * v / (2 * 3.5)
    for crossing in street.crossings(s[0] - 60, s[0] + 130):
        if crossing.junction and furniture.light_state(crossing.phase, time):
            gap = (crossing.s - s) * way - 10.5
            stop = np.where((gap > brake) & (gap < 70), np.minimum(stop, gap), stop)
        who_s, who_d, span, slide, start = (
            a[:, None] for a in street.crossers(int(crossing.s // CHUNK))
        )
        gap = (who_s - s) * way - 4.0
        arrival = np.clip(gap / np.maximum(v, 1.0), 0, 3)
        now, soon = (who_d + slide * np.clip(at - start, 0, span) for at in (time, time + arrival))
        # Of the way in between.
        near = np.minimum(np.maximum(now, soon), np.maximum(np.minimum(now, soon), d))
        at_risk = (np.abs(near - d) < 1.7) & (gap > 0.5) & (gap < 38) & (time < start + span)
        stop = np.minimum(stop, np.where(at_risk, gap, 1e3).min(0, initial=1e3))
    return stop


def _change_lanes(street, s, home, v, way, half, wish, gap, pace, cyclist, waited, eager):
    """Moves `home`, in place, of those who are held up and have room."""
    held = (gap < 22) & (pace < wish - 1.0) & ~cyclist & (waited > eager * 5)
    for i in np.flatnonzero(held):
        other = way[i] * 2 * street.lane - home[i]
        apart = np.abs(s - s[i]) - half - half[i]
        if not ((np.abs(home - other) < 1.5) & (apart < 9)).any():
            home[i], waited[i] = other, 0.0
