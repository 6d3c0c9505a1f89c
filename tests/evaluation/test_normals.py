"""Streaming angular errors against plain float64 loops and SciPy; normals of depth against
planes.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from re2pix_jax import world
from re2pix_jax.evaluation.evaluators import normals
from re2pix_jax.evaluation.evaluators.normals import NormalErrors, from_depth


def maps(seed, shape=(3, 17, 23), unknown=0.2):
    """Normals, and the same turned by angles of a few to 90 degrees; lengths differ."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(*shape, 3))
    turn = Rotation.from_rotvec(rng.normal(0, 0.3, (truth.size // 3, 3)))
    prediction = turn.apply(truth.reshape(-1, 3)).reshape(truth.shape) * rng.uniform(
        0.5, 2, (*shape, 1)
    )
    truth[rng.random(shape) < unknown] = 0
    return truth.astype(np.float32), prediction.astype(np.float32)


def expected(truth, prediction):
    rows = []
    for t, p in zip(truth.astype(np.float64), prediction.astype(np.float64)):
        known = (t != 0).any(-1)
        if not known.any():
            continue
        t, p = t[known], p[known]
        cosine = (t * p).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(p, axis=-1)
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        rows.append(
            [
                angles.mean(),
                np.sort(angles)[(len(angles) - 1) // 2],
                *((angles < x).mean() for x in (5, 7.5, 11.25, 22.5, 30)),
            ]
        )
    return np.mean(rows, axis=0)


def found(errors):
    return np.array([errors.compute()[name] for name in NormalErrors.NAMES])


def test_scores_match_float64_loops_over_several_batches():
    batches = [maps(0), maps(1, unknown=0.5), maps(2, (1, 5, 7))]
    errors = NormalErrors.empty()
    for truth, prediction in batches:
        errors = errors.update(truth, prediction)
    each = [expected(*pair) for pair in batches]
    np.testing.assert_allclose(found(errors), (3 * each[0] + 3 * each[1] + each[2]) / 7, rtol=1e-6)
    assert errors.compute()['frames'] == 7


@pytest.mark.parametrize('count', [1, 2, 3, 100, 101])
def test_the_median_is_the_lower_one_and_exact(count):
    rng = np.random.default_rng(count)
    degrees = rng.choice(rng.uniform(0, 180, 40), (1, 1, 200)).astype(np.float32)  # with ties
    known = np.zeros((1, 1, 200), bool)
    known[0, 0, rng.permutation(200)[:count]] = True
    median = normals._median(jnp.asarray(degrees), jnp.asarray(known), jnp.asarray([count]))
    assert median[0] == np.sort(degrees[known])[(count - 1) // 2]


def test_padded_clips_change_nothing_and_unknown_ones_are_nan():
    truth, prediction = maps(3, (2, 3, 9, 11))
    whole = NormalErrors.empty().update(truth, prediction)
    padded = np.concatenate([truth, np.zeros_like(truth)]), np.concatenate([prediction, prediction])
    assert NormalErrors.empty().update(*padded).compute() == whole.compute()
    nothing = NormalErrors.empty().update(np.zeros_like(truth), prediction).compute()
    assert math.isnan(nothing['angle_median']) and math.isnan(nothing['angle_mean'])


def test_small_angles_are_not_lost_and_a_zero_vector_is_a_quarter_turn():
    truth = np.array([[[[0.0, 0, 1]]]])
    for degrees in (1e-4, 0.01, 5.0, 179.99):
        turned = np.array(
            [[[[math.sin(math.radians(degrees)), 0, math.cos(math.radians(degrees))]]]]
        )
        assert NormalErrors.empty().update(truth, 7 * turned).compute()[
            'angle_mean'
        ] == pytest.approx(degrees, rel=1e-5)
    assert NormalErrors.empty().update(truth, 0 * truth).compute()['angle_median'] == 90
    same = NormalErrors.empty().update(truth, truth).compute()
    assert [same[name] for name in NormalErrors.NAMES[:3]] == [0, 0, 1]


def test_vmap_keeps_errors_a_step():
    truth, prediction = maps(7, (2, 3, 8, 8))
    stacked = jax.tree.map(lambda x: jnp.stack([x] * 3), NormalErrors.empty())
    steps = jax.vmap(NormalErrors.update, in_axes=(0, 1, 1))(stacked, truth, prediction)
    for step in range(3):
        alone = NormalErrors.empty().update(truth[:, step], prediction[:, step])
        np.testing.assert_allclose(
            found(jax.tree.map(lambda x, k=step: x[k], steps)), found(alone), rtol=1e-6
        )


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match='one shape'):
        NormalErrors.empty().update(np.ones((1, 2, 3, 3)), np.ones((1, 2, 4, 3)))


def plane(normal, distance, size=(24, 48), view=70.0):
    """Depth of the plane normal . P = -distance, which looks at the camera; 0 where it is not in
    front.
    """
    height, width = size
    focal = 0.5 * width / math.tan(math.radians(view) / 2)
    x, y = (
        (np.arange(width) + 0.5 - width / 2) / focal,
        (np.arange(height) + 0.5 - height / 2) / focal,
    )
    against = -(normal[0] * x[None] + normal[1] * y[:, None] + normal[2])
    return np.where(against > 1e-3, distance / np.maximum(against, 1e-3), 0)


@pytest.mark.parametrize('normal', [(0, -1, 0), (0, 0, -1), (0.6, 0, -0.8), (0.48, -0.6, -0.64)])
def test_normals_of_planes_are_exact(normal):
    depth = plane(normal, 1.5)
    result = np.asarray(from_depth(depth, 70.0))
    known = (result != 0).any(-1)
    assert known.sum() > 0.9 * (depth > 0).sum() and not known[depth == 0].any()
    np.testing.assert_allclose(
        result[known], np.broadcast_to(normal, result[known].shape), atol=2e-4
    )


def test_edges_belong_to_either_surface_and_flipping_commutes():
    depth = plane((0, -1, 0), 1.5)
    depth[4:16, 10:20] = 3.0  # a board that faces the camera
    result = np.asarray(from_depth(np.stack([depth, depth[:, ::-1]]), 70.0))
    board = np.zeros(depth.shape, bool)
    board[4:16, 10:20] = True
    np.testing.assert_allclose(result[0][board], np.broadcast_to((0, 0, -1), (120, 3)), atol=2e-4)
    ground = (depth > 0) & ~board & (result[0] != 0).any(-1)
    np.testing.assert_allclose(
        result[0][ground], np.broadcast_to((0, -1, 0), (ground.sum(), 3)), atol=2e-4
    )
    np.testing.assert_allclose(result[1], result[0][:, ::-1] * (-1, 1, 1), atol=1e-6)


def test_the_road_of_the_driving_world_looks_up():
    clip = world.render('train', 0, [0], (64, 128))
    pitch, view = clip.motion['camera_pitch'][0], np.degrees(clip.motion['camera_view'][0])
    found = np.asarray(from_depth(clip.depth, float(view)))
    up = (0, -np.cos(pitch), -np.sin(pitch))
    road = (clip.labels == 0) & (found != 0).any(-1)
    assert road.sum() > 500
    assert np.median(normals.angle(jnp.asarray(found[road]), jnp.asarray(up, jnp.float32))) < 1.5
