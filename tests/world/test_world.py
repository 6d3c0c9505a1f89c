"""The driving world: a pure function of its arguments, true to geometry, and one that has to be
forecast.
"""

import numpy as np
import pytest

from re2pix_jax import cityscapes, world
from re2pix_jax.errors import UserError
from re2pix_jax.world import quads, raycast, traffic
from re2pix_jax.world.camera import Camera
from re2pix_jax.world.models import TEMPLATES
from re2pix_jax.world.street import Street

SMALL = (48, 96)
CLASSES = sorted({*range(19)} - {cityscapes.MOTORCYCLE, cityscapes.TRAIN})


@pytest.fixture(scope='module')
def clips():
    """Two dense clips: 24 consecutive frames each."""
    return [world.render('validation', i, range(24), SMALL) for i in (0, 3)]


@pytest.mark.parametrize('size', [(64, 128), (72, 100), (32, 32)])
def test_shapes_types_and_ranges(size):
    clip = world.render('train', 5, [0, 7], size)
    assert clip.frames.shape == (2, *size, 3) and clip.frames.dtype == np.uint8
    assert clip.labels.shape == (2, *size) and clip.labels.dtype == np.uint8
    assert clip.depth.shape == (2, *size) and clip.depth.dtype == np.float32
    assert set(np.unique(clip.labels)) <= set(CLASSES)
    assert np.isfinite(clip.depth).all() and clip.depth.min() >= 0
    assert clip.frames.std() > 20
    assert {key: value.shape for key, value in clip.motion.items()} == {
        'speed': (2,),
        'yaw_rate': (2,),
        'position': (2, 2),
        'heading': (2,),
        'camera_height': (2,),
        'camera_pitch': (2,),
        'camera_view': (2,),
    }


def _same(a, b):
    return (
        np.array_equal(a.frames, b.frames)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.depth, b.depth)
        and all(np.array_equal(a.motion[k], b.motion[k]) for k in a.motion)
    )


def test_a_clip_is_a_pure_function_of_split_and_index(clips):
    assert _same(world.render('validation', 0, range(24), SMALL), clips[0])


def test_a_frame_does_not_depend_on_which_others_are_asked(clips):
    order = [20, 3, 3, 0]
    clip = world.render('validation', 3, order, SMALL)
    assert np.array_equal(clip.frames, clips[1].frames[order])
    assert np.array_equal(clip.labels, clips[1].labels[order])
    assert np.array_equal(clip.motion['position'], clips[1].motion['position'][order])
    far = world.render(
        'validation', 3, [300, 0], SMALL
    )  # the road is laid further; what is near stays
    assert np.array_equal(far.frames[1], clips[1].frames[0])


def test_no_frames_give_an_empty_clip():
    assert world.render('test', 0, [], SMALL).frames.shape == (0, *SMALL, 3)


def test_clips_and_splits_differ():
    first = [
        world.render(split, i, [0], SMALL).frames.tobytes()
        for split in world.SPLITS
        for i in range(4)
    ]
    assert len(set(first)) == len(first)


def test_labels_and_sizes_agree():
    """The same view at twice the size: labels of most pixels are the same."""
    small, large = (world.render('train', 2, [4], size).labels[0] for size in ((48, 96), (96, 192)))
    assert (large[1::2, 1::2] == small).mean() > 0.93


def test_sky_alone_has_no_depth(clips):
    for clip in clips:
        sky = clip.labels == cityscapes.SKY
        assert sky.any() and (clip.depth[sky] == 0).all() and (clip.depth[~sky] > 0).all()


def test_depth_of_the_road_is_that_of_the_ground_plane(clips):
    height, width = SMALL
    for clip in clips:
        for k in (0, 11, 23):
            focal = width / 2 / np.tan(clip.motion['camera_view'][k] / 2)
            y = (
                np.arange(height) + 0.75 - height / 2
            ) / focal  # labels and depth are of the lower right sample
            pitch = clip.motion['camera_pitch'][k]
            plane = clip.motion['camera_height'][k] / (y * np.cos(pitch) + np.sin(pitch))
            road = clip.labels[k] == cityscapes.ROAD
            assert road.sum() > 300
            np.testing.assert_allclose(
                clip.depth[k][road], np.broadcast_to(plane[:, None], road.shape)[road], rtol=1e-4
            )
            ahead = (plane > 0) & (plane < 300)
            assert (
                clip.depth[k][ahead] <= plane[ahead, None] * 1.01
            ).all()  # nothing is seen below the ground


def test_motion_is_smooth_and_consistent(clips):
    for clip in clips:
        motion = clip.motion
        step = np.hypot(*np.diff(motion['position'], axis=0).T) * world.FPS
        np.testing.assert_allclose(step, motion['speed'][1:], atol=0.01)
        np.testing.assert_allclose(
            np.diff(motion['heading']) * world.FPS, motion['yaw_rate'][1:], atol=0.003
        )
        assert np.abs(np.diff(motion['speed'])).max() < 8 / world.FPS
        assert np.abs(np.diff(motion['yaw_rate'])).max() < 0.1


def test_nothing_pops(clips):
    """From frame to frame few labels change, and what was not there before is far, at the border or
    was hidden.
    """
    for clip in clips:
        assert (clip.labels[1:] != clip.labels[:-1]).mean((1, 2)).max() < 0.25
        for before, after, old, new in zip(
            clip.labels, clip.labels[1:], clip.depth, clip.depth[1:], strict=False
        ):
            inner = np.zeros(before.shape, bool)
            inner[10:-10, 10:-10] = True
            around = {
                kind: np.zeros(before.shape, bool)
                for kind in (cityscapes.CAR, cityscapes.TRUCK, cityscapes.BUS)
            }
            for kind, near in around.items():
                for dy in range(-9, 10, 3):
                    for dx in range(-9, 10, 3):
                        near |= np.roll(before == kind, (dy, dx), (0, 1)) & (
                            np.abs(np.roll(old, (dy, dx), (0, 1)) - new) < 6
                        )
                fresh = (after == kind) & (new < 25) & inner & ~near
                hidden = (old > 0) & (old < new)
                assert (fresh & ~hidden).sum() <= 0.01 * before.size


