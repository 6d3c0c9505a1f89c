"""Which surface each pixel sees: quads drawn in true perspective through a z-buffer.

A quad is P + u U + v V. With M = [U V P] a pixel's ray r meets its plane where (u, v, 1) / depth =
M^-1 r, so u/depth, v/depth and 1/depth are linear in the pixel's coordinates: the edges, a taper
and (as a conic) an ellipse are solved for the span of each image row at once, and no pixel outside
of a shape is ever touched.
"""

import dataclasses

import numpy as np

from re2pix_jax.world.quads import BILLBOARD, ELLIPSE, MATERIAL, SHADOW, TAPER, P, U, V

NEAR, FAR = 0.4, 185.0


@dataclasses.dataclass
class Hits:
    """Of the pixels that see a quad: pixel index, quad index, u, v in [0, 1] and depth (m); the
    shadows likewise.
    """

    pixel: np.ndarray
    quad: np.ndarray
    u: np.ndarray
    v: np.ndarray
    depth: np.ndarray


@dataclasses.dataclass
class Scene:
    """The quads that are before the camera, in camera coordinates (float64 [n, 3]) with their
    rows.
    """

    rows: np.ndarray
    p: np.ndarray
    u: np.ndarray
    v: np.ndarray
    normal: np.ndarray


def gather(rows, camera):
    """Turns all quads into the camera and drops those that it cannot see."""
    p = camera.see(rows[:, P])
    depth = p[:, 2]
    some = (
        (depth > -25)
        & (depth < FAR)
        & (np.abs(p[:, 0]) < 25 + np.maximum(depth, 0) * np.tan(0.5 * camera.view) * 1.05)
    )
    rows, p = rows[some], p[some]
    u, v = camera.turn(rows[:, U]), camera.turn(rows[:, V])
    turned = rows[:, BILLBOARD] > 0
    wide = np.sqrt((rows[turned, U] ** 2).sum(-1))
    u[turned] = 0.0
    u[turned, 0] = wide
    p[turned, 0] -= wide / 2
    normal = np.cross(u, v)
    keep = ((normal * p).sum(-1) < -1e-6) | turned & (p[:, 2] > NEAR)
    return Scene(rows[keep], p[keep], u[keep], v[keep], normal[keep])


def _row_range(scene, y):
    """First and one past the last image row of each quad; quads behind the camera get none."""
    p = scene.p
    corners = np.stack([p, p + scene.u, p + scene.u + scene.v, p + scene.v], 1)
    depth, down = corners[..., 2], corners[..., 1]
    nexts, nextd = np.roll(depth, -1, 1), np.roll(down, -1, 1)
    cut = (depth > NEAR) != (nexts > NEAR)
    part = np.divide(NEAR - depth, nexts - depth, out=np.zeros_like(depth), where=cut)
    slope = np.concatenate(
        [down / np.maximum(depth, NEAR), (down + part * (nextd - down)) / NEAR], 1
    )
    valid = np.concatenate([depth > NEAR, cut], 1)
    low = np.where(valid, slope, np.inf).min(1)
    high = np.where(valid, slope, -np.inf).max(1)
    step = y[1] - y[0]
    first = np.clip(np.ceil((low - y[0]) / step), 0, len(y)).astype(np.int64)
    last = np.clip(np.floor((high - y[0]) / step) + 1, 0, len(y)).astype(np.int64)
    return first, np.maximum(last, first)


def _narrow(low, high, slope, offset):
    """Intersects spans with slope * x + offset >= 0."""
    with np.errstate(divide='ignore', invalid='ignore'):
        root = -offset / slope
    np.copyto(low, root, where=(slope > 0) & (root > low))
    np.copyto(high, root, where=(slope < 0) & (root < high))
    np.copyto(high, -np.inf, where=(slope == 0) & (offset < 0))


