"""What closes the street off: houses, and the fences between them."""

import numpy as np

from re2pix_jax.world import quads
from re2pix_jax.world.quads import BRICKS, BUILDING, FENCE, GRID, PLAIN, SLATS, VEGETATION, WALL


def building(rng, side, width, tall, style):
    """A house of which the street sees the front and the ends, float64 quads; style > 0: a roof."""
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
    rows = quads.box(
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
            quads.quad(
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
                quads.quad(
                    (x[0] if du > 0 else x[1], tall, z0),
                    (du * deep, 0, 0),
                    (0, rise, 0),
                    BUILDING,
                    PLAIN,
                    base,
                    taper=1.0,
                )
            )
    return quads.rows(rows)


def fence(rng, start, chunk, stretch, gap):
    """[(panel of quads, place along the road)] of a fence, wall or hedge from `start` on through
    `chunk` metres, or of none.

    `stretch(s)` is how much longer than the road's axis it is, `gap(s, margin)` where it is
    interrupted.
    """
    kind, step = rng.choice(4, p=[0.36, 0.34, 0.15, 0.15]), 3.5
    tall = (rng.uniform(1.3, 1.9), rng.uniform(1.5, 2.4), rng.uniform(0.9, 1.5), 0.0)[kind]
    if kind == 3:
        return []
    first, last = start + rng.uniform(0, 10), start + chunk - rng.uniform(0, 10)
    s = np.arange(first, last - step, step)
    s = s[[not gap(value + step / 2, 4.0) for value in s]]
    if not len(s):
        return []
    wood = np.array([[0.72, 0.70, 0.64], [0.50, 0.34, 0.18], [0.16, 0.30, 0.26]])[rng.integers(3)]
    stone = np.array([[0.58, 0.32, 0.24], [0.60, 0.58, 0.54], [0.68, 0.62, 0.48]])[rng.integers(3)]
    label, material, colour, shade, repeats = (
        (FENCE, SLATS, wood, 0.35, (7, 1)),
        (WALL, BRICKS, stone, 0.7, (2.5, round(tall / 0.4))),
        (VEGETATION, BRICKS, np.array([0.14, 0.28, 0.09]), 0.75, (3, 2)),
    )[kind]
    panel = quads.rows(
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
    pieces = []
    for at, factor in zip(s, stretch(s + step / 2), strict=True):
        piece = panel.copy()
        piece[:, [2, 5, 8]] *= factor
        pieces.append((piece, at))
    return pieces
