"""Stage 1's training: loss over a roll-out, start from a coarser grid, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.benchmarks import forecaster_work
from re2pix_jax.encoder import Encoder, Principal, VisionTransformer
from re2pix_jax.forecaster.transformer import adapt_grid
from re2pix_jax.training import optimizer, state
from tests.conftest import SIZE, load_config, random_variables, shrink

CONTEXT = 4


@pytest.fixture(scope='module')
def clips():
    """Components as encoded clips bring them, smooth over time: [2, 7, 4, 8, 32]."""
    start, move = jax.random.normal(jax.random.key(0), (2, 2, 1, 4, 8, 32))
    return {
        'components': start + 0.3 * move * jnp.arange(7.0)[:, None, None, None],
        'record': jnp.arange(2),
    }


def cut(clips, frames):
    return clips | {'components': clips['components'][:, :frames]}


def make_task(bundles, unroll=1, frames=None, loss=(), **model):
    config = shrink(load_config('forecaster'), bundles)
    config.loss.update(unroll=unroll, **dict(loss))
    config.data.frames = frames or CONTEXT + unroll
    config.model.update(model)
    return tasks.create(config)


@pytest.fixture(scope='module')
def params(micro_bundles):
    return bundles.load(micro_bundles / 'forecaster').params


def by_hand(task, params, components, steps, cut=False):
    """The mean error of `steps` predictions, written as a plain loop."""
    window, errors = components[:, :CONTEXT], []
    for step in range(steps):
        prediction = task.net.apply(params, window)
        distance = jnp.abs(prediction - components[:, CONTEXT + step])
        errors.append(jnp.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean())
        prediction = jax.lax.stop_gradient(prediction) if cut else prediction
        window = jnp.concatenate([window[:, 1:], prediction[:, None]], axis=1)
    return sum(errors) / steps


def loss_and_gradient(task, params, data):
    return jax.jit(
        jax.value_and_grad(
            lambda params: task.loss(params, task.frozen, data, jax.random.key(0))[0]
        )
    )(params)


@pytest.mark.long
@pytest.mark.parametrize(('unroll', 'stops'), [(1, False), (3, False), (3, True)])
def test_unrolled_loss_and_its_gradient_are_those_of_a_plain_loop(
    unroll, stops, micro_bundles, params, clips
):
    task = make_task(micro_bundles, unroll, loss={'cut': stops})
    data = cut(clips, CONTEXT + unroll)
    ours = loss_and_gradient(task, params, data)
    plain = jax.jit(
        jax.value_and_grad(lambda params: by_hand(task, params, data['components'], unroll, stops))
    )(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), ours, plain)


def test_a_cut_gradient_is_another_one_of_the_same_loss(micro_bundles, params, clips):
    data = cut(clips, CONTEXT + 3)
    (whole, gradient), (loss, other) = (
        loss_and_gradient(make_task(micro_bundles, 3, loss={'cut': stops}), params, data)
        for stops in (False, True)
    )
    assert loss == whole
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    away = np.linalg.norm(flat(gradient) - flat(other)) / np.linalg.norm(flat(gradient))
    assert away > 0.01


class Recorded:
    """A network that predicts zeros and keeps the context that it was last given."""

    def __init__(self, net):
        self.frames, self.net = net.frames, net

    def apply(self, params, context, **_):
        self.context = context
        return jnp.zeros_like(context[:, -1])


def test_noise_has_the_deviation_of_the_error_by_clip_and_component(micro_bundles):
    """With a prediction of zeros the error of a frame is the frame."""
    scale = jnp.array([[0.1], [3.0]]) * jnp.linspace(0, 2, 32)
    frames = scale[:, None, None, None] * jax.random.normal(jax.random.key(0), (2, 5, 64, 64, 32))
    task = make_task(micro_bundles, loss={'noise': 0.5})
    net = Recorded(task.net)
    task.net = net
    noisy = task._noisy({}, frames[:, :4], frames[:, 4], jax.random.split(jax.random.key(1), 2))
    np.testing.assert_array_equal(net.context, frames[:, :4])  # the error is that of clean frames
    added = np.asarray(noisy - frames[:, :4])
    expected = 0.5 * np.sqrt(np.square(frames[:, 4]).mean((1, 2)))
    np.testing.assert_allclose(added.std((1, 2, 3)), expected, rtol=0.03)
    assert abs(np.corrcoef(added[0, 0, ..., 9].ravel(), added[1, 0, ..., 9].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(added[0, 0, ..., 9].ravel(), added[0, 1, ..., 9].ravel())[0, 1]) < 0.05


def test_noise_follows_the_step_and_the_place_of_a_clip_alone(micro_bundles, params, clips):
    noisy, still = (make_task(micro_bundles, loss={'noise': noise}) for noise in (0.5, 0.0))
    data = cut(clips, 5)
    loss = lambda task, data, key=0: float(
        jax.jit(task.loss)(params, task.frozen, data, jax.random.key(key))[0]
    )
    assert loss(noisy, data) == loss(noisy, data) != loss(noisy, data, key=1)
    assert loss(still, data) == loss(still, data, key=1) == loss(make_task(micro_bundles), data)
    # Cut into parts, each clip keeps its noise.
    parts = [
        {name: values[k : k + 1] for name, values in data.items()} | {'place': jnp.array([k])}
        for k in range(2)
    ]
    mean = np.mean([loss(noisy, part) for part in parts])
    assert mean == pytest.approx(loss(noisy, data), rel=1e-5)


@pytest.mark.parametrize('noise', [-0.1, float('nan'), float('inf')])
def test_noise_out_of_range_is_refused(noise, micro_bundles):
    with pytest.raises(errors.UserError, match='config.loss.noise is .*: at least 0 expected'):
        make_task(micro_bundles, loss={'noise': noise})


def test_dropout_follows_the_key(micro_bundles, params, clips):
    task, still = (make_task(micro_bundles, dropout=rate) for rate in (0.1, 0.0))
    values = [
        jax.jit(
            jax.vmap(lambda key, task=task: task.loss(params, task.frozen, cut(clips, 5), key)[0])
        )(jax.vmap(jax.random.key)(jnp.array([0, 0, 1])))
        for task in (task, still)
    ]
    assert values[0][0] == values[0][1] != values[0][2]
    assert values[1][0] == values[1][2]


@pytest.mark.parametrize(('unroll', 'frames'), [(1, 4), (3, 6), (1, 7)])
def test_clips_of_another_length_are_refused(unroll, frames, micro_bundles):
    with pytest.raises(errors.UserError) as error:
        make_task(micro_bundles, unroll, frames)
    assert str(error.value) == (
        f'config.data.frames is {frames}: a loss over {unroll} predicted frames '
        f'(config.loss.unroll) with 4 frames of context needs {4 + unroll}; set it to that'
    )


def test_no_predicted_frame_is_refused(micro_bundles):
    with pytest.raises(
        errors.UserError, match='config.loss.unroll is 0: the loss needs at least 1 predicted frame'
    ):
        make_task(micro_bundles, 0)


def test_components_of_another_number_are_refused(micro_bundles, params, clips):
    with pytest.raises(
        errors.UserError,
        match=r'gives 32 components, the forecaster takes 24; set config.model.components to 32',
    ):
        make_task(micro_bundles, components=24)
    task = make_task(micro_bundles)
    few = {
        'components': clips['components'][:, :5, ..., :20],
        'record': clips['record'],
    }  # as a stale encoding would bring them
    with pytest.raises(
        ValueError,
        match='given 4 frames of 4x8 with 20 components; it takes 4 frames of 4x8 with 32',
    ):
        task.loss(params, task.frozen, few, jax.random.key(0))


def test_components_of_another_encoder_are_refused(micro_bundles, tmp_path):
    bundles.save(
        tmp_path / 'principal', Principal(*(jnp.ones(60),) * 3, jnp.ones((32, 60)), jnp.ones(32))
    )
    config = shrink(load_config('forecaster'), micro_bundles)
    config.frozen.principal = str(tmp_path / 'principal')
    with pytest.raises(
        errors.UserError, match='principal takes features of 60 channels, the encoder gives 96'
    ):
        tasks.create(config)


def test_weights_of_another_number_of_heads_are_refused(micro_bundles):
    """Their shapes are the same."""
    with pytest.raises(
        errors.UserError,
        match='forecaster was trained with heads 2, and config.model.heads is 3; set config.model',
    ):
        make_task(micro_bundles, heads=3).load(micro_bundles / 'forecaster')


@pytest.mark.long
def test_an_encoder_kept_for_other_frames_takes_those_of_the_config(micro_bundles):
    task = make_task(micro_bundles)
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, *SIZE, 3), np.uint8)
    params, data = task.init(jax.random.key(0), None), {'frames': frames}
    smaller = task.frozen | {'encoder': task.frozen['encoder'].replace(image_size=(16, 32))}
    loss, _ = jax.eval_shape(
        task.loss, params, smaller, data, jax.random.key(0)
    )  # resized frames would not fit the grid
    assert loss.shape == ()


def test_operations_by_hand_are_those_that_xla_counts(tmp_path, monkeypatch):
    """The benchmark's formula, at two layers and a quarter of the frame. XLA counts what is no
    matrix product too: 1 % here.
    """
    width, components, depth, frames = 192, 96, 2, (112, 224)
    for name, value in dict(
        FRAMES=frames,
        GRID=(8, 16),
        PLACES=128,
        ENCODER_WIDTH=96,
        ENCODER_DEPTH=4,
        ENCODER_HEADS=4,
        LAYERS=(0, 1, 2, 3),
        WIDTH=width,
        HEADS=4,
        COMPONENTS=components,
    ).items():
        monkeypatch.setattr(forecaster_work, name, value)
    net = VisionTransformer(
        patch_size=14,
        width=96,
        depth=4,
        heads=4,
        registers=4,
        layers=(0, 1, 2, 3),
        position_grid=(8, 16),
        unroll=True,  # of a loop XLA counts one turn
    )
    bundles.save(
        tmp_path / 'encoder',
        Encoder(params=random_variables(net, jnp.zeros((1, *frames, 3))), net=net),
    )
    bundles.save(
        tmp_path / 'principal',
        Principal(*(jnp.ones(384),) * 3, jnp.ones((components, 384)), jnp.ones(components)),
    )
    config = load_config('forecaster')
    config.model.update(components=components, width=width, depth=depth, heads=4)
    config.frozen.update(encoder=str(tmp_path / 'encoder'), principal=str(tmp_path / 'principal'))
    task = tasks.create(config)
    clip = {'frames': jax.ShapeDtypeStruct((1, 5, *frames, 3), jnp.uint8)}
    params = jax.eval_shape(lambda: task.init(jax.random.key(0), None))
    step = jax.jit(jax.value_and_grad(task.loss, has_aux=True)).lower(
        params, task.frozen, clip, jax.random.key(0)
    )
    assert step.cost_analysis()['flops'] == pytest.approx(
        sum(forecaster_work.flops(depth).values()), rel=0.05
    )


def drift(key, grid, count=2):
    """Waves that move to the right by a column of the coarse grid a frame: [count, 5, *grid, 32].
    Any grid shows the same scene.
    """
    phase, direction = (
        jax.random.uniform(key, (count, 1)),
        jax.random.normal(jax.random.key(1), (2, 32)),
    )
    columns = (jnp.arange(grid[1]) + 0.5) * 8 / grid[1]
    angle = 2 * jnp.pi * ((columns[None, None] - jnp.arange(5.0)[:, None]) / 8 + phase[:, :, None])
    signal = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1) @ direction
    return {'components': jnp.broadcast_to(signal[:, :, None], (count, 5, *grid, 32))}


def trained(task, params, data, steps, rate=3e-3):
    """The loss before every step, and the parameters after them."""
    config = load_config('forecaster').optimizer
    config.update(name='adam', learning_rate=rate, warmup_steps=0)
    transform, schedule = optimizer.create(config, steps)
    step = jax.jit(state.make_step(task, transform, schedule, 0, 0.0))
    current = state.TrainState(
        jnp.zeros((), jnp.int32), params['params'], {}, params, transform.init(params['params'])
    )
    losses = []
    for number in range(steps):
        current, metrics, _ = step(current, task.frozen, data(number), np.int32(number))
        losses.append(float(metrics['loss']))
    return losses, current.variables


@pytest.mark.slow
def test_adapted_weights_start_far_below_random_ones_and_improve(micro_bundles):
    """Low resolution nested in high: what a 4x8 grid has learnt holds on 8x16."""
    low, high = (make_task(micro_bundles, depth=1, grid=grid) for grid in ((4, 8), (8, 16)))
    batch = lambda grid: lambda number: drift(jax.random.key(number), grid)
    before = trained(low, low.init(jax.random.key(0), None), batch((4, 8)), 60)[1]
    adapted = trained(high, adapt_grid(before, (8, 16)), batch((8, 16)), 60)[0]
    random, _ = jax.jit(high.loss)(
        high.init(jax.random.key(0), None), high.frozen, batch((8, 16))(0), jax.random.key(0)
    )
    assert adapted[0] < random / 5
    assert np.mean(adapted[-5:]) < 0.9 * adapted[0]