def cast(scene, x, y, ground):
    """Draws the scene.

    scene: Scene; x [W], y [H]: rays of columns and rows; ground [H]: 1/depth of the ground (<= 0
        above the horizon).
    Returns (Hits of the nearest quads, Hits of the shadows on the ground that is not hidden).
    """
    det = (scene.p * scene.normal).sum(-1)
    inverse = (
        np.stack([np.cross(scene.v, scene.p), np.cross(scene.p, scene.u), scene.normal], 2)
        / det[:, None, None]
    ).T.copy()
    first, last = _row_range(scene, y)
    count = last - first
    quad = np.repeat(np.arange(len(count)), count)
    start = np.cumsum(count) - count
    row = np.arange(len(quad)) - start[quad] + first[quad]
    down = y[row]
    us, vs, ws = (inverse[i, 0][quad] for i in range(3))
    uo, vo, wo = (inverse[i, 1][quad] * down + inverse[i, 2][quad] for i in range(3))
    half = 0.5 * scene.rows[quad, TAPER]
    low, high = np.full(len(quad), x[0] - 1e-9), np.full(len(quad), x[-1] + 1e-9)
    _narrow(low, high, us - half * vs, uo - half * vo)
    _narrow(low, high, ws - us - half * vs, wo - uo - half * vo)
    _narrow(low, high, vs, vo)
    _narrow(low, high, ws - vs, wo - vo)
    _narrow(low, high, -ws, 1 / NEAR - wo)
    _round(low, high, np.flatnonzero(scene.rows[quad, ELLIPSE] > 0), us, uo, vs, vo, ws, wo)
    step = x[1] - x[0]
    left = np.ceil((np.maximum(low, x[0] - 1e-9) - x[0]) / step)
    length = np.maximum(
        np.floor((np.maximum(high, x[0] - step) - x[0]) / step) - left + 1, 0
    ).astype(np.int64)
    some = np.flatnonzero(length)
    length, left = length[some], left[some].astype(np.int64)
    span = np.repeat(np.arange(len(some)), length)
    column = np.arange(len(span)) + (left - (np.cumsum(length) - length))[span]
    pixel = (row[some] * len(x))[span] + column
    us, vs, ws, uo, vo, wo = (a[some].astype(np.float32) for a in (us, vs, ws, uo, vo, wo))
    quad = quad[some]
    at = x.astype(np.float32)[column]
    near = ws[span] * at + wo[span]
    dark = scene.rows[quad, MATERIAL] == SHADOW
    zbuffer = np.repeat(np.maximum(ground, 0.0).astype(np.float32), len(x))
    if dark.any():
        flat = dark[span]
        solid = np.flatnonzero(~flat)
        shade = np.flatnonzero(flat)
    else:
        solid, shade = np.arange(len(span)), np.arange(0)
    np.maximum.at(zbuffer, pixel[solid], near[solid])
    front = solid[near[solid] == zbuffer[pixel[solid]]]
    winner = np.full(len(zbuffer), -1, np.int64)
    winner[pixel[front]] = front
    chosen = winner[winner >= 0]
    shade = shade[winner[pixel[shade]] < 0]

    def hits(which):
        s, a, w = span[which], at[which], near[which]
        u, v = (us[s] * a + uo[s]) / w, (vs[s] * a + vo[s]) / w
        return Hits(pixel[which], quad[s], np.clip(u, 0, 1), np.clip(v, 0, 1), 1 / w)

    return hits(chosen), hits(shade)


def _round(low, high, which, us, uo, vs, vo, ws, wo):
    """Narrows the spans `which`, in place, to the ellipse (2u - 1)^2 + (2v - 1)^2 <= 1: a conic in
    x.
    """
    s, o = (
        np.stack([2 * us - ws, 2 * vs - ws, ws])[:, which],
        np.stack([2 * uo - wo, 2 * vo - wo, wo])[:, which],
    )
    sign = np.array([1.0, 1.0, -1.0])[:, None]
    a, b, c = (sign * s * s).sum(0), (sign * s * o).sum(0), (sign * o * o).sum(0)
    inside = b * b - a * c
    root = np.sqrt(np.maximum(inside, 0))
    fits = (inside > 0) & (a > 0)
    safe = np.where(a > 0, a, 1.0)
    low[which] = np.maximum(low[which], np.where(fits, (-b - root) / safe, np.inf))
    high[which] = np.minimum(high[which], np.where(fits, (-b + root) / safe, -np.inf))
