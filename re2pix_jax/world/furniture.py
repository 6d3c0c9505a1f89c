"""What stands along the street: houses, trees, lamps, signs and traffic lights, as quads in local
axes.
"""

import numpy as np

from re2pix_jax.cityscapes import BUILDING, LIGHT, POLE, SIGN, VEGETATION
from re2pix_jax.world.quads import (
    BOARD,
    BRICKS,
    FOLIAGE,
    GRID,
    LAMPS,
    PLAIN,
    box,
    quad,
    shadow,
    upright,
)


def building(rng, side, width, tall, style):
    """A house `width` along the road and `tall` (m), on a side of it (-1, 1); styles above 0 have
    a roof.
    """
    base = (
        np.array(
            [
                [0.62, 0.50, 0.38],
                [0.55, 0.30, 0.22],
                [0.72, 0.68, 0.60],
                [0.50, 0.50, 0.52],
                [0.66, 0.56, 0.30],
                [0.45, 0.36, 0.34],
                [0.40, 0.46, 0.52],
            ]
        )[rng.integers(7)]
    ) * rng.uniform(0.8, 1.15)
    accent = np.array([[0.12, 0.15, 0.20], [0.20, 0.26, 0.33], [0.75, 0.78, 0.80]])[
        rng.choice(3, p=[0.5, 0.35, 0.15])
    ]
    deep = rng.uniform(7, 12)
    x = (0.0, deep) if side > 0 else (-deep, 0.0)
    pitch = rng.uniform(2.6, 3.6)
    grid = (rng.uniform(0.16, 0.30), 0.30, rng.uniform(0.70, 0.85))
    street, end = max(1, round(width / pitch)), max(1, round(deep / pitch))
    floors = max(1, round(tall / 3.0))
    faces = {
        'b': (end, floors, *grid),
        'f': (end, floors, *grid),
        'l': (street, floors, *grid),
        'r': (street, floors, *grid),
    }
    sides = 'bf' + ('l' if side > 0 else 'r')
    z = (-width / 2, width / 2)
    rows = box(
        x,
        (0, tall),
        z,
        BUILDING,
        sides,
        material=GRID,
        colour=base,
        accent=accent,
        parameters=faces,
    )
    if style > 0:  # a tiled roof: slope to the street, gables
        tile = np.array([0.42, 0.20, 0.14]) * rng.uniform(0.7, 1.2)
        rise, half = rng.uniform(1.8, 3.0), deep / 2
        u, v = (0, 0, -side * width), (side * half, rise, 0)
        rows.append(
            quad(
                (0, tall, side * width / 2),
                u,
                v,
                BUILDING,
                BRICKS,
                tile,
                tile * 0.8,
                (width / 3, 4, 0, 0, 0),
            )
        )
        for z0, du in ((z[0], 1), (z[1], -1)):
            rows.append(
                quad(
                    (x[0] if du > 0 else x[1], tall, z0),
                    (du * deep, 0, 0),
                    (0, rise, 0),
                    BUILDING,
                    PLAIN,
                    base,
                    taper=1.0,
                )
            )
    return rows


def tree(rng):
    """A broad-leaved or a pointed tree, about one unit per metre."""
    green = np.array([0.16, 0.32, 0.10]) * rng.uniform(0.75, 1.35) + rng.uniform(-0.03, 0.05, 3) * (
        1,
        1,
        0.3,
    )
    trunk = {'colour': (0.25, 0.18, 0.12)}
    if rng.random() < 0.25:
        height = rng.uniform(5, 9)
        rows = [upright(0, 0, 0.4, 1.6, VEGETATION, **trunk)]
        for y in (0.9, 0.9 + height * 0.3, 0.9 + height * 0.55):
            rows.append(
                upright(
                    0,
                    y,
                    0.36 * (height + 1.2 - y),
                    0.5 * height,
                    VEGETATION,
                    FOLIAGE,
                    colour=green * 0.8,
                    taper=1.0,
                    parameters=(rng.uniform(0, 9), 0, 0, 0, 0),
                )
            )
        return rows + shadow(3.0, 3.0, 0.4)
    stem, size = rng.uniform(1.9, 2.9), rng.uniform(1.5, 2.5)
    rows = [upright(0, 0, 0.42, stem + 0.8, VEGETATION, **trunk)]
    for x, y, z, r in (
        (0, 0.9, 0, 1.0),
        (-0.7, 0.45, 0.2, 0.72),
        (0.7, 0.5, -0.2, 0.75),
        (0.1, 1.55, 0.3, 0.7),
    ):
        r = r * size * rng.uniform(0.85, 1.1)
        shade = rng.uniform(0.85, 1.12)
        rows.append(
            upright(
                x * size,
                stem + y * size - r * 0.8,
                2 * r,
                1.8 * r,
                VEGETATION,
                FOLIAGE,
                z=z * size,
                colour=green * shade,
                ellipse=1,
                parameters=(rng.uniform(0, 9), 0, 0, 0, 0),
            )
        )
    return rows + shadow(2.6 * size, 2.6 * size, 0.4)


