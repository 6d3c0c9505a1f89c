"""What the tasks promise beyond the loop: evaluation by record, frozen parts, and the pieces of
self-distillation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.tasks import encoder
from re2pix_jax.training import resume, state
from tests.conftest import SIZE, load_config, shrink


def clips(count, frames, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'frames': rng.integers(0, 256, (count, frames, *SIZE, 3), np.uint8),
        'record': np.arange(10, 10 + count),
        'labels': rng.integers(0, 19, (count, frames, *SIZE)).astype(np.uint8),
        'depth': rng.uniform(0, 9, (count, frames, *SIZE)).astype(np.float32),
    }


@pytest.mark.long
@pytest.mark.parametrize(
    'name', ['autoencoder', 'encoder', 'head', 'forecaster', 'generator', 'judge']
)
def test_what_is_exported_is_what_was_trained(name, micro_bundles, tmp_path):
    """And the same part is there to be evaluated, without a pass of data."""
    task = tasks.create(shrink(load_config(name), micro_bundles))
    variables = jax.tree.map(lambda leaf: leaf + 0.01, jax.jit(task.init)(jax.random.key(0)))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), task.shapes
    )
    data = {name: jnp.asarray(value) for name, value in clips(2, 13).items()}
    task.save(variables, tmp_path / 'bundle', [data])
    part, saved = task.part(variables), bundles.load(tmp_path / 'bundle', task.kind)
    assert type(part) is type(saved)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(part), jax.tree.leaves(saved))
    if name == 'autoencoder':
        assert (part.shift_factor, part.scaling_factor) == (0.0, 1.0)
        latents = np.asarray(saved.encode(data['frames']))
        over = (0, 1, 2, 3)  # of each channel
        assert abs(latents.mean(over)).max() < 1e-2 and abs(latents.std(over) - 1).max() < 1e-2
    elif name in ('encoder', 'judge'):
        with pytest.raises(errors.UserError, match='starts from random parameters only'):
            task.load(tmp_path / 'bundle')
    else:
        jax.tree.map(np.testing.assert_array_equal, task.load(tmp_path / 'bundle'), variables)


@pytest.mark.long
@pytest.mark.parametrize('mixed', ['slice', pytest.param('per_sample', marks=pytest.mark.slow)])
def test_the_generator_learns_the_same_however_the_batch_is_cut(mixed, micro_bundles):
    """Noise, times, channels and whose future is predicted: all by the clip's place."""
    config = shrink(load_config('generator'), micro_bundles, batch_size=8)
    config.loss.update(mixed=mixed, predicted_fraction=0.25)
    config.optimizer.name = 'adam'
    rng = np.random.default_rng(0)
    data = {
        'latents': rng.normal(size=(8, 8, 8, 16, 4)).astype(np.float32),
        'components': rng.normal(size=(8, 8, 4, 8, 32)).astype(np.float32),
    }
    task = tasks.create(config)
    transform, rate = resume.make_optimizer(task, config)
    before = state.create(task, transform, 0, data)
    found = {}
    for parts in (1, 4):
        step = jax.jit(state.make_step(task, transform, rate, 0, 0.9, parts))
        found[parts] = step(before, task.frozen, data, np.int32(0))[1]
    for metric in ('loss', 'x_mse', 'gradient_norm'):
        np.testing.assert_allclose(found[4][metric], found[1][metric], rtol=1e-5)


