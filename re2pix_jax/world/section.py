"""The cross-section of a street: what the ground is at each distance from its centreline."""

import dataclasses

import numpy as np

from re2pix_jax.cityscapes import ROAD, SIDEWALK, TERRAIN

LUT_HALF, LUT_SCALE = 48.0, 16.0  # the cross-section reaches 48 m to both sides, 16 entries a metre


@dataclasses.dataclass(frozen=True)
class Section:
    """Over the distance from the centreline, [N] from left to right: label, colour [3, N], where
    lines are dashed; and the colours [3] of asphalt and of lines.
    """

    label: np.ndarray
    colour: np.ndarray
    dashed: np.ndarray
    asphalt: np.ndarray
    white: np.ndarray

    @staticmethod
    def index(d):
        """Entries of places d (m, float32) to the right of the centreline."""
        index = ((d + np.float32(LUT_HALF)) * np.float32(LUT_SCALE)).astype(np.int32)
        return np.clip(index, 0, int(2 * LUT_HALF * LUT_SCALE) - 1, out=index)


def draw(rng, street) -> Section:
    """A section for the lanes, kerbs and pavements of a street."""
    asphalt = rng.uniform(0.25, 0.38) * np.array([1.0, 1.0, 1.03])
    pavement = rng.uniform(0.46, 0.62) * np.array([1.04, 1.0, 0.94 + 0.06 * rng.random()])
    grass = np.array([0.33, 0.37, 0.15]) * rng.uniform(0.8, 1.15) + rng.uniform(
        -0.04, 0.06
    ) * np.array([1, 0.2, 0])
    d = (np.arange(int(2 * LUT_HALF * LUT_SCALE)) + 0.5) / LUT_SCALE - LUT_HALF
    side, far = (d > 0).astype(int), np.abs(d)
    kerb = far - street.kerb
    walk = street.verge[side] + 0.28
    label = np.full(d.shape, TERRAIN, np.uint8)
    label[(kerb >= walk) & (kerb < walk + street.walk[side])] = SIDEWALK
    label[(kerb >= 0) & (kerb < 0.28)] = SIDEWALK
    label[kerb < 0] = ROAD
    colour = np.where(
        (label == ROAD)[:, None], asphalt, np.where((label == SIDEWALK)[:, None], pavement, grass)
    )
    colour[(kerb >= 0) & (kerb < 0.28)] = pavement * 1.2
    colour[(kerb >= -0.3) & (kerb < 0)] *= 0.75
    flagstones = (label == SIDEWALK) & (kerb >= walk) & (np.mod(kerb - walk, 1.2) < 0.1)
    colour[flagstones] *= 0.85
    white = np.array([0.86, 0.86, 0.84])
    edge = np.abs(far - street.lanes * street.lane) < 0.1
    dashed = np.zeros(d.shape, bool)
    for lane in range(street.lanes):
        dashed |= np.abs(far - lane * street.lane) < 0.1
    if rng.random() < 0.4:  # an unbroken middle line
        colour[far < 0.1] = white
        dashed &= far > 0.5
    if street.parking or rng.random() < 0.7:
        colour[edge] = white
    colour, asphalt, white = (a.astype(np.float32) for a in (colour.T, asphalt, white))
    return Section(label, np.ascontiguousarray(colour), dashed, asphalt, white)
