"""What the street is made of: sets of textured quads.

A *quad* is a point and two edge vectors in space, a label, a material and its parameters. A quad is
one row of a float table (the column names are below), so that hundreds of them are moved, culled
and drawn by a handful of array operations.

Local axes of a thing: x to its right, y up, z forward; the origin is on the ground. An edge pair
(U, V) is given so that U points right and V up for somebody who looks at the face from outside;
that orientation is what back faces are culled by.
"""

import numpy as np

from re2pix_jax.cityscapes import ROAD

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


def table(parts) -> np.ndarray:
    """Quads, made by `quad`, as float64 [n, COLUMNS]."""
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
