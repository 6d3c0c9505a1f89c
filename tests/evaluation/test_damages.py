"""Damages: what each does and leaves alone, and that the shipped judge ranks them."""

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import damages
from re2pix_jax.evaluation.damages import CHANCE, DAMAGES, Row
from tests.conftest import load_config

IN_TIME = ('freezing', 'frame drop', 'temporal jitter')


@pytest.fixture
def clip():
    """Frames with edges, and a number each: the mean of its first row."""
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 190, (5, 20, 36, 3)).astype(np.uint8)
    frames[:, 0] = 10 * np.arange(5)[:, None, None]
    return frames


def apply(name, clip, strength, seed=0):
    return DAMAGES[name].apply(clip, strength, np.random.default_rng(seed))


@pytest.mark.parametrize('name', DAMAGES)
def test_none_is_the_identity_and_more_is_further_away(name, clip):
    before = clip.copy()
    np.testing.assert_array_equal(apply(name, clip, 0), clip)
    found = [apply(name, clip, strength) for strength in DAMAGES[name].strengths]
    assert all(one.shape == clip.shape and one.dtype == np.uint8 for one in found)
    np.testing.assert_array_equal(clip, before)
    assert len(DAMAGES[name].strengths) == 4 and list(DAMAGES[name].strengths) == sorted(
        DAMAGES[name].strengths
    )
    errors = [np.abs(one.astype(float) - clip).mean() for one in found]
    assert errors[-1] > 0
    if name not in ('temporal jitter', 'frame drop'):  # of which one clip may be spared
        assert errors == sorted(errors) and errors[0] > 0


@pytest.mark.parametrize('name', IN_TIME)
def test_damages_in_time_show_frames_as_they_are_and_the_first_in_its_place(name, clip):
    for strength in DAMAGES[name].strengths:
        for seed in range(5):
            found = apply(name, clip, strength, seed)
            shown = found[:, 0, 0, 0] // 10
            np.testing.assert_array_equal(found, clip[shown])
            assert shown[0] == 0
            if name == 'temporal jitter':
                assert sorted(shown) == [0, 1, 2, 3, 4]
            else:
                assert (np.diff(shown.astype(int)) >= 0).all()


def test_freezing_and_dropping_by_hand(clip):
    shown = lambda name, strength: (apply(name, clip, strength)[:, 0, 0, 0] // 10).tolist()
    assert shown('freezing', 0.25) == [0, 1, 2, 3, 3]
    assert shown('freezing', 0.5) == [0, 1, 2, 2, 2]
    assert shown('freezing', 1.0) == shown('frame drop', 1.0) == [0, 0, 0, 0, 0]


def test_a_stronger_drop_loses_the_same_frames_and_more(clip):
    for seed in range(8):
        lost = []
        for strength in DAMAGES['frame drop'].strengths:
            shown = apply('frame drop', clip, strength, seed)[:, 0, 0, 0] // 10
            lost.append({frame for frame in range(1, 5) if shown[frame] != frame})
        assert lost[0] <= lost[1] <= lost[2] <= lost[3] == {1, 2, 3, 4}


def test_blur_is_a_gaussian_mean_and_colour_moves_by_channel(clip):
    impulse = np.zeros((1, 33, 33, 3), np.uint8)
    impulse[0, 16, 16] = 255
    found = apply('blur', impulse, 1.0)[0, :, :, 0]
    distance = np.arange(-16, 17)
    kernel = np.exp(-0.5 * distance**2)
    kernel /= kernel.sum()
    np.testing.assert_allclose(found, 255 * np.outer(kernel, kernel), atol=0.51)
    moved = apply('colour shift', clip[:, 1:], 8).astype(int) - clip[:, 1:]
    np.testing.assert_array_equal(moved, np.broadcast_to([8, -4, -4], moved.shape))
    assert apply('noise', np.full((1, 64, 64, 3), 128, np.uint8), 8).std() == pytest.approx(8, 0.05)


def test_blocks_keep_their_means_and_lose_their_detail(clip):
    assert np.abs(apply('block artefacts', clip, 1e-3).astype(int) - clip).max() == 0
    found = apply('block artefacts', clip, 4000)  # no coefficient is as large as half of it
    assert len(np.unique(found[:, :16, :32])) == 1
    np.testing.assert_array_equal(found[:, 16:], clip[:, 16:])
    np.testing.assert_array_equal(found[:, :, 32:], clip[:, :, 32:])


def asked(**changes):
    config = load_config('damages')
    config.update(workers=0, **changes)
    return config


@pytest.mark.long
def test_the_shipped_judge_ranks_every_damage():
    """At a scale that a test can afford: 24 clips, so that covariances are singular."""
    config = asked(clips=24)
    del config.evals.video  # the encoder of `tiny` takes most of the time
    rows, about = damages.measure(bundles.load('tiny', 'forecaster'), config)
    assert f'tiny/judge (sha256 {bundles.digest("tiny/judge")[:12]})' in about
    assert 'random 3-D convolutions, seed 0 (sha256 ' in about and 'on 24 clips of world' in about
    assert len(rows) == 2 * (len(DAMAGES) + 1)
    judged = {row.damage: row for row in rows if row.measure == 'Fréchet judge'}
    assert [name for name, row in judged.items() if not row.monotone] == []
    assert judged['freezing'].distances[-1] > judged[CHANCE].distances[0]
    table = damages.describe(rows).splitlines()
    assert len(table) == 2 + len(rows) and table[2].startswith('blur')


def test_a_row_that_falls_is_named():
    rows = [
        Row('blur', 'mine', (1.0, 2.0, 3.0, 4.0)),
        Row('blur', 'mine', (1.0, 2.0, 2.0, 4.0)),
        Row('blur', 'mine', (0.0, 2.0, 3.0, 4.0)),
    ]
    assert [row.monotone for row in rows] == [True, False, False]
    assert [line.split()[-1] for line in damages.describe(rows).splitlines()[2:]] == [
        'yes',
        'NO',
        'NO',
    ]


@pytest.mark.long
def test_what_is_no_distance_between_videos_is_refused(tmp_path):
    part = bundles.load('tiny', 'forecaster')
    config = asked(clips=2)
    config.evals = {'image': {'type': 'image'}}
    with pytest.raises(UserError, match='config.evals.image: expected type frechet'):
        damages.measure(part, config)
    config = asked(clips=2)
    config.evals = {'mine': {'type': 'frechet', 'of': 'judge', 'network': str(tmp_path)}}
    with pytest.raises(UserError, match='names no bundle; make one by `train --config=judge:tiny`'):
        damages.measure(part, config)
    config.evals = {'mine': {'type': 'frechet', 'of': 'random3d'}}
    config.clips = 1
    with pytest.raises(UserError, match='needs at least 2 samples a set and got 1'):
        damages.measure(part, config)
