"""Light and air of a clip, and a smooth texture that everything shares."""

import dataclasses
import functools

import numpy as np


@functools.cache
def noise():
    """Smooth periodic noise in [-1, 1], float32 [256, 256]; its features are about eight cells
    wide.
    """
    rng = np.random.default_rng(20240229)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(256, 256))) * np.exp(-((frequency * 14) ** 2))
    field = np.fft.irfft2(spectrum, s=(256, 256))
    return np.clip(field / (2.2 * field.std()), -1, 1).astype(np.float32)


def look(a, b):
    """The noise at cell coordinates; arrays of one shape (or that broadcast)."""
    return noise()[a.astype(np.int64) & 255, b.astype(np.int64) & 255]


@dataclasses.dataclass(frozen=True)
class Weather:
    """sun: unit vector (east, up, north) to the sun; direct, ambient: colours of light; zenith,
    horizon: of the sky; cover: of clouds, 0..1; visibility (m): where the air hides about two
    thirds; hills: height of the skyline (slope).
    """

    sun: np.ndarray
    direct: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    cover: float
    visibility: float
    hills: float
    shift: np.ndarray

    @classmethod
    def draw(cls, seed):
        rng = np.random.default_rng([*seed, 6])
        azimuth, rise = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(14, 65))
        sun = np.array(
            [np.sin(azimuth) * np.cos(rise), np.sin(rise), np.cos(azimuth) * np.cos(rise)]
        )
        mood, exposure = rng.choice(3, p=[0.5, 0.35, 0.15]), rng.uniform(0.82, 1.15)
        if mood == 0:  # clear or partly cloudy
            direct, ambient = np.array([0.80, 0.76, 0.68]), np.array([0.52, 0.56, 0.62])
            zenith, horizon = np.array([0.28, 0.48, 0.82]), np.array([0.72, 0.82, 0.92])
            cover, visibility = rng.uniform(0.1, 0.6), rng.uniform(95, 125)
        elif mood == 1:  # overcast, sometimes misty
            direct, ambient = np.array([0.26, 0.26, 0.26]), np.array([0.82, 0.84, 0.86])
            zenith, horizon = np.array([0.62, 0.66, 0.71]), np.array([0.80, 0.82, 0.84])
            cover, visibility = rng.uniform(0.5, 1.0), rng.uniform(60, 110)
        else:  # low sun
            direct, ambient = np.array([0.92, 0.66, 0.42]), np.array([0.46, 0.44, 0.48])
            zenith, horizon = np.array([0.38, 0.46, 0.68]), np.array([0.96, 0.76, 0.56])
            cover, visibility = rng.uniform(0.2, 0.8), rng.uniform(85, 115)
        hills = rng.uniform(0.015, 0.05) if rng.random() < 0.6 else 0.0
        return cls(
            sun,
            direct * exposure,
            ambient * exposure,
            zenith * min(exposure, 1.05),
            horizon * min(exposure, 1.03),
            cover,
            visibility,
            hills,
            rng.uniform(0, 256, 4),
        )

    def clear(self, depth):
        """Share of the light that comes through the air over a depth (m)."""
        way = depth * np.float32(1 / self.visibility)
        return np.exp(-way * np.sqrt(way))
