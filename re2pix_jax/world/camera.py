"""The camera on the ego car: its pose in every frame, and the rays of its pixels.

Camera axes: x right, y down, z along the optical axis; a ray is (x, y, 1), so that a point is depth
times its ray. The camera is pitched, never rolled: over a flat ground the depth of the ground is
then a function of the image row alone.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mount:
    """How the camera sits on the car: height (m), pitch (rad, positive looks down), horizontal
    field of view (rad).
    """

    height: float
    pitch: float
    view: float

    @classmethod
    def draw(cls, seed):
        rng = np.random.default_rng([*seed, 5])
        return cls(
            rng.uniform(1.3, 1.85),
            np.deg2rad(rng.uniform(0.5, 4.5)),
            np.deg2rad(rng.uniform(56, 66)),
        )


@dataclasses.dataclass(frozen=True)
class Camera:
    """One frame's camera. position (east, north) in metres, heading clockwise from north (rad)."""

    position: np.ndarray
    heading: float
    height: float
    pitch: float
    view: float

    @classmethod
    def at(cls, mount, position, heading, accel):
        """The nose dips when braking."""
        return cls(position, heading, mount.height, mount.pitch - 0.0035 * accel, mount.view)

    def rays(self, height, width):
        """x of the columns [width] and y of the rows [height], float64; focal lengths are equal in
        both directions.
        """
        focal = self.focal(width)
        return (np.arange(width) + 0.5 - width / 2) / focal, (
            np.arange(height) + 0.5 - height / 2
        ) / focal

    def focal(self, width):
        return 0.5 * width / np.tan(0.5 * self.view)

    def turn(self, vectors):
        """World vectors (east, up, north) [..., 3] to camera axes."""
        sin, cos, down, level = (
            np.sin(self.heading),
            np.cos(self.heading),
            np.sin(self.pitch),
            np.cos(self.pitch),
        )
        matrix = np.array(
            [
                [cos, -down * sin, level * sin],
                [0.0, -level, -down],
                [-sin, -down * cos, level * cos],
            ]
        )
        return vectors @ matrix

    def see(self, points):
        """World points (east, up, north) [..., 3] to camera coordinates."""
        return self.turn(points - np.array([self.position[0], self.height, self.position[1]]))

    def ground(self, y):
        """For rows at y: (1/depth of the ground, 0 or less above the horizon; way ahead per unit of
        depth).
        """
        inverse = (y * np.cos(self.pitch) + np.sin(self.pitch)) / self.height
        return inverse, np.cos(self.pitch) - y * np.sin(self.pitch)
