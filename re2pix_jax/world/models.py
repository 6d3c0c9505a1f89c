"""What moves: cars, trucks, buses, people and cyclists, as quads in local axes."""

import numpy as np

from re2pix_jax.cityscapes import BICYCLE, BUS, CAR, PERSON, RIDER, TRUCK
from re2pix_jax.world.quads import (
    BALL,
    GRID,
    NOSE,
    PLAIN,
    SLATS,
    TAIL,
    WHEEL,
    box,
    quad,
    shadow,
    table,
    upright,
)

GLASS = (0.10, 0.14, 0.18)
SKIN = (0.78, 0.56, 0.42)
WHITE = (0.90, 0.90, 0.88)


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


def _wheels(half_width, axles, radius, label):
    rows = []
    for z in axles:
        for x, du in ((-half_width - 0.02, -1), (half_width + 0.02, 1)):
            rows.append(
                quad(
                    (x, 0, z - du * radius),
                    (0, 0, 2 * radius * du),
                    (0, 2 * radius, 0),
                    label,
                    WHEEL,
                    (0.04, 0.04, 0.045),
                    (0.45, 0.45, 0.47),
                    ellipse=1,
                )
            )
    for z, du in ((min(axles) - radius, 1), (max(axles) + radius, -1)):
        for x in (-half_width + 0.15, half_width - 0.15):
            rows.append(
                quad(
                    (x - du * 0.13, 0, z),
                    (0.26 * du, 0, 0),
                    (0, 0.5, 0),
                    label,
                    PLAIN,
                    (0.03, 0.03, 0.035),
                )
            )
    return rows


def car():
    w, rows = 0.9, []
    rows += box(
        (-w, w),
        (0.28, 0.88),
        (-2.1, 2.1),
        CAR,
        'bflrt',
        paint=1,
        parameters=(1, 1, 0, 0, 1),
        material={'b': TAIL, 'f': NOSE, 'l': PLAIN, 'r': PLAIN, 't': PLAIN},
    )
    rows.append(quad((-w, 0.12, -2.08), (2 * w, 0, 0), (0, 0.18, 0), CAR))
    rows.append(quad((w, 0.12, 2.08), (-2 * w, 0, 0), (0, 0.18, 0), CAR))
    glass = {'label': CAR, 'material': GRID, 'accent': GLASS, 'paint': 1, 'taper': 0.22}
    pane = (1, 1, 0.08, 0.08, 0.86)
    rows.append(quad((-w, 0.88, -1.85), (2 * w, 0, 0), (0, 0.62, 0.4), parameters=pane, **glass))
    rows.append(quad((w, 0.88, 1.05), (-2 * w, 0, 0), (0, 0.62, -0.6), parameters=pane, **glass))
    glass['taper'] = 0.34
    rows.append(
        quad(
            (-w, 0.88, 1.05),
            (0, 0, -2.9),
            (0.0, 0.62, 0),
            parameters=(2, 1, 0.06, 0.05, 0.86),
            **glass,
        )
    )
    rows.append(
        quad(
            (w, 0.88, -1.85),
            (0, 0, 2.9),
            (0.0, 0.62, 0),
            parameters=(2, 1, 0.06, 0.05, 0.86),
            **glass,
        )
    )
    rows.append(quad((-0.72, 1.5, -1.45), (1.44, 0, 0), (0, 0, 1.9), CAR, PLAIN, paint=1))
    return rows + _wheels(w, (-1.3, 1.3), 0.33, CAR) + shadow(2.5, 5.2)


def truck():
    w, rows = 1.22, []
    rows += box(
        (-w, w),
        (0.95, 3.45),
        (-4.0, 1.9),
        TRUCK,
        'bflrt',
        material=GRID,
        paint=2,
        accent=(0.30, 0.30, 0.32),
        parameters={
            'b': (2, 1, 0.46, 0.02, 0.98),
            'f': (1, 1, 0.5, 0, 0),
            'l': (4, 1, 0.46, 0.0, 1.0),
            'r': (4, 1, 0.46, 0.0, 1.0),
            't': (1, 1, 0.5, 0, 0),
        },
    )
    rows.append(
        quad(
            (-w, 0.5, -4.02),
            (2 * w, 0, 0),
            (0, 0.45, 0),
            TRUCK,
            SLATS,
            (0.85, 0.10, 0.08),
            WHITE,
            (5, 1, 0.5, 0, 0),
        )
    )
    rows += box((-w, w), (0.55, 0.95), (-4.0, 2.0), TRUCK, 'flr', colour=(0.16, 0.16, 0.17))
    rows += box(
        (-1.15, 1.15),
        (0.45, 2.75),
        (2.05, 4.0),
        TRUCK,
        'flrt',
        paint=1,
        material=GRID,
        accent=GLASS,
        parameters={
            'f': (1, 1, 0.08, 0.5, 0.88),
            'l': (1, 1, 0.2, 0.5, 0.85),
            'r': (1, 1, 0.2, 0.5, 0.85),
            't': (1, 1, 0.5, 0, 0),
        },
    )
    return rows + _wheels(w, (-2.9, 2.9), 0.48, TRUCK) + shadow(3.2, 9.4)


