"""Things of the street as small sets of textured quads.

Everything that stands on the ground is made of *quads*: a point and two edge vectors in space, a
    label, a material and
its parameters. A quad is one row of a float table (the column names are below), so that hundreds of
them are moved, culled and drawn by a handful of array operations.

Local axes of a thing: x to its right, y up, z forward; the origin is on the ground. An edge pair
    (U, V) is given so that
U points right and V up for somebody who looks at the face from outside; that orientation is what
back faces are culled by.
"""

import numpy as np

# Cityscapes train ids of what this world contains (motorcycle and train do not occur).
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY = range(11)
PERSON, RIDER, CAR, TRUCK, BUS, BICYCLE = 11, 12, 13, 14, 15, 18

# Columns of a quad row.
P, U, V = slice(0, 3), slice(3, 6), slice(6, 9)
BILLBOARD, LABEL, MATERIAL = 9, 10, 11
COLOUR, ACCENT = slice(12, 15), slice(15, 18)
PARAMETERS = slice(18, 23)
ELLIPSE, TAPER, PAINT, SWING, EMISSION = 23, 24, 25, 26, 27
COLUMNS = 28

PLAIN, GRID, FOLIAGE, BALL, CYLINDER, SLATS, BRICKS, BOARD, LAMPS, WHEEL, TAIL, NOSE, SHADOW = (
    range(13)
)

DARK = (0.05, 0.05, 0.06)
GLASS = (0.10, 0.14, 0.18)
SKIN = (0.78, 0.56, 0.42)
WHITE = (0.90, 0.90, 0.88)


def quad(
    p,
    u,
    v,
    label,
    material=PLAIN,
    colour=DARK,
    accent=DARK,
    parameters=(1, 1, 0, 0, 1),
    billboard=0,
    ellipse=0,
    taper=0.0,
    paint=0,
    swing=0.0,
    emission=0.0,
):
    """One row. paint: 0 keeps both colours, 1 replaces `colour`, 2 takes the second paint, 3
    replaces `accent`.
    """
    return (
        *p,
        *u,
        *v,
        billboard,
        label,
        material,
        *colour,
        *accent,
        *parameters,
        ellipse,
        taper,
        paint,
        swing,
        emission,
    )


def upright(x, y, width, height, label, material=CYLINDER, z=0.0, **more):
    """A quad that always turns to the camera: poles, trunks, limbs, and with `ellipse=1` crowns and
    heads.
    """
    return quad((x, y, z), (width, 0, 0), (0, height, 0), label, material, billboard=1, **more)


def box(x, y, z, label, sides='rflrt', **look):
    """Faces of the box x=(x0,x1), y=(y0,y1), z=(z0,z1): b(ack), f(ront), l(eft), r(ight), t(op).
    Values of `look` that are dicts give one value a face.
    """
    (x0, x1), (y0, y1), (z0, z1) = x, y, z
    up = (0, y1 - y0, 0)
    faces = {
        'b': ((x0, y0, z0), (x1 - x0, 0, 0), up),
        'f': ((x1, y0, z1), (x0 - x1, 0, 0), up),
        'l': ((x0, y0, z1), (0, 0, z0 - z1), up),
        'r': ((x1, y0, z0), (0, 0, z1 - z0), up),
        't': ((x0, y1, z0), (x1 - x0, 0, 0), (0, 0, z1 - z0)),
    }
    rows = []
    for side in sides:
        chosen = {
            key: value[side] if isinstance(value, dict) else value for key, value in look.items()
        }
        rows.append(quad(*faces[side], label, **chosen))
    return rows


def shadow(width, length, strength=0.55):
    """A soft dark patch on the ground under a thing."""
    return [
        quad(
            (-width / 2, 0.0, -length / 2),
            (width, 0, 0),
            (0, 0, length),
            ROAD,
            SHADOW,
            ellipse=1,
            parameters=(strength, 0, 0, 0, 0),
        )
    ]


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


def rows(parts):
    return np.asarray(parts, np.float64).reshape(-1, COLUMNS)


def place(template, x, z, heading, scale=None, paint=None, second=None, swing=None):
    """Copies of one template in the world.

    template float [n, COLUMNS]; x, z, heading (rad, clockwise from north) [k]; scale [k, 3]; paint,
    second [k, 3] colours; swing [k] (the sine of the stride). Returns float64 [k * n, COLUMNS].
    """
    x, z, heading = (np.atleast_1d(np.asarray(a, np.float64)) for a in (x, z, heading))
    out = np.repeat(template[None], len(x), axis=0)
    if scale is not None:
        out[..., 0:9] *= np.tile(scale, 3)[:, None]
    if swing is not None:
        step = template[:, SWING] * np.asarray(swing)[:, None]
        out[..., 2] += step
        out[..., 8] -= step
    for kind, columns, colour in ((1, COLOUR, paint), (2, COLOUR, second), (3, ACCENT, paint)):
        if colour is not None:
            which = template[:, PAINT] == kind
            out[:, which, columns] = np.asarray(colour)[:, None]
    n = len(template)
    return stand(out.reshape(-1, COLUMNS), *(np.repeat(a, n) for a in (x, z, heading)))


def stand(local, x, z, heading):
    """Turns quads float64 [n, COLUMNS] from local axes into the world, in place; x, z, heading [n].
    Returns them.
    """
    sin, cos = np.sin(heading)[:, None], np.cos(heading)[:, None]
    across, along = local[:, 0:9:3], local[:, 2:9:3]
    turned = along * cos - across * sin
    local[:, 0:9:3] = across * cos + along * sin
    local[:, 2:9:3] = turned
    local[:, 0] += x
    local[:, 2] += z
    return local


TEMPLATES = {
    'car': rows(car()),
    'truck': rows(truck()),
    'bus': rows(bus()),
    'person': rows(person()),
    'cyclist': rows(cyclist()),
}
