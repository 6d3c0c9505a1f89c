"""The course of a street: a centreline that is an analytic function of the arc length s (m). A
place is (s, d), with d (m) to the right of the centreline.
"""

import numpy as np

START, STEP = -400.0, 0.5  # of the table of the centreline


class Course:
    """A course drawn from `rng`; tables grow as the road is followed."""

    def __init__(self, rng):
        wavelength = rng.uniform([130, 250], [260, 600])
        radius = rng.uniform([90, 150], [400, 700])
        self.waves = 2 * np.pi / wavelength
        self.turns = np.minimum(1 / (radius * self.waves), [0.22, 0.35])
        self.phases = rng.uniform(0, 2 * np.pi, 2)
        self._table = self._extend(600.0)

    def heading(self, s):
        """Direction of the centreline (rad, clockwise from north)."""
        s = np.asarray(s, np.float64)[..., None]
        return (self.turns * np.sin(self.waves * s + self.phases)).sum(-1)

    def curvature(self, s):
        """Its derivative (rad/m)."""
        s = np.asarray(s, np.float64)[..., None]
        return (self.turns * self.waves * np.cos(self.waves * s + self.phases)).sum(-1)

    def _extend(self, until):
        s = START + STEP * np.arange(int((until - START) / STEP) + 2)
        middle = self.heading(s + STEP / 2)
        step = STEP * np.stack([np.sin(middle), np.cos(middle)], -1)
        # Sums from START on: no value depends on `until`.
        return np.concatenate([np.zeros((1, 2)), np.cumsum(step, 0)])[:-1]

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