def bus():
    w, rows = 1.27, []
    window = {'material': GRID, 'accent': GLASS}
    rows += box(
        (-w, w),
        (0.35, 3.15),
        (-5.4, 5.4),
        BUS,
        'bflrt',
        paint=1,
        parameters={
            'b': (1, 1, 0.1, 0.52, 0.86),
            'f': (1, 1, 0.06, 0.38, 0.84),
            'l': (8, 1, 0.06, 0.45, 0.83),
            'r': (8, 1, 0.06, 0.45, 0.83),
            't': (1, 1, 0.5, 0, 0),
        },
        **window,
    )
    for x in (-w + 0.08, w - 0.36):
        rows.append(
            quad(
                (x, 0.75, -5.43),
                (0.28, 0, 0),
                (0, 0.5, 0),
                BUS,
                PLAIN,
                (0.75, 0.05, 0.04),
                emission=0.35,
            )
        )
        rows.append(
            quad(
                (x + 0.28, 0.6, 5.43),
                (-0.28, 0, 0),
                (0, 0.3, 0),
                BUS,
                PLAIN,
                (1.0, 0.97, 0.8),
                emission=0.5,
            )
        )
    rows.append(quad((-w, 0.2, -5.42), (2 * w, 0, 0), (0, 0.3, 0), BUS))
    rows.append(
        quad(
            (0.7, 2.75, 5.43), (-1.4, 0, 0), (0, 0.3, 0), BUS, PLAIN, (1.0, 0.65, 0.1), emission=0.6
        )
    )
    return rows + _wheels(w, (-3.2, 3.6), 0.5, BUS) + shadow(3.3, 12.2)


def person():
    rows = []
    for x, swing in ((-0.11, 0.36), (0.11, -0.36)):
        rows.append(upright(x, 0.0, 0.22, 0.9, PERSON, paint=2, swing=swing))
        rows.append(upright(3.2 * x, 0.78, 0.14, 0.62, PERSON, paint=1, swing=-0.5 * swing))
    rows.append(upright(0, 0.82, 0.56, 0.7, PERSON, paint=1))
    rows.append(upright(0, 1.47, 0.30, 0.34, PERSON, BALL, colour=SKIN, ellipse=1))
    rows.append(
        upright(0, 1.60, 0.31, 0.22, PERSON, BALL, colour=(0.13, 0.09, 0.06), ellipse=1, z=0.0)
    )
    return rows + shadow(1.0, 1.0, 0.45)


def cyclist():
    rows = []
    for z in (-0.55, 0.55):
        rows.append(upright(0, 0.0, 0.16, 0.72, BICYCLE, PLAIN, z=z, colour=(0.05, 0.05, 0.06)))
        for du in (-1, 1):
            rows.append(
                quad(
                    (0.03 * du, 0, z - 0.36 * du),
                    (0, 0, 0.72 * du),
                    (0, 0.72, 0),
                    BICYCLE,
                    WHEEL,
                    (0.05, 0.05, 0.06),
                    (0.60, 0.60, 0.60),
                    ellipse=1,
                )
            )
    for x in (-0.36, 0.12):  # panniers: the part of a bicycle that is seen from behind
        rows += box((x, x + 0.24), (0.28, 0.72), (-0.85, -0.35), BICYCLE, 'bflrt', paint=2)
    rows += box(
        (-0.30, 0.30), (0.95, 1.05), (0.42, 0.50), BICYCLE, 'bflr', colour=(0.12, 0.12, 0.13)
    )
    rows += box((-0.22, 0.22), (0.62, 0.95), (0.50, 0.85), BICYCLE, 'bflrt', paint=2)
    rows += box((-0.04, 0.04), (0.45, 0.60), (-0.5, 0.5), BICYCLE, 'lrt', paint=2)
    for x, swing in ((-0.12, 0.16), (0.12, -0.16)):
        rows.append(upright(x, 0.30, 0.19, 0.72, RIDER, colour=(0.10, 0.11, 0.16), swing=swing))
    rows.append(upright(0, 0.92, 0.56, 0.66, RIDER, paint=1, z=-0.1))
    for x in (-0.27, 0.27):
        rows.append(upright(x, 1.0, 0.15, 0.5, RIDER, paint=1, z=0.12))
    rows.append(upright(0, 1.52, 0.30, 0.30, RIDER, BALL, colour=SKIN, ellipse=1))
    rows.append(upright(0, 1.62, 0.36, 0.28, RIDER, BALL, colour=WHITE, ellipse=1))
    return rows + shadow(1.0, 2.2, 0.45)


TEMPLATES = {make.__name__: table(make()) for make in (car, truck, bus, person, cyclist)}
