"""The judge's task: the windows it draws, what it asks, that it learns, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.data import loader
from re2pix_jax.tasks.judge import ORDERS, SHUFFLES
from re2pix_jax.training import loop, writer
from tests.conftest import SIZE, load_config, shrink


def create(micro_bundles, **loss):
    config = shrink(load_config('judge'), micro_bundles)
    config.loss.update(loss)
    return tasks.create(config)


def clips(count):
    """A bright bar that moves two pixels a frame over black, and labels that say where it is."""
    rng = np.random.default_rng(0)
    places = (rng.integers(0, SIZE[1], (count, 1)) + 2 * np.arange(13)) % SIZE[1]
    distance = (np.arange(SIZE[1]) - places[..., None]) % SIZE[1]
    inside = np.broadcast_to((distance < 12)[:, :, None, :], (count, 13, *SIZE))
    frames = np.where(inside[..., None], 230, 20).astype(np.uint8).repeat(3, -1)
    return {'frames': frames, 'labels': inside.astype(np.uint8), 'record': np.arange(count)}


def test_windows_are_at_a_speed_and_in_an_order(micro_bundles):
    task = create(micro_bundles)
    shown, speeds, orders = jax.vmap(task._window)(jax.random.split(jax.random.key(0), (400, 4)))
    assert 0 <= shown.min() and shown.max() < 13
    for places, speed, order in zip(np.asarray(shown), speeds, orders, strict=True):
        assert set(np.diff(np.sort(places))) == {task.speeds[speed]}
        steps = set(np.diff(places))
        if ORDERS[order] == 'shuffled':
            assert len(steps) > 1
        else:
            assert steps == {task.speeds[speed] * (1 if ORDERS[order] == 'forwards' else -1)}
    assert np.bincount(speeds).min() > 90 and np.bincount(orders).min() > 90
    assert len(SHUFFLES) == 118


def test_what_is_painted_is_drawn_apart_from_the_window(micro_bundles):
    """No key is used for both."""
    task, used = create(micro_bundles, patches=1.0), {}
    window, mask = task._window, task._mask

    def note(name, function):
        def noted(keys):
            jax.debug.callback(lambda data: used.setdefault(name, []).append(data), data(keys))
            return function(keys)

        return noted

    data = jax.random.key_data
    task._window, task._mask = note('window', window), note('mask', mask)
    batch = {name: jnp.asarray(value) for name, value in clips(2).items()}
    task.loss(jax.jit(task.init)(jax.random.key(0)), {}, batch, jax.random.key(1))
    jax.effects_barrier()
    rows = lambda keys: {tuple(row) for row in np.reshape(keys, (-1, 2)).tolist()}
    derived = {
        tuple(np.asarray(data(jax.random.fold_in(jax.random.wrap_key_data(jnp.uint32(row)), k))))
        for row in rows(used['mask'])
        for k in range(4)
    }
    assert len(rows(used['window'])) == 8 and len(rows(used['mask'])) == 2
    assert not rows(used['window']) & (rows(used['mask']) | derived)


@pytest.mark.long
def test_what_is_off_does_not_count_and_painted_places_do(micro_bundles):
    batch = {name: jnp.asarray(value) for name, value in clips(4).items()}
    names = ('speed', 'order', 'labels', 'patches')
    variables = None
    for name in names:
        task = create(micro_bundles, **{other: float(other == name) for other in names})
        variables = variables or jax.jit(task.init)(jax.random.key(0))
        loss, (metrics, _) = jax.jit(task.loss)(variables, {}, batch, jax.random.key(1))
        assert float(loss) == pytest.approx(float(metrics[name]), rel=1e-6)
    masked = jax.vmap(task._mask)(jax.random.split(jax.random.key(2), 50))
    assert masked.shape == (50, 5, 8, 16) and abs(float(masked.mean()) - 0.3) < 0.02
    frames = np.arange(2 * 5 * 32 * 64 * 3).reshape(2, 5, 32, 64, 3)
    patches = np.asarray(task._patches(jnp.asarray(frames)))
    expected = frames[1, 2, 4:8, 8:12].reshape(-1)
    np.testing.assert_array_equal(patches[1, 2, 1, 2], expected)
    pixels = np.asarray(task._pixels(masked[:2]))[..., 0]
    np.testing.assert_array_equal(pixels[1, 2, 4:8, 8:12], np.full((4, 4), masked[1, 2, 1, 2]))


def test_unknown_labels_count_for_nothing(micro_bundles):
    task = create(micro_bundles, speed=0.0, order=0.0, labels=1.0, patches=0.0)
    variables, batch = jax.jit(task.init)(jax.random.key(0)), clips(2)
    batch['labels'][1] = 255
    alone = {name: value[:1] for name, value in batch.items()}
    both, one = (
        float(jax.jit(task.loss)(variables, {}, part, jax.random.key(1))[0])
        for part in (batch, alone)
    )
    assert both == pytest.approx(one, rel=1e-5)


@pytest.mark.slow
def test_it_learns_speed_order_and_places(micro_bundles):
    task = create(micro_bundles, speed=1.0, order=1.0, labels=1.0, patches=1.0, mask=0.1)
    batch = {name: jnp.asarray(value) for name, value in clips(16).items()}
    variables = jax.jit(task.init)(jax.random.key(0))
    optimizer = optax.adam(5e-3)

    @jax.jit
    def step(carry, key):
        variables, state = carry
        (_, (metrics, _)), gradient = jax.value_and_grad(task.loss, has_aux=True)(
            variables, {}, batch, key
        )
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, updates), state), metrics

    carry, found = (variables, optimizer.init(variables)), []
    for key in jax.random.split(jax.random.key(3), 250):
        carry, metrics = step(carry, key)
        found.append(jax.device_get(metrics))
    last = {name: np.mean([row[name] for row in found[-20:]]) for name in found[0]}
    print(last)
    assert last['speed_accuracy'] > 0.6 and last['order_accuracy'] > 0.5  # a third by chance
    assert last['labels_accuracy'] > 0.9
    assert last['patches'] < 0.5 * np.mean([row['patches'] for row in found[:5]])


def test_it_trains_by_the_loop_and_is_exported(micro_bundles, tmp_path):
    config = shrink(load_config('judge'), micro_bundles)
    task = tasks.create(config)
    state = loop.train(
        task, config, str(tmp_path / 'run'), loader.create(config.data, config.batch_size, 0)
    )
    assert len(writer.read_log(str(tmp_path / 'run'))) == 2
    task.save(state.ema, tmp_path / 'judge', storage='float16')
    judge = bundles.load(tmp_path / 'judge', 'judge')
    assert bundles.identity(judge) == bundles.digest(tmp_path / 'judge')
    frames = clips(2)['frames'][:, :5]
    assert judge.features(frames).shape == (2, 12)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'loss.speed': 0.0, 'loss.order': 0.0, 'loss.labels': 0.0, 'loss.patches': 0.0},
            'config.loss.speed, order, labels, patches are all 0',
        ),
        ({'loss.speeds': ()}, 'config.loss.speeds = .*: expected numbers from 1 on'),
        ({'loss.speeds': (0, 2)}, 'config.loss.speeds = .*: expected numbers from 1 on'),
        ({'data.frames': 8}, 'config.data.frames = 8: 5 frames at speed 3 take 13'),
        ({'data.size': (30, 64)}, 'config.data.size = .30, 64.: expected multiples of 4'),
        ({'loss.labels': 1.0, 'data.labels': False}, 'config.data.labels: .*config.loss.labels'),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message, micro_bundles):
    config = shrink(load_config('judge'), micro_bundles)
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message) as caught:
        tasks.create(config)
    assert '\n' not in str(caught.value)
