"""A model's own sampler, noise on its own context, and the table that samplers are chosen from."""

import jax
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import held_out, samplers
from tests.conftest import load_config

SHARED = {'sampler_steps': 1}
"""Of roll-outs where samplers do not matter."""


@pytest.fixture(scope='module')
def model(micro_bundles):
    return bundles.load(micro_bundles / 're2pix')


@pytest.fixture(scope='module')
def inputs(model):
    rng = np.random.default_rng(0)
    shapes = (2, 4, 4, 8, 32), (2, 4, 8, 16, 4)
    keys = jax.random.split(jax.random.key(0), 2)
    return *(rng.normal(size=shape).astype(np.float32) for shape in shapes), keys


def test_a_model_draws_as_its_bundle_says_unless_told_otherwise(model, inputs, tmp_path):
    own = {'sampler': 'heun', 'sampler_steps': 2, 'sampler_grid': 'shifted:2'}
    assert model.sampling() == ('euler', 2, 'even')
    bundles.save(tmp_path / 'm', model.replace(**own))
    changed = bundles.load(tmp_path / 'm')
    assert changed.sampling() == ('heun', 2, 'shifted:2')
    assert changed.sampling(sampler='euler') == ('euler', 2, 'shifted:2')
    roll = lambda model, **options: model.rollout_encoded(*inputs, 4, **options)['latents']
    np.testing.assert_array_equal(roll(changed), roll(model, **own))
    assert (changed.evaluations(4), model.evaluations(4), model.evaluations(8)) == (3, 2, 4)
    assert changed.evaluations(4, 0.4, sampler='euler', sampler_steps=7) == 14
    config = load_config('evaluate')
    assert held_out.sampling_of(changed, config) == own | {
        'guidance': 0.0,
        'guidance_channels': 8,
        'channels': None,
        'context_noise': 0.0,
    }
    config.sampler, config.sampler_steps = 'ddim', 9
    found = held_out.sampling_of(changed, config)
    assert [found[name] for name in own] == ['ddim', 9, 'shifted:2']


def test_only_what_the_model_itself_drew_is_noised_where_it_goes_on(model, inputs):
    trained = model.replace(generator=model.generator.replace(context_noise=0.5))
    roll = lambda noise: trained.rollout_encoded(*inputs, 8, context_noise=noise, **SHARED)
    clean, noisy = (np.asarray(roll(noise)['latents']) for noise in (0.0, 0.5))
    np.testing.assert_allclose(noisy[:, :4], clean[:, :4], atol=1e-5)
    assert np.abs(noisy[:, 4:] - clean[:, 4:]).max() > 1e-3


@pytest.mark.parametrize(('trained', 'noise'), [(0.0, 0.1), (0.3, 0.4), (0.3, -0.1)])
def test_more_noise_than_a_generator_was_trained_for_is_refused(model, inputs, trained, noise):
    model = model.replace(generator=model.generator.replace(context_noise=trained))
    told = f'up to {trained:g}' if trained else 'none: train one with loss.context_noise'
    said = f'context_noise is {noise}; this generator was trained for {told}'
    with pytest.raises(ValueError, match=said):
        model.rollout_encoded(*inputs, 8, context_noise=noise, **SHARED)


@pytest.fixture
def config(micro_bundles):
    config = load_config('samplers')
    config.update(source=f'records:{micro_bundles}/clips', clips=3, horizon=2, workers=0)
    config.evals = {name: config.evals[name] for name in ('image', 'sharpness')}
    config.rows = (('euler', 3, 'even'), ('heun', 1, 'shifted:2'))
    return config


@pytest.mark.long
def test_the_table_has_a_row_a_sampler_by_evaluations_and_the_vae(model, config):
    *_, header, line, few, many, vae = samplers.table_of(model, config).split('\n')
    assert header.split()[:5] == ['evaluations', 'sampler', 'steps', 'grid', 'PSNR']
    assert few.split()[:4] == ['1', 'heun', '1', 'shifted:2']
    assert many.split()[:4] == ['3', 'euler', '3', 'even']
    assert vae.split()[:6] == ['-', 'VAE', 'of', 'the', 'truth', '-']
    config.update(sampler='euler', sampler_steps=3, sampler_grid='even')
    overall = held_out.measure(model, config)[0][''].overall
    found = [overall['re2pix'][name] for name in ('psnr', 'ssim', 'sharpness')]
    assert many.split()[4:] == [f'{value:.4g}' for value in found]


@pytest.mark.parametrize(
    ('row', 'said'),
    [
        (('rk4', 3, 'even'), "config.rows: sampler 'rk4' is unknown"),
        (('heun', 0, 'even'), 'config.rows: sampler steps is 0'),
        (('heun', 3, 'odd'), "config.rows: sampler grid 'odd' makes no times"),
    ],
)
def test_rows_that_are_no_samplers_are_refused_before_any_runs(config, row, said):
    config.rows = (*config.rows, row)
    with pytest.raises(UserError, match=said):
        samplers.table_of(None, config)
