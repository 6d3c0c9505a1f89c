"""The parts of the loop by themselves: optimiser, state, log, checkpoints."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.tasks.task import clip_keys
from re2pix_jax.training import checkpoint, defaults, mesh, optimizer, state, writer
from tests.training import toy

# optimiser


def config_of(**fields):
    config = defaults.optimizer()
    config.update(fields)
    return config


def test_schedules():
    rate = optimizer.schedule(config_of(learning_rate=1.0, warmup_steps=4, schedule='cosine'), 24)
    np.testing.assert_allclose([rate(i) for i in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)
    assert rate(14) == pytest.approx(0.5) and rate(24) == pytest.approx(0.0, abs=1e-7)
    poly = optimizer.schedule(
        config_of(learning_rate=2.0, warmup_steps=0, schedule='poly', power=0.9), 10
    )
    np.testing.assert_allclose(
        [poly(i) for i in range(10)], [2 * (1 - i / 10) ** 0.9 for i in range(10)], rtol=1e-5
    )
    constant = optimizer.schedule(
        config_of(learning_rate=3.0, warmup_steps=1, schedule='constant'), 10
    )
    assert [float(constant(i)) for i in (0, 1, 9)] == [3.0, 3.0, 3.0]


PARAMS = {
    'Dense_0': {'kernel': np.ones((3, 4), np.float32), 'bias': np.ones(4, np.float32)},
    'blocks': {'norm': {'scale': np.ones((2, 4), np.float32)}},
    'embedding': np.ones((5, 4), np.float32),
}


def test_weight_decay_pulls_kernels_only():
    transform, _ = optimizer.create(
        config_of(weight_decay=0.5, learning_rate=0.1, warmup_steps=0), 10
    )
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    moved = jax.tree.map(lambda x: bool(np.any(np.asarray(x) != 0)), updates)
    assert moved['Dense_0'] == {'kernel': True, 'bias': False}
    assert not any(jax.tree.leaves((moved['blocks'], moved['embedding'])))
    np.testing.assert_allclose(updates['Dense_0']['kernel'], -0.05, rtol=1e-6)


def test_muon_is_optax_muon_for_the_kernels_that_are_named():
    """Also where layers are stacked; everything else goes to Adam with the same learning rate."""
    draw = np.random.default_rng(0).normal
    one, first = draw(size=(6, 4)).astype(np.float32), draw(size=(3, 4)).astype(np.float32)
    params = {
        'layers_0': {'dense': {'kernel': one}},
        'layers': {'dense': {'kernel': np.stack([one, 2 * one])}},
        'embed': {'kernel': first},
    }
    config = config_of(
        name='muon', learning_rate=0.1, warmup_steps=0, clip=0.0, schedule='constant'
    )
    transform, _ = optimizer.create(config, 10, (r'^layers(_\d+)?/.*kernel$',))
    updates, _ = transform.update(params, transform.init(params), params)
    peer = optax.contrib.muon(0.1, consistent_rms=0.2)
    expected, _ = peer.update({'w': one}, peer.init({'w': one}), {'w': one})
    np.testing.assert_allclose(
        updates['layers_0']['dense']['kernel'], expected['w'], rtol=1e-4, atol=1e-6
    )
    for stacked in updates['layers']['dense'][
        'kernel'
    ]:  # orthogonalised: the size of the gradient does not matter
        np.testing.assert_allclose(stacked, expected['w'], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(updates['embed']['kernel'], -0.1 * np.sign(first), rtol=1e-3)


def test_clip_bounds_what_reaches_adam():
    transform, _ = optimizer.create(config_of(name='adam', clip=1.0, warmup_steps=0), 10)
    _, moments = transform.update(
        {'w': jnp.array([30.0, 40.0])}, transform.init({'w': jnp.zeros(2)})
    )
    np.testing.assert_allclose(
        optax.tree.get(moments, 'mu')['w'], 0.1 * np.array([0.6, 0.8]), rtol=1e-5
    )


def test_muon_without_a_kernel_to_take_is_refused():
    for rules in ((), ('attention/kernel',), ('bias$',)):
        transform, _ = optimizer.create(config_of(name='muon'), 10, rules)
        with pytest.raises(UserError, match='names no kernel that muon takes') as caught:
            transform.init(PARAMS)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'name': 'sgd'}, "optimizer.name is 'sgd': 'adam', 'adamw' or 'muon' expected"),
        ({'schedule': 'step'}, "optimizer.schedule is 'step'"),
        ({'name': 'adam', 'weight_decay': 0.1}, "use 'adamw' or 'muon' or set it to 0"),
    ],
)
def test_optimizer_errors(fields, message):
    with pytest.raises(UserError, match=message):
        optimizer.create(config_of(**fields), 10)


# state


def step_once(task, batch, number=0, decay=0.9, current=None):
    transform, rate = optimizer.create(config_of(warmup_steps=0, learning_rate=0.1), 10)
    current = current or state.create(task, transform, 0, batch)
    step = jax.jit(state.make_step(task, transform, rate, 0, decay))
    return current, *step(current, task.frozen, batch, np.int32(number))


def test_step_moves_parameters_statistics_and_average():
    batch = mesh.global_batch(next(toy.Data(4)), mesh.create())
    before, after, metrics, finite = step_once(toy.Task(), batch)
    assert bool(finite) and int(after.step) == 1
    assert set(metrics) == {'loss', 'gradient_norm', 'learning_rate', 'teacher_norm'}
    old, new = (s.params['Dense_0']['kernel'] for s in (before, after))
    assert not np.array_equal(old, new)
    old_mean, new_mean = (s.batch_stats['BatchNorm_0']['mean'] for s in (before, after))
    assert not np.array_equal(old_mean, new_mean)
    np.testing.assert_array_equal(before.ema['params']['Dense_0']['kernel'], old)
    # At step 0 the decay is warmed up: min(0.9, 1 / 10). Statistics are averaged as parameters are.
    np.testing.assert_allclose(
        after.ema['params']['Dense_0']['kernel'], 0.1 * old + 0.9 * new, rtol=1e-5
    )
    np.testing.assert_allclose(
        after.ema['batch_stats']['BatchNorm_0']['mean'],
        0.1 * old_mean + 0.9 * new_mean,
        rtol=1e-5,
        atol=1e-7,
    )
    moments = optax.tree.get(after.opt_state, 'mu')
    assert moments.keys() == after.params.keys() == {'Dense_0', 'Dense_1', 'BatchNorm_0'}


def test_statistics_come_from_the_batch_not_from_the_gradient():
    data = toy.Data(4)
    batch = mesh.global_batch(next(data), mesh.create())
    task = toy.Task()
    before, after, *_ = step_once(task, batch)
    key = state.run_key(0, 'loss', 0)
    _, (_, expected) = task.loss(before.variables, task.frozen, batch, key, before.ema)
    np.testing.assert_allclose(
        after.batch_stats['BatchNorm_0']['mean'],
        expected['batch_stats']['BatchNorm_0']['mean'],
        rtol=1e-4,
        atol=1e-6,
    )


class Means:
    """A loss that is a mean over clips, with noise; `frozen['noisy']` is 1 or 0."""

    frozen = {'noisy': np.float32(0)}

    def init(self, key, batch):
        return {'params': {'kernel': jax.random.normal(key, (8, 3)), 'bias': jnp.zeros(3)}}

    def loss(self, variables, frozen, batch, key, teacher):
        kernel, bias = variables['params']['kernel'], variables['params']['bias']
        noise = frozen['noisy'] * jax.vmap(jax.random.normal)(clip_keys(key, batch))
        output = jnp.tanh(batch['x'] @ kernel + bias) + noise[:, None]
        metrics = {'noise': noise.mean(), 'squared': (noise**2).mean()}
        return (output**2).mean(), (metrics | {'first': batch['x'][:, 0].mean()}, {})


def accumulated(parts, noisy=0.0, clips=12):
    transform, rate = optimizer.create(config_of(warmup_steps=0, learning_rate=0.1), 10)
    batch, task = mesh.global_batch(next(toy.Data(clips)), mesh.create()), Means()
    step = jax.jit(state.make_step(task, transform, rate, 0, 0.9, parts))
    return step(
        state.create(task, transform, 0, batch), {'noisy': np.float32(noisy)}, batch, np.int32(0)
    )


@pytest.mark.parametrize('noisy', [0.0, 1.0])
@pytest.mark.parametrize('parts', [2, 3, 12])
def test_accumulated_step_is_that_of_the_batch_in_one(parts, noisy):
    """With its noise: every clip draws by its place in the global batch."""
    (whole, values, _), (cut, cut_values, finite) = accumulated(1, noisy), accumulated(parts, noisy)
    assert bool(finite) and cut_values.keys() == values.keys()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (cut, cut_values),
        (whole, values),
    )


def test_every_clip_has_noise_of_its_own():
    _, values, _ = accumulated(3, noisy=1.0)
    # of equal draws the mean square is the square of the mean
    assert values['squared'] > values['noise'] ** 2 + 1e-3


def test_statistics_are_averaged_over_parts():
    batch = mesh.global_batch(next(toy.Data(4)), mesh.create())
    task = toy.Task()
    transform, rate = optimizer.create(config_of(), 10)
    before = state.create(task, transform, 0, batch)
    after, *_ = jax.jit(state.make_step(task, transform, rate, 0, 0.9, 2))(
        before, task.frozen, batch, np.int32(0)
    )
    key, means = state.run_key(0, 'loss', 0), []
    for part in range(2):
        half = {'x': batch['x'][part::2], 'place': jnp.arange(part, 4, 2)}
        _, (_, updates) = task.loss(before.variables, task.frozen, half, key, before.ema)
        means.append(updates['batch_stats']['BatchNorm_0']['mean'])
    np.testing.assert_allclose(
        after.batch_stats['BatchNorm_0']['mean'], sum(means) / 2, rtol=1e-4, atol=1e-6
    )


def test_ema_decay_warms_up():
    assert [round(float(state.ema_decay(0.9, step)), 4) for step in (0, 10, 1000)] == [
        0.1,
        0.55,
        0.9,
    ]


def test_failing_step_changes_nothing_and_neither_does_the_next():
    devices = mesh.create()
    data = toy.Data(4, poison=1)
    bad, good = (mesh.global_batch(next(data), devices) for _ in range(2))
    before, after, metrics, finite = step_once(toy.Task(), bad)
    assert not bool(finite) and np.isnan(metrics['loss'])
    _, later, _, finite = step_once(toy.Task(), good, number=1, current=after)
    assert not bool(finite)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, later))


def test_keys_differ_by_purpose_and_step_and_seed():
    uses = [(0, 'loss', 0), (0, 'loss', 1), (0, 'init', 0), (1, 'loss', 0)]
    assert len({tuple(jax.random.key_data(state.run_key(*use)).tolist()) for use in uses}) == 4
    assert np.array_equal(
        jax.random.key_data(state.run_key(0, 'loss', jnp.int32(1))),
        jax.random.key_data(state.run_key(0, 'loss', 1)),
    )


# log


def test_log_drops_later_rows_and_a_torn_line(tmp_path):
    with writer.Writer(tmp_path, 0) as log:
        for step in range(1, 5):
            log.scalars(step, {'loss': float('inf') if step == 2 else step})
    # The machine went off while a row was written: also in the middle, where a run went on.
    rows = (tmp_path / 'log.jsonl').read_text().splitlines()
    torn = [rows[0], '{"step": 2, "l', '\0\0\0', '{}', '3', *rows[1:]]
    (tmp_path / 'log.jsonl').write_text('\n'.join(torn) + '\n{"step": 5, "lo')
    with writer.Writer(tmp_path, 3) as log:
        log.scalars(4, {'loss': 40})
        log.timing(4, {'steps_per_second': 2})
    assert writer.read_log(tmp_path) == [
        {'step': 1, 'loss': 1.0},
        {'step': 2, 'loss': None},
        {'step': 3, 'loss': 3.0},
        {'step': 4, 'loss': 40.0},
    ]
    assert writer.read_log(tmp_path, writer.TIMING) == [{'step': 4, 'steps_per_second': 2.0}]
    assert sorted(os.listdir(tmp_path)) == [
        'goodput.jsonl',
        'log.jsonl',
        'tensorboard',
        'timing.jsonl',
    ]


# checkpoints


def saved(folder, steps=(3,)):
    checkpoints = checkpoint.Checkpoints(folder, keep=2)
    for step in steps:
        checkpoints.save(
            step,
            {'w': jnp.full(4, step, jnp.float32)},
            {'position': step},
            checkpoint.describe({'steps': 9}, {}, {'x': np.zeros((2, 3), np.uint8)}),
            wait=True,
        )
    return checkpoints


def test_checkpoint_round_trip_keeps_the_latest(tmp_path):
    checkpoints = saved(tmp_path, (3, 6, 9))
    assert checkpoints.latest() == 9 and len(os.listdir(checkpoints.path)) == 2
    array = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=mesh.replicated(mesh.create()))
    arrays, data = checkpoints.restore(9, {'w': array})
    assert data == {'position': 9} and arrays['w'].tolist() == [9.0] * 4
    assert checkpoint.batch_spec(checkpoints.meta(9))['x'] == jax.ShapeDtypeStruct(
        (2, 3), jnp.uint8
    )


def test_unfinished_checkpoint_is_not_used(tmp_path):
    path = saved(tmp_path, (3, 6)).path
    os.rename(os.path.join(path, '6'), os.path.join(path, '6.orbax-checkpoint-tmp'))
    again = checkpoint.Checkpoints(tmp_path)
    assert again.latest() == 3


def test_network_that_does_not_fit_the_checkpoint(tmp_path):
    checkpoints = saved(tmp_path)
    array = jax.ShapeDtypeStruct((5,), jnp.float32, sharding=mesh.replicated(mesh.create()))
    for wrong in ({'w': array}, {'v': array}):
        with pytest.raises(
            UserError, match='checkpoint .*/3 cannot be read into this run'
        ) as error:
            checkpoints.restore(3, wrong)
        assert '\n' not in str(error.value)


def test_full_disk_is_noticed_before_and_while_writing(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path)
    value = {'w': jnp.zeros(4)}
    with monkeypatch.context() as patch:
        patch.setattr(
            checkpoint.shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=1000)
        )
        with pytest.raises(
            UserError, match='disk full: .* has 0.0 MB left, a checkpoint needs 0.2 MB'
        ):
            checkpoints.save(4, value, None, {}, wait=True)
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            os.mkdir(os.path.join(checkpoints.path, '5.orbax-checkpoint-tmp'))
            raise ValueError('RESOURCE_EXHAUSTED: Failed to write: No space left on device')

        patch.setattr(checkpoints._manager, 'save', fail)
        with pytest.raises(UserError, match='/checkpoints: the disk is full; .* free some space'):
            checkpoints.save(5, value, None, {}, wait=True)
    assert os.listdir(checkpoints.path) == ['3']


def test_config_survives_the_checkpoint():
    config = toy.make_config()
    meta = checkpoint.describe(config, {}, {})
    restored = checkpoint.load_config(meta)
    assert restored.to_dict() == config.to_dict() and restored.data.size == (64, 128)
    assert restored.is_locked


def test_a_run_starts_from_given_parameters_or_says_which_do_not_fit():
    params = lambda: {'a': jnp.zeros(3), 'b': jnp.zeros(2)}
    statistics = lambda: {'mean': jnp.zeros(2)}
    average = {'params': params(), 'batch_stats': statistics()}
    fresh = state.TrainState(jnp.zeros((), jnp.int32), params(), statistics(), average, ())
    given = {'params': {'a': jnp.arange(3.0), 'b': np.ones(2, np.float16)}}
    given['batch_stats'] = {'mean': np.full(2, 7.0)}
    started = state.start_from(fresh, given, 'bundle')
    for tree in (started.variables, started.ema):
        np.testing.assert_array_equal(tree['params']['a'], [0, 1, 2])
        np.testing.assert_array_equal(tree['batch_stats']['mean'], [7, 7])
        assert tree['params']['b'].dtype == jnp.float32
    # The step donates both.
    assert (
        started.params['a'].unsafe_buffer_pointer()
        != started.ema['params']['a'].unsafe_buffer_pointer()
    )
    with pytest.raises(
        UserError,
        match=r'config.init: the parameters of bundle do not fit config.model \(by name or shape: '
        r'a, b, c\)',
    ):
        state.start_from(fresh, given | {'params': {'a': np.zeros(4), 'c': np.zeros(2)}}, 'bundle')
