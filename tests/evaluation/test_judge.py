"""The two networks of pixels: what they give, and by what they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import evaluators
from re2pix_jax.evaluation.evaluators import descriptors
from re2pix_jax.evaluation.evaluators.frechet import Moments, distance
from re2pix_jax.evaluation.networks import random3d
from re2pix_jax.evaluation.networks.judge import VideoNetwork
from re2pix_jax.evaluation.networks.random3d import Random3D
from re2pix_jax.evaluation.views import View
from tests.conftest import random_variables


@pytest.fixture
def clips():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 32, 64, 3), np.uint8)


def test_random_kernels_are_those_of_the_seed_for_ever():
    network = Random3D.create(0)
    assert network.sha256 == Random3D.create(0).sha256 != Random3D.create(1).sha256
    assert network.sha256 == ('ab694c06b4c15c79c0434d96c80b8893aedf2793fd51872187986042631d3326')
    assert [kernel.shape for kernel in network.kernels] == [
        (3, 3, 3, 3, 16),
        (3, 3, 3, 16, 32),
        (3, 3, 3, 32, 64),
    ]
    for kernel in network.kernels:
        np.testing.assert_allclose(np.asarray(kernel).sum((0, 1, 2)), 0, atol=1e-5)


def test_random_convolutions_are_three_dimensional_ones(clips):
    network = Random3D.create(3)
    x = clips.astype(np.float32) / 127.5 - 1
    for kernel in network.kernels:
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, random3d.STRIDE, 'SAME', dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC')
            )
        )
    expected = np.asarray(x).mean((1, 2, 3))
    np.testing.assert_allclose(network.features(clips), expected, atol=1e-5)
    assert expected.shape == (6, 64) and expected.std(0).min() > 0


@pytest.mark.parametrize('frames', [2, 5])
def test_the_judge_reads_every_stage(clips, frames):
    net = VideoNetwork(widths=(4, 6, 8), reads=3)
    images = clips[:2, :frames].astype(np.float32) / 127.5 - 1
    variables = random_variables(net, images)
    features, maps = net.apply(variables, images)
    assert features.shape == (2, 9) and maps.shape == (2, frames, 8, 16, 6)
    assert (np.asarray(features) >= 0).all()
    moved = net.apply(variables, images[:, ::-1])[0]
    assert np.abs(moved - features).max() > 1e-4  # it knows the order of time


def test_windows_come_with_the_frame_before_them(clips):
    seen = []

    def features(window):
        seen.append(np.asarray(window[0, :, 0, 0, 0]).tolist())
        return jnp.zeros((len(window), 2))

    clip = np.arange(10, dtype=np.uint8)[None, :, None, None, None].repeat(3, -1)
    assert descriptors.by_window(features, clip).shape == (1, 3, 2)
    assert seen == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize('of', ['judge', 'random3d'])
def test_equal_sets_have_no_distance_and_frozen_ones_have(of, clips):
    settings = {'type': 'frechet', 'of': of} | ({'network': 'tiny/judge'} if of == 'judge' else {})
    (evaluator,) = evaluators.create({'mine': settings})
    evaluator.open()
    evaluator.clips = evaluators.Clips('', '', 8, 1, 4, frozenset(), frozenset(), (), None)
    views = {
        name: View(frames=lambda part=part: part)
        for name, part in (
            ('context', clips[:, :1]),
            ('truth', clips[:, 1:]),
            ('vae', clips[:, 1:]),
            ('copy_last', clips[:, :1]),  # one frame for all of them
        )
    }
    known = np.ones(6, bool)
    states = {
        name: evaluator.add(None, evaluator.measure(evaluator.parts, view, views, {}), known)
        for name, view in views.items()
        if name != 'context'
    }
    found = evaluator.report(states)
    (column,) = evaluator.COLUMNS
    assert column.name == f'frechet_{of}'
    assert found['vae'][0][column.name] == pytest.approx(0, abs=1e-7)
    frozen = np.repeat(clips[:, :1], 5, 1)
    expected = distance(
        Moments().update(evaluator.parts.features(clips)).gaussian(),
        Moments().update(evaluator.parts.features(frozen)).gaussian(),
    )
    assert found['copy_last'][0][column.name] == pytest.approx(expected, rel=1e-5)
    about = evaluator.about()
    assert about['dimensions'] == 64 and about['samples'] == 6
    assert about['sample'] == 'windows of 4 future frames and the one before'
    hashed = Random3D.create(0).sha256 if of == 'random3d' else bundles.digest('tiny/judge')
    assert about['sha256'] == hashed


def test_a_seed_that_is_none_is_refused():
    (evaluator,) = evaluators.create({'mine': {'type': 'frechet', 'of': 'random3d', 'seed': -1}})
    with pytest.raises(UserError, match=r'config\.evals\.mine\.seed: '):
        evaluator.open()
