"""The VAE's task: its adversary, its feature loss, a decoder by itself, and what it refuses."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.data import loader
from re2pix_jax.tasks import autoencoder
from re2pix_jax.training import loop, mesh, resume, state, writer
from tests.conftest import SIZE, load_config, shrink

ADVERSARY = {'adversary': 0.5, 'adversary_start': 3, 'discriminator': (4, 8)}


def config_of(micro_bundles, frozen=(), loss=None, **overrides):
    config = shrink(load_config('autoencoder'), micro_bundles, **overrides)
    config.model.mid_attention = True
    for name in config.frozen:
        config.frozen[name] = str(micro_bundles / name) if name in frozen else ''
    config.loss.update(loss or {})
    return config


def frames(count=2, step=0):
    rng = np.random.default_rng(0)
    return {
        'frames': rng.integers(0, 256, (count, 1, *SIZE, 3), np.uint8),
        'step': np.full(count, step, np.int32),
    }


def gradients(task, variables, batch):
    compute = jax.jit(jax.value_and_grad(task.loss, has_aux=True))
    (loss, (metrics, _)), found = compute(variables, task.frozen, batch, jax.random.key(0))
    return float(loss), metrics, found['params']


def plain(task, variables, batch):
    """The loss without an adversary, as one writes it down, and its gradient."""

    def loss(variables):
        images = jnp.asarray(autoencoder._images(batch))
        mean, logvar = task.net.apply(variables, images, method='encode')
        draw = lambda key: jax.random.normal(key, mean.shape[1:])
        noise = jax.vmap(draw)(autoencoder.clip_keys(jax.random.key(0), batch))
        latents = mean + jnp.exp(0.5 * logvar) * noise
        error = task.net.apply(variables, latents, method='decode') - images
        kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar).mean()
        return jnp.abs(error).mean() + 4.0 * jnp.square(error).mean() + 1e-5 * kl

    return jax.jit(jax.value_and_grad(loss))(variables)


@pytest.mark.slow
def test_each_player_has_its_own_gradient(micro_bundles):
    """Before the start the VAE's is that of a loss without adversary; the discriminator's is that
    of the hinge loss throughout; from the start on each image is pulled by half as much again.
    """
    task = tasks.create(config_of(micro_bundles, loss=ADVERSARY))
    variables = jax.jit(task.init)(jax.random.key(0))
    before, begun = (gradients(task, variables, frames(step=step)) for step in (2, 3))
    value, expected = plain(task, variables, frames())
    assert before[0] == pytest.approx(float(value) + float(before[1]['hinge']), rel=1e-5)
    for name in expected['params']:
        same = lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        if name != 'discriminator':
            jax.tree.map(same, before[2][name], expected['params'][name])
    jax.tree.map(
        np.testing.assert_array_equal, before[2]['discriminator'], begun[2]['discriminator']
    )
    norm = lambda found, name: float(optax.tree.norm(found[2][name]))
    assert norm(before, 'discriminator') > 0 and before[0] == begun[0]
    assert abs(norm(begun, 'decoder') / norm(before, 'decoder') - 1) > 1e-3


def test_an_image_is_pulled_as_asked_whatever_the_scale_of_the_scores(micro_bundles):
    """The image itself stands for the decoder."""

    class Same:
        def apply(self, variables, x, method):
            return (
                (x, jnp.full_like(x, -30.0))
                if method == 'encode'
                else x + variables['params']['shift']
            )

    found = {}
    for strength, scale in ((0.0, 1.0), (0.5, 1.0), (0.5, 100.0)):
        task = tasks.create(config_of(micro_bundles, loss=ADVERSARY | {'adversary': strength}))
        task.net, params = Same(), {'shift': jnp.full((2, *SIZE, 3), 0.1)}
        if strength:
            tree = task.discriminator.init(jax.random.key(1), jnp.zeros((1, *SIZE, 3)))['params']
            last = {name: scale * leaf for name, leaf in tree['conv_out'].items()}
            params['discriminator'] = tree | {'conv_out': last}
        found[strength, scale] = gradients(task, {'params': params}, frames(step=3))[2]['shift']
    pull, push, louder = found.values()
    np.testing.assert_allclose(push, louder, rtol=1e-4, atol=1e-9)
    lengths = lambda x: np.sqrt(np.square(x).sum((1, 2, 3)))
    np.testing.assert_allclose(lengths(push - pull), 0.5 * lengths(pull), rtol=1e-3)


@pytest.mark.slow
def test_the_discriminator_learns_to_tell(micro_bundles):
    task = tasks.create(config_of(micro_bundles, loss=ADVERSARY | {'adversary_start': 1000}))
    config = task.config
    config.optimizer.learning_rate, config.optimizer.schedule = 2e-3, 'constant'
    transform, rate = resume.make_optimizer(task, config)
    current = state.create(task, transform, 0, None)
    step = jax.jit(state.make_step(task, transform, rate, 0, 0.9))
    for number in range(40):
        current, metrics, _ = step(current, {}, frames(4), np.int32(number))
    assert metrics['told'] > 0.9 and metrics['hinge'] < 0.8


@pytest.mark.long
@pytest.mark.parametrize('parts', [2])
def test_it_learns_the_same_however_the_batch_is_cut(parts, micro_bundles):
    task = tasks.create(
        config_of(micro_bundles, ['encoder'], ADVERSARY | {'adversary_start': 0}, batch_size=4)
    )
    transform, rate = resume.make_optimizer(task, task.config)
    before, batch = state.create(task, transform, 0, None), frames(4)
    del batch['step']
    found = [
        jax.jit(state.make_step(task, transform, rate, 0, 0.9, cut))(
            before, task.frozen, batch, np.int32(0)
        )[1]
        for cut in (1, parts)
    ]
    for metric in ('loss', 'features', 'hinge', 'gradient_norm'):
        np.testing.assert_allclose(found[1][metric], found[0][metric], rtol=1e-4)


def test_the_discriminators_kernels_are_cut_as_the_vaes_are(micro_bundles):
    config = config_of(micro_bundles, loss=ADVERSARY | {'discriminator': (8, 512, 512)})
    task = tasks.create(config, load=False)
    placed = resume.place(task, task.shapes['params'], mesh.abstract(8, fsdp=8))
    at = placed['discriminator/conv_2/kernel']
    assert (at.spec, at.note) == (PartitionSpec(None, None, 'fsdp', None), '')


def test_features_are_compared_by_direction(micro_bundles):
    """The distance is 2 - 2 cos, the mean over places and layers; a true image has none."""
    task = tasks.create(config_of(micro_bundles, ['encoder']))
    rng = np.random.default_rng(0)
    one, other = (rng.integers(0, 256, (2, *SIZE, 3), np.uint8) for _ in range(2))
    encoder = task.frozen['encoder']
    layers = [np.asarray(encoder.encode(x[:, None]))[:, 0] for x in (one, other)]
    width, cosines = encoder.net.width, []
    for index in range(4):
        a, b = (x[..., index * width : (index + 1) * width] for x in layers)
        norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        cosines.append((a * b).sum(-1) / norms)
    images = [jnp.asarray(x, jnp.float32) / 127.5 - 1.0 for x in (one, other)]
    _, metrics = task._error(*images, encoder)
    assert float(metrics['features']) == pytest.approx(2 - 2 * np.mean(cosines), rel=1e-3)
    _, metrics = task._error(images[0], images[0], encoder)
    assert float(metrics['features']) < 1e-6


def test_a_start_of_other_groups_is_refused(micro_bundles):
    """Shapes of parameters are the same."""
    task = tasks.create(config_of(micro_bundles, model={'norm_groups': 8}))
    with pytest.raises(errors.UserError, match='norm_groups 4, and config.model.norm_groups is 8'):
        task.load(micro_bundles / 'vae')


@pytest.mark.slow
def test_a_decoder_by_itself_keeps_latents_and_leaves_the_adversary(micro_bundles, tmp_path):
    """And goes on exactly where it was cut off."""
    fields = dict(init=str(micro_bundles / 'vae'), checkpoint_every=2, steps=4)
    config = config_of(micro_bundles, ['encoder', 'vae'], ADVERSARY, **fields)
    config.optimizer.weight_decay = 0.1

    def train(folder, steps):
        config.steps = steps
        task = tasks.create(config)
        data = loader.create(config.data, config.batch_size, 0)
        return task, loop.train(task, config, str(tmp_path / folder), data)

    config.optimizer.schedule = 'constant'  # as `steps` differs
    _, whole = train('whole', 4)
    train('cut', 2)
    task, again = train('cut', 4)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert set(whole.params) == {'decoder', 'post_quant_conv', 'discriminator'}
    logged = writer.read_log(str(tmp_path / 'cut'))[-1]
    assert {'psnr', 'features', 'hinge', 'told'} <= set(logged)
    task.save(again.ema, tmp_path / 'vae', [frames()])
    before, after = (
        bundles.load(path, 'vae') for path in (micro_bundles / 'vae', tmp_path / 'vae')
    )
    clip = frames()['frames']
    np.testing.assert_array_equal(after.encode(clip), before.encode(clip))
    latents = before.encode(clip)
    assert not np.array_equal(after.decode_float(latents), before.decode_float(latents))
    assert (after.scaling_factor, after.shift_factor) == (1.5, 0.1)
    assert set(after.params['params']) == set(before.params['params'])
    started = task.load(str(tmp_path / 'vae'))['params']  # the discriminator anew
    jax.tree.map(
        np.testing.assert_array_equal, started['decoder'], after.params['params']['decoder']
    )
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, dict(again.params))


def test_channels_have_their_own_mean_and_deviation(micro_bundles, tmp_path):
    task = tasks.create(config_of(micro_bundles))
    variables = bundles.load(micro_bundles / 'vae', 'vae').params
    batches = [frames(3), frames(3)]
    task.save(variables, tmp_path / 'vae', batches)
    part = bundles.load(tmp_path / 'vae', 'vae')
    mean = np.asarray(part.moments(batches[0]['frames'])[0], np.float64).reshape(-1, 4)
    np.testing.assert_allclose(part.shift_factor, mean.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(part.scaling_factor, 1 / mean.std(0), rtol=1e-3)
    latents = np.asarray(part.encode(batches[0]['frames'])).reshape(-1, 4)
    np.testing.assert_allclose(latents.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(latents.std(0), 1, atol=1e-3)
    decoded = part.decode_float(latents.reshape(3, 1, SIZE[0] // 4, SIZE[1] // 4, 4))
    plain = part.replace(scaling_factor=1.0, shift_factor=0.0)
    expected = plain.decode_float(plain.moments(batches[0]['frames'])[0])
    np.testing.assert_allclose(decoded, expected, atol=1e-4)
    assert bundles.identity(part) == bundles.digest(tmp_path / 'vae')
    other = part.replace(shift_factor=(*part.shift_factor[:3], 0.5))
    assert bundles.identity(other) != bundles.identity(part)


def test_a_bundle_of_other_channels_is_refused(micro_bundles, tmp_path):
    shutil.copytree(micro_bundles / 'vae', tmp_path / 'vae')
    path = tmp_path / 'vae' / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'shift_factor': [0.0, 1.0]}))
    with pytest.raises(errors.UserError, match='shift_factor holds 2 numbers for 4 channels'):
        bundles.load(tmp_path / 'vae', 'vae')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'loss.adversary': -1.0}, 'config.loss.adversary is -1.0: at least 0 expected'),
        ({'model.norm_groups': 2}, 'config.model: expected the sizes of config.frozen.vae, .*/vae'),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message, micro_bundles):
    config = config_of(micro_bundles, ['vae'])
    config.update_from_flattened_dict(changes)
    with pytest.raises(errors.UserError, match=message) as caught:
        tasks.create(config)
    assert '\n' not in str(caught.value)
