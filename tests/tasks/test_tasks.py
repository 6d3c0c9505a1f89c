"""What the tasks promise beyond the loop: evaluation by record, frozen parts, and the pieces of
self-distillation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import errors, tasks
from re2pix_jax.tasks import encoder
from tests.conftest import SIZE, load_config, shrink


def clips(count, frames, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'frames': rng.integers(0, 256, (count, frames, *SIZE, 3), np.uint8),
        'record': np.arange(10, 10 + count),
        'labels': rng.integers(0, 19, (count, frames, *SIZE)).astype(np.uint8),
        'depth': rng.uniform(0, 9, (count, frames, *SIZE)).astype(np.float32),
    }


def in_batches(batch, size):
    count = len(batch['record'])
    return [
        {name: jnp.asarray(value[start : start + size]) for name, value in batch.items()}
        for start in range(0, count, size)
    ]


@pytest.mark.parametrize('name', ['forecaster', 'generator'])
def test_evaluation_depends_on_records_and_not_on_batches(name, micro_bundles):
    task = tasks.create(shrink(load_config(name), micro_bundles))
    data = clips(5, 8)
    params = jax.jit(task.init)(jax.random.key(0), in_batches(data, 2)[0])
    params = jax.tree.map(
        lambda leaf: leaf + 0.02 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )
    by_two, by_five = (
        task.evaluate(params, task.frozen, in_batches(data, size), jax.random.key(1))
        for size in (2, 5)
    )
    assert by_two.keys() == by_five.keys() and by_two
    for metric, value in by_two.items():
        np.testing.assert_allclose(value, by_five[metric], rtol=1e-4, err_msg=metric)


def test_forecaster_measures_copy_last_as_the_mean_smooth_l1(micro_bundles):
    task = tasks.create(shrink(load_config('forecaster'), micro_bundles))
    data = clips(2, 6)
    params = task.init(jax.random.key(0), None)
    values = task.evaluate(params, task.frozen, in_batches(data, 2), jax.random.key(1))
    components = np.asarray(
        task.frozen['principal'].project(task.frozen['encoder'].encode(data['frames'])), np.float64
    )
    distance = np.abs(components[:, 3] - components[:, 5])
    expected = np.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean()
    np.testing.assert_allclose(values['copy_last_step2'], expected, rtol=1e-4)
    # The output layer starts at zero, so an untrained forecaster predicts zeros.
    zeros = np.where(
        np.abs(components[:, 4]) < 0.1, components[:, 4] ** 2 / 0.2, np.abs(components[:, 4]) - 0.05
    ).mean()
    np.testing.assert_allclose(values['smooth_l1_step1'], zeros, rtol=1e-4)


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
        match='config.frozen.encoder: the forecaster task needs the path of a encoder bundle',
    ):
        tasks.create(config)


def test_unknown_task_is_named():
    config = load_config('forecaster')
    config.task = 'painter'
    with pytest.raises(
        errors.UserError,
        match="expected one of autoencoder, encoder, head, forecaster, generator, got 'painter'",
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


def test_student_gets_gradients_and_teacher_does_not(micro_bundles):
    config = shrink(load_config('encoder'), micro_bundles)
    config.loss.update(dense=0.0, distill=1.0)
    task = tasks.create(config)
    data = {name: jnp.asarray(value) for name, value in clips(2, 1).items()}
    params = jax.jit(task.init)(jax.random.key(0), data)

    def loss(params, teacher):
        return task.loss(params, {'ema': teacher}, data, jax.random.key(1))[0]

    student, teacher = jax.grad(loss, argnums=(0, 1))(params, params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(student['net'])) > 0
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(teacher))
