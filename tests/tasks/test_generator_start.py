"""Where runs of the generator begin: the rows of a study at one and the same network; and which of
their steps have nested dropout. Noise on their context, and how what they become draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.generator import Generator
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.unet import VideoUNet
from tests.conftest import MICRO, load_config, random_variables, shrink

ROWS = ('full', 'truth_only', 'predicted_only', 'no_nested_dropout', 'full_doublings', 'baseline')


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """(bundle of a generator without features, that generator)"""
    fields = MICRO['generator'] | {'components': 0}
    net = SpaceTimeDiT(**fields, patch_size=2, context_frames=4, future_frames=4)
    generator = Generator(params=random_variables(net, *net.example()), net=net)
    path = tmp_path_factory.mktemp('shared') / 'generator'
    bundles.save(path, generator)
    return str(path), generator


def create(row, micro_bundles, **overrides):
    config = load_config('study_train', row)
    components = config.model.components and MICRO['generator']['components']
    shrink(config, micro_bundles, **overrides)
    config.model.components = components
    return tasks.create(config)


@pytest.mark.parametrize('row', ROWS)
def test_every_row_starts_from_the_parameters_that_are_shared(row, micro_bundles, shared):
    path, generator = shared
    task = create(row, micro_bundles)
    started = task.load(path)
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(lambda x: x.shape, task.shapes)
    own = dict(started['params'])
    fusion = own.pop('fusion', {})
    assert bool(fusion) == (row != 'baseline')
    assert not any(leaf.any() for leaf in jax.tree.leaves(fusion))
    jax.tree.map(np.testing.assert_array_equal, own, dict(generator.params['params']))


@pytest.mark.long
def test_with_features_the_network_computes_at_first_what_it_did_without(micro_bundles, shared):
    path, generator = shared
    task = create('full', micro_bundles)
    rng = np.random.default_rng(0)
    inputs = [
        None if x is None else jnp.asarray(rng.normal(size=x.shape), jnp.float32)
        for x in task.net.example(2)
    ]
    without = generator.net.apply(generator.params, *inputs[:3])
    np.testing.assert_allclose(task.net.apply(task.load(path), *inputs), without, atol=5e-6)


def test_a_generator_with_features_is_no_start_for_one_without(micro_bundles):
    task = create('baseline', micro_bundles)
    loaded = task.load(str(micro_bundles / 'generator'))
    assert 'fusion' in loaded['params'] and 'fusion' not in task.shapes['params']


class Seen:
    """A network that keeps what it is given."""

    components, context_frames, future_frames = 32, 4, 4

    def apply(self, variables, context, noisy, t, *components, context_t):
        self.given = jnp.concatenate(components, axis=1)
        self.context, self.context_t = context, context_t
        return jnp.zeros_like(noisy)


@pytest.mark.parametrize(('step', 'whole'), [(0, False), (8, False), (9, True)])
def test_the_last_steps_have_all_channels(step, whole, micro_bundles):
    task = create('final_tenth_undropped', micro_bundles, steps=10)
    task.net, task.counts = Seen(), (8,)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    batch = {
        'latents': draw(2, 8, 8, 16, 4),
        'components': draw(2, 8, 4, 8, 32),
        'step': jnp.full(2, step),
    }
    task.config.loss.predicted_fraction = 0.0
    task.loss({}, task.frozen, batch, jax.random.key(0))
    kept = batch['components'] if whole else batch['components'].at[..., 8:].set(0)
    np.testing.assert_array_equal(task.net.given, kept)


def test_a_share_beyond_all_steps_is_refused(micro_bundles):
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.loss.nested_share = 1.5
    with pytest.raises(errors.UserError, match='config.loss.*nested_share is 1.5'):
        tasks.create(config)


def seen(micro_bundles, **loss):
    """(what the network is given of eight clips, their latents)"""
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.loss.update(nested_dropout=False, predicted_fraction=0.0, **loss)
    task = tasks.create(config)
    task.net, latents = Seen(), jnp.zeros((8, 8, 8, 16, 4))
    batch = {'latents': latents, 'components': jnp.zeros((8, 8, 4, 8, 32))}
    task.loss({}, task.frozen, batch, jax.random.key(0))
    return task.net


def test_the_context_is_noised_and_the_network_told_only_if_asked_for(micro_bundles):
    clean = seen(micro_bundles)
    assert clean.context_t is None and not clean.context.any()
    noisy = seen(micro_bundles, context_noise=0.3)
    assert noisy.context_t.shape == (8, 4)
    spread = np.asarray(noisy.context).std((2, 3, 4))
    # Of latents that are zero there remains (1 - t) of the noise, and none at t = 1.
    np.testing.assert_allclose(spread, 1 - noisy.context_t, atol=0.05)
    assert (spread[noisy.context_t == 1] == 0).all() and spread.max() > 0.05


def test_how_a_model_draws_is_exported_with_it(micro_bundles):
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.loss.update(sampler='heun', sampler_steps=3, sampler_grid='shifted:2', context_noise=0.2)
    task = tasks.create(config)
    model = task.part({})
    assert model.sampling() == ('heun', 3, 'shifted:2') and model.generator.context_noise == 0.2


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'sampler': 'rk4'}, "sampler 'rk4' is unknown"),
        (
            {'times': 'foo'},
            "time distribution 'foo' is unknown; choose one of logit_normal, uniform",
        ),
        ({'sampler_steps': 0}, 'sampler steps is 0'),
        ({'sampler_grid': 'odd'}, "sampler grid 'odd' makes no times"),
        ({'context_noise': 1.0}, r'context_noise is 1.0; it must lie in \[0, 1\)'),
    ],
)
def test_what_cannot_be_drawn_with_is_refused_before_training(micro_bundles, change, said):
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.loss.update(change)
    with pytest.raises(errors.UserError, match=f'config.loss: {said}'):
        tasks.create(config)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'model.heads': 3}, 'heads 2, and config.model.heads is 3; set config.model.heads to 2'),
        ({'loss.target': 'v'}, "target 'x', and config.loss.target is 'v'; set config.loss.target"),
        (
            {'loss.path': 'ddpm'},
            "path 'flow', and config.loss.path is 'ddpm'; set config.loss.path",
        ),
    ],
)
def test_a_start_that_only_looks_alike_is_refused(changes, said, micro_bundles):
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.update_from_flattened_dict(changes)
    task = tasks.create(config)
    start = str(micro_bundles / 'generator')
    with pytest.raises(errors.UserError, match=f'config.init: {start} was trained with {said}'):
        task.load(start)


@pytest.mark.parametrize('field', ['head', 'groups'])
def test_a_unet_that_only_looks_alike_is_refused(field, micro_bundles, tmp_path):
    sizes = dict(latent_channels=4, latent_grid=(8, 16), components=32, width=16, multiples=(1, 2))
    net = VideoUNet(**sizes, blocks=1, head=4, groups=4, context_frames=4, future_frames=4)
    start = tmp_path / 'unet'
    bundles.save(start, Generator(params=random_variables(net, *net.example()), net=net))
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    config.model = ConfigDict(KINDS['generator'].fields_of(net) | {field: 8})
    with pytest.raises(errors.UserError, match=f'{field} 4, and config.model.{field} is 8; set'):
        tasks.create(config).load(str(start))


def test_the_schedule_of_a_start_counts_where_there_is_one(micro_bundles, tmp_path):
    generator = bundles.load(micro_bundles / 'generator')
    bundles.save(tmp_path / 'ddpm', generator.replace(path='ddpm'))
    bundles.save(tmp_path / 'flow', generator.replace(schedule='cosine'))
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    tasks.create(config).load(str(tmp_path / 'flow'))
    config.loss.update(path='ddpm', schedule='cosine')
    with pytest.raises(errors.UserError, match="schedule 'linear', and config.loss.schedule is 'c"):
        tasks.create(config).load(str(tmp_path / 'ddpm'))


def test_the_head_is_opened_once_and_when_a_run_starts(micro_bundles, monkeypatch, tmp_path):
    config = shrink(load_config('generator', 'tiny'), micro_bundles)
    task = tasks.create(config)
    assert 'head' not in task.bundles  # a checkpoint without it is gone on with
    monkeypatch.setattr(bundles, 'load', None)
    assert task.part({}).head is task.part({}).head is not None
    monkeypatch.undo()

    def refused(head, said):
        config.frozen.head = str(head)
        with pytest.raises(errors.UserError, match=said):
            tasks.create(config)

    refused(tmp_path / 'none', f'{tmp_path}/none')
    head = bundles.load(micro_bundles / 'head')
    wider = random_variables(head.net, jnp.zeros((1, 4, 8, 48)))
    bundles.save(tmp_path / 'other', head.replace(params=wider))
    refused(tmp_path / 'other', 'config.frozen.head: .* takes features of 48 channels, .* gives 96')
    bundles.save(tmp_path / 'depth', head.replace(reads='depth'))
    refused(tmp_path / 'depth', 'config.frozen.head: .* reads depth; give a head that reads segm')
    config.frozen.head = ''
    assert tasks.create(config).part({}).head is None