def test_the_nearer_thing_hides_the_farther():
    course = np.zeros(2)
    camera = Camera(course, 0.0, 1.5, 0.05, np.deg2rad(60))
    things = np.concatenate(
        [quads.place(TEMPLATES[kind], 0.0, z, 0.0) for kind, z in (('bus', 40.0), ('person', 12.0))]
    )
    x, y = camera.rays(128, 256)
    for order in (things, things[::-1]):
        scene = raycast.gather(order, camera)
        hits, _ = raycast.cast(scene, x, y, camera.ground(y)[0])
        label = scene.rows[hits.quad, quads.LABEL]
        person, bus = hits.depth[label == cityscapes.PERSON], hits.depth[label == cityscapes.BUS]
        np.testing.assert_allclose(person, 12.0, atol=0.8)
        assert person.size > 300 and bus.size > 100 and bus.min() > 30
        assert len(np.unique(hits.pixel)) == len(hits.pixel)
    alone = raycast.gather(quads.place(TEMPLATES['person'], 0.0, 12.0, 0.0), camera)
    assert len(raycast.cast(alone, x, y, camera.ground(y)[0])[0].pixel) == person.size


def test_a_quad_projects_to_where_its_corners_do():
    camera = Camera(np.zeros(2), 0.2, 1.5, 0.08, np.deg2rad(60))
    board = quads.table([quads.quad((1.0, 0.5, 0.0), (1.5, 0, 0), (0, 2.0, 0), cityscapes.SIGN)])
    thing = quads.place(board, 0.0, 15.0, 0.3)
    x, y = camera.rays(400, 800)
    hits, _ = raycast.cast(raycast.gather(thing, camera), x, y, camera.ground(y)[0])
    corners = camera.see(
        thing[0, quads.P]
        + np.array(
            [[0, 0, 0], thing[0, quads.U], thing[0, quads.V], thing[0, quads.U] + thing[0, quads.V]]
        )
    )
    px, py = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    column, row = x[hits.pixel % 800], y[hits.pixel // 800]
    pixel = x[1] - x[0]
    assert abs(column.min() - px.min()) < pixel and abs(column.max() - px.max()) < pixel
    assert abs(row.min() - py.min()) < pixel and abs(row.max() - py.max()) < pixel
    found = np.stack([column, row, np.ones_like(row)], -1) * hits.depth[:, None]
    np.testing.assert_allclose(
        found,
        camera.see(
            thing[0, quads.P]
            + hits.u[:, None] * thing[0, quads.U]
            + hits.v[:, None] * thing[0, quads.V]
        ),
        atol=2e-3,
    )


def test_traffic_keeps_apart_and_moves():
    for index in range(6):
        street = Street((7, index))
        history = traffic.simulate(street, (7, index), 80)
        rate = np.diff(history.turn, axis=0) * world.FPS  # of those who brake, too
        np.testing.assert_allclose(history.twist[1:], rate, atol=1e-9)
        assert np.abs(np.diff(history.d, axis=0)).max() < 0.2 and history.v.max() < 25
        half = traffic.HALF_LENGTH[history.kind]
        ours = np.flatnonzero((history.way > 0) & (history.kind < 3))
        for other in ours[1:]:
            beside = np.abs(history.d[:, other] - history.d[:, 0]) < 1.2
            apart = np.abs(history.s[:, other] - history.s[:, 0]) - half[other] - half[0]
            assert (apart[beside] > 0.3).all()
    prefix = traffic.simulate(street, (7, 5), 20)
    assert np.array_equal(prefix.s, history.s[:21])


def test_the_last_frame_is_a_bad_forecast():
    error, same = [], {3: [], 9: []}
    for index in range(10):
        clip = world.render('validation', index, [0, 3, 9], SMALL)
        error.append(
            10 * np.log10(255**2 / np.mean((clip.frames[0].astype(float) - clip.frames[2]) ** 2))
        )
        for k, stride in ((1, 3), (2, 9)):
            things = (
                (clip.labels[0] > 10)
                | (clip.labels[k] > 10)
                | ((clip.labels[0] > 2) & (clip.labels[0] < 8))
            )
            same[stride].append((clip.labels[0] == clip.labels[k])[things].mean())
    assert np.mean(error) < 18
    assert np.mean(same[9]) < 0.5 and np.mean(same[9]) < np.mean(same[3]) - 0.08


def test_every_class_is_seen():
    labels = np.concatenate([world.render('train', i, [0, 34], SMALL).labels for i in range(16)])
    counts = np.bincount(labels.ravel(), minlength=19) / labels.size
    assert (counts[CLASSES] > 0.001).all()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ('dev', 0, [0]),
            "split 'dev' of the driving world is unknown: use one of train, validation, test",
        ),
        (('train', -1, [0]), 'clip index -1 is negative'),
        (('train', 0, [3, -2]), 'frame -2 of a world clip is negative'),
        (('train', 0, [0], (16, 128)), r'size \(16, 128\) .* at least 32 pixels'),
        (('train', 0, [0], (64,)), r'size \(64,\) .* a height and a width'),
        (('train', 0.5, [0]), 'must be whole numbers'),
        (('train', 0, [0.5]), 'must be whole numbers'),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        world.render(*arguments)