def bush(rng):
    """Three round crowns on the ground."""
    green = np.array([0.18, 0.34, 0.12]) * rng.uniform(0.7, 1.3)
    r = rng.uniform(0.6, 1.2)
    return [
        upright(
            x * r,
            -0.3 * r,
            1.8 * r,
            1.7 * r * k,
            VEGETATION,
            FOLIAGE,
            z=z * r,
            colour=green * k,
            ellipse=1,
            parameters=(rng.uniform(0, 9), 0, 0, 0, 0),
        )
        for x, z, k in ((0, 0, 1.1), (-0.7, 0.9, 0.9), (0.6, -0.9, 1.0))
    ]


def street_lamp(side):
    """A lamp post whose arm reaches over the road; side=+1 stands on the right."""
    grey = (0.33, 0.35, 0.36)
    return [
        upright(0, 0, 0.28, 6.5, POLE, colour=grey),
        quad((min(0, -1.8 * side), 6.35, 0), (1.8, 0, 0), (0, 0.2, 0), POLE, PLAIN, grey),
        quad(
            (-1.8 * side - 0.35, 6.2, -0.01),
            (0.7, 0, 0),
            (0, 0.22, 0),
            POLE,
            PLAIN,
            (0.85, 0.85, 0.78),
        ),
    ]


SIGN_LOOKS = (
    ((0.92, 0.92, 0.92), (0.82, 0.05, 0.05), 1, 0.0),  # round, white with a red ring
    ((0.05, 0.20, 0.75), (0.92, 0.92, 0.95), 1, 0.0),  # round, blue
    ((0.98, 0.80, 0.05), (0.08, 0.08, 0.08), 0, 0.0),  # square, yellow
    ((0.05, 0.25, 0.80), (0.95, 0.95, 0.95), 0, 0.0),  # square, blue
    ((0.95, 0.94, 0.90), (0.85, 0.06, 0.05), 0, 1.0),  # triangle, warning
    ((0.80, 0.05, 0.06), (0.95, 0.95, 0.95), 1, 0.0),
)  # round, red


def traffic_sign(rng):
    """A sign on its pole, of one of `SIGN_LOOKS`."""
    colour, accent, ellipse, taper = SIGN_LOOKS[rng.integers(len(SIGN_LOOKS))]
    size, low = rng.uniform(0.9, 1.15), rng.uniform(1.7, 2.2)
    shape = {'ellipse': ellipse, 'taper': taper}
    return [
        upright(0, 0, 0.25, low + 0.5 * size, POLE, colour=(0.45, 0.46, 0.47)),
        quad(
            (-size / 2, low, -0.16),
            (size, 0, 0),
            (0, size, 0),
            SIGN,
            BOARD,
            colour,
            accent,
            emission=0.15,
            **shape,
        ),
        quad(
            (size / 2, low, -0.12),
            (-size, 0, 0),
            (0, size, 0),
            SIGN,
            PLAIN,
            (0.42, 0.43, 0.44),
            **shape,
        ),
    ]


def traffic_light(phase):
    """`phase` (s) shifts its cycle; see `light_state`."""
    return [
        upright(0, 0, 0.28, 2.6, POLE, colour=(0.24, 0.25, 0.26)),
        *box(
            (-0.33, 0.33),
            (2.35, 4.0),
            (-0.4, 0.0),
            LIGHT,
            'bflr',
            colour=(0.035, 0.035, 0.03),
            material={'b': LAMPS, 'f': PLAIN, 'l': PLAIN, 'r': PLAIN},
            parameters=(phase, 0, 0, 0, 0),
        ),
    ]


CYCLE, GREEN, AMBER = 26.0, 17.0, 2.0


def light_state(phase, time):
    """0 green, 1 amber, 2 red; arrays or numbers."""
    inside = np.mod(time + phase, CYCLE)
    return (inside >= GREEN).astype(np.int64) + (inside >= GREEN + AMBER)
