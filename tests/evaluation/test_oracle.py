"""The oracle: what stage 2 makes of the true future features; and what evaluations keep."""

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.evaluation import evaluators, views
from re2pix_jax.evaluation.evaluators import Clips
from re2pix_jax.evaluation.study import intervals
from tests.conftest import SIZE
from tests.evaluation.studies import fake_report, point

HORIZON = 5  # more than a chunk of the generator


@pytest.fixture(scope='module')
def model(micro_bundles):
    return bundles.load(micro_bundles / 're2pix')


@pytest.fixture(scope='module')
def batch():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4 + HORIZON, *SIZE, 3))
    return {'frames': frames.astype(np.uint8), 'record': np.arange(2)}


def test_the_oracle_is_given_the_truth_in_the_place_of_the_forecast(model, batch):
    shown = views.views_of(model, batch, HORIZON, False, {}, seed=0)
    past, keys = shown['context'], views.keys(0, batch['record'])
    roll = lambda future: model.rollout_encoded(
        past.components, past.latents, keys, HORIZON, future_components=future
    )['latents']
    forecast = model.forecaster.forecast(past.components, HORIZON)
    np.testing.assert_allclose(shown['re2pix'].latents, roll(forecast), atol=1e-5)
    np.testing.assert_allclose(shown['oracle'].latents, roll(shown['truth'].components), atol=1e-5)
    assert np.abs(shown['oracle'].latents - shown['re2pix'].latents).max() > 1e-3


def test_there_is_none_without_features_or_without_all_frames(model, batch):
    last = batch | {'frames': batch['frames'][:, [0, 1, 2, 3, -1]]}
    assert 'oracle' not in views.views_of(model, last, HORIZON, True, {}, seed=0)
    net = model.generator.net.clone(components=0)
    baseline = model.replace(generator=model.generator.replace(net=net))
    assert 'oracle' not in views.views_of(baseline, batch, HORIZON, False, {}, seed=0)


def test_it_is_measured_only_where_it_is_named():
    made = lambda **settings: evaluators.create({'it': settings})[0].methods
    assert made(type='image') == ('re2pix', 'copy_last', 'vae')
    assert made(type='image', methods=('re2pix', 'oracle')) == ('re2pix', 'oracle')
    assert made(type='reconstruction', methods=('vae', 'oracle')) == ('vae',)
    assert set(made(type='frechet', methods=('oracle',))) == {'oracle', 'truth'}


def test_kept_features_give_the_distance_that_was_reported():
    (evaluator,) = evaluators.create({'it': {'type': 'frechet', 'of': 'video'}})
    evaluator.keep = True
    evaluator.clips = Clips('', '', 20, 4, 8, frozenset(), frozenset(), SIZE, None)
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=(20, 2, 3)) for name in ('re2pix', 'truth')}
    states = {}
    for start in range(0, 20, 8):  # a last batch that is filled up
        for name, features in found.items():
            part = np.resize(features[start : start + 8], (8, 2, 3))
            known = np.arange(8) < 20 - start
            states[name] = evaluator.add(states.get(name), part, known)
    overall, steps = evaluator.report(states)['re2pix']
    for name, features in found.items():
        np.testing.assert_array_equal(evaluator.kept[f'frechet_video/{name}'], features)
    seen = point('full', 0, fake_report(0.3, 1.0), evaluator.kept)
    for horizon, expected in ((8, overall), (4, steps[3])):
        sets = intervals.of_point('frechet_video', seen, 're2pix', horizon)
        drawn = intervals.distances(*sets, np.ones((1, 20)))
        assert drawn[0] == pytest.approx(expected['frechet_video'])
    assert evaluator.kept['frechet_video/ends'].tolist() == [4, 8]