@pytest.mark.parametrize(
    ('name', 'field', 'value', 'message'),
    [
        ('autoencoder', 'colour', 3, "config.model: .*unexpected keyword argument 'colour'"),
        ('forecaster', 'heads', 0, 'config.model: .*zero'),
        ('forecaster', 'dropout', 1.5, 'config.model: dropout is 1.5; it must lie in'),
        ('head', 'dropout', 1.0, 'config.model: dropout is 1.0; it must lie in'),
    ],
)
def test_what_a_network_refuses_is_blamed_on_the_config(name, field, value, message, micro_bundles):
    config = shrink(load_config(name), micro_bundles)
    config.model.update({field: value})
    with pytest.raises(errors.UserError, match=message) as caught:
        tasks.create(config)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'changes', 'wanted'),
    [
        ('encoder', {}, 'metres'),
        ('encoder', {'dense': 0.0, 'distill': 1.0}, None),
        ('head', {}, None),
        ('head', {'reads': 'depth'}, 'metres'),
        ('head', {'reads': 'depth', 'depth_range': ()}, 'classes'),
        ('head', {'reads': 'normals'}, 'metres'),
    ],
)
def test_depth_of_another_kind_is_refused(name, changes, wanted, micro_bundles):
    config = shrink(load_config(name), micro_bundles)
    config.loss.update(changes)
    config.model.update({'classes': 3} if changes.get('reads') == 'normals' else {})
    task = tasks.create(config)
    for kind in ('metres', 'classes'):
        check = lambda kind=kind: task.check_data({}, {'records:x': {kind}, 'records:y': set()})
        if wanted in (None, kind):
            check()
        else:
            with pytest.raises(errors.UserError, match=f'records:x: its depth is in {kind}, and'):
                check()


@pytest.mark.long
def test_generator_trains_on_stage_one_only_for_its_slice(micro_bundles):
    """With predictions for nobody the loss does not know the forecaster's weights; with the default
    fraction it does.
    """
    data = {name: jnp.asarray(value) for name, value in clips(2, 8).items()}

    def losses(fraction):
        config = shrink(load_config('generator'), micro_bundles)
        config.loss.update(predicted_fraction=fraction, nested_dropout=False)
        task = tasks.create(config)
        params = jax.tree.map(lambda leaf: leaf + 0.05, jax.jit(task.init)(jax.random.key(0), data))
        forecaster = task.frozen['forecaster']
        other = forecaster.replace(params=jax.tree.map(lambda leaf: leaf + 0.1, forecaster.params))
        return [
            float(
                jax.jit(task.loss)(
                    params, task.frozen | {'forecaster': part}, data, jax.random.key(2)
                )[0]
            )
            for part in (forecaster, other)
        ]

    same, other = losses(0.0)
    assert same == other
    same, other = losses(0.1)
    assert abs(same - other) > 1e-6


def test_missing_frozen_part_is_named():
    config = load_config('forecaster')
    with pytest.raises(
        errors.UserError,
        match='config.frozen.encoder: the forecaster task needs the path of a bundle of kind ',
    ):
        tasks.create(config)


def test_unknown_task_is_named():
    config = load_config('forecaster')
    config.task = 'painter'
    with pytest.raises(
        errors.UserError,
        match='one of autoencoder, encoder, head, forecaster, generator, judge, got .painter',
    ):
        tasks.create(config)


def test_an_encoder_without_any_loss_is_refused(micro_bundles):
    config = shrink(load_config('encoder'), micro_bundles)
    config.loss.update(dense=0.0, distill=0.0)
    with pytest.raises(
        errors.UserError, match='config.loss.dense and config.loss.distill are both 0'
    ):
        tasks.create(config)


def test_sinkhorn_balances_prototypes():
    scores = jax.random.normal(jax.random.key(0), (256, 8)) * 3 + jnp.arange(8.0)
    assigned = np.asarray(encoder.sinkhorn(scores, iterations=20))
    np.testing.assert_allclose(assigned.sum(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(assigned.sum(axis=0), 256 / 8, rtol=0.02)


def test_masked_blocks_are_rectangles_of_about_the_asked_size():
    masks = np.asarray(encoder.random_blocks(jax.random.key(0), 400, (8, 16), 0.4))
    assert masks.shape == (400, 8, 16)
    assert 0.3 < masks.mean() < 0.45
    for mask in masks[:50]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum() > 0
    assert masks.any(axis=0).all()  # every place is masked in some image


@pytest.mark.long
def test_student_gets_gradients_and_teacher_does_not(micro_bundles):
    config = shrink(load_config('encoder'), micro_bundles)
    config.loss.update(dense=0.0, distill=1.0)
    task = tasks.create(config)
    data = {name: jnp.asarray(value) for name, value in clips(2, 1).items()}
    variables = jax.jit(task.init)(jax.random.key(0))

    def loss(variables, teacher):
        return task.loss(variables, {}, data, jax.random.key(1), teacher)[0]

    student, teacher = jax.grad(loss, argnums=(0, 1))(variables, variables)
    net = student['params']['net']
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(net)) > 0
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(teacher))
