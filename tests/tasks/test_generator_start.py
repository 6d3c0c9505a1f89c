"""Where runs of the generator begin: the rows of a study at one and the same network; and which of
their steps have nested dropout.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.generator import Generator
from re2pix_jax.generator.dit import SpaceTimeDiT
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
    """A network that keeps the components it is given."""

    components, context_frames, future_frames = 32, 4, 4

    def apply(self, variables, context, noisy, t, *components):
        self.given = jnp.concatenate(components, axis=1)
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
