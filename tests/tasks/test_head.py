"""Training heads for segmentation, depth and normals: losses against float64 numpy, scores against
the metrics, refusals.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from re2pix_jax import bundles, errors, tasks
from re2pix_jax.evaluation.evaluators.normals import from_depth
from re2pix_jax.heads import VERBS
from tests.conftest import SIZE, load_config, random_variables, shrink


def create(kind, bundles, **loss):
    config = shrink(load_config('head', f'tiny-{kind}'), bundles)
    config.loss.update(loss)
    return tasks.create(config)


@pytest.fixture(scope='module')
def clips():
    """Three clips of a frame each; of the last one nothing is known."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 19, (3, 1, *SIZE)).astype(np.uint8)
    depth = rng.uniform(0.5, 300, (3, 1, *SIZE)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2], depth[rng.random(depth.shape) < 0.2] = 255, 0
    labels[2], depth[2] = 255, 0
    frames = rng.integers(0, 256, (3, 1, *SIZE, 3), np.uint8)
    return {'frames': frames, 'labels': labels, 'depth': depth, 'record': np.arange(3)}


def variables(task, clips):
    return random_variables(task.net, task._features(task.frozen, clips)[0])


def cross_entropy(logits, classes, known):
    logits = logits - logits.max(-1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log, np.where(known, classes, 0)[..., None], -1)[..., 0]


@pytest.mark.parametrize('reads', VERBS)
def test_losses_are_the_published_ones_over_known_pixels(reads, micro_bundles, clips):
    task = create(reads, micro_bundles)
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, *SIZE, task.net.classes)).astype(np.float32)
    truth = np.asarray(task._truth(clips))[:, 0]
    exact = logits.astype(np.float64)
    if reads == 'segmentation':
        known = truth != 255
        per_pixel = cross_entropy(exact, truth.astype(int), known)
    elif reads == 'depth':
        known = truth > 0
        bins = np.geomspace(
            1, 200, 256
        )  # class k lies between the k-th and the next of these edges
        classes = np.clip(np.searchsorted(bins, truth.astype(np.float64), side='right'), 1, 255)
        per_pixel = cross_entropy(exact, classes, known)
    else:
        known = (truth != 0).any(-1)
        cosine = (exact * truth).sum(-1) / np.linalg.norm(exact, axis=-1)
        per_pixel = ((exact - truth) ** 2).sum(-1) + 1 - cosine
    assert 0.2 < known.mean() < 0.7
    loss, metrics = task._error(jnp.asarray(logits), jnp.asarray(truth))
    assert float(loss) == pytest.approx(per_pixel[known].mean(), rel=1e-5)
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(task._error(jnp.asarray(logits[2:]), jnp.asarray(truth[2:]))[0]) == 0


@pytest.mark.parametrize('reads', VERBS)
def test_gradients_reach_every_kernel_and_a_few_steps_lower_the_loss(reads, micro_bundles, clips):
    task = create(reads, micro_bundles)
    params = variables(task, clips)
    transform = optax.adam(3e-3)

    @jax.jit
    def step(params, moments):
        (loss, _), gradients = jax.value_and_grad(task.loss, has_aux=True)(
            params, task.frozen, clips, jax.random.key(0)
        )
        updates, moments = transform.update(gradients, moments)
        return optax.apply_updates(params, updates), moments, loss, gradients

    moments, losses = transform.init(params), []
    for _ in range(8):
        params, moments, loss, gradients = step(params, moments)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0] - 0.01
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients['params']))


def test_true_normals_are_those_of_depth(micro_bundles, clips):
    task = create('normals', micro_bundles)
    np.testing.assert_array_equal(task._truth(clips), from_depth(clips['depth'], 60.0))


def test_ordinal_depth_is_its_own_class(micro_bundles):
    task = create('depth', micro_bundles, depth_range=())
    truth = jnp.arange(256.0).reshape(1, 16, 16)
    logits = 50 * jax.nn.one_hot(truth.astype(jnp.int32), 256)
    loss, metrics = task._error(logits, truth)
    assert float(loss) < 1e-6 and float(metrics['accuracy']) == 1
    assert task._head(None).depth_range is None


def test_an_encoder_kept_for_other_frames_takes_those_of_the_config(micro_bundles, clips, tmp_path):
    bundles.save(
        tmp_path / 'encoder', bundles.load(micro_bundles / 'encoder').replace(image_size=(16, 32))
    )
    config = shrink(load_config('head'), micro_bundles)
    plain = tasks.create(config)
    config.frozen.encoder = str(tmp_path / 'encoder')
    task = tasks.create(config)
    features = task._features(task.frozen, clips)
    assert features.shape == (3, 1, 4, 8, 96)
    np.testing.assert_array_equal(features, plain._features(plain.frozen, clips))


def test_a_saved_head_says_which_encoder_it_was_trained_on(micro_bundles, clips, tmp_path):
    """The same encoder in another bundle, in half precision and for frames of another size, is the
    same.
    """
    task = create('segmentation', micro_bundles)
    task.save(variables(task, clips), tmp_path / 'head', None)
    encoder = bundles.load(micro_bundles / 'encoder')
    bundles.save(
        tmp_path / 'half',
        encoder.replace(image_size=(64, 128), net=encoder.net.clone(dtype='bfloat16')),
        storage='float16',
    )
    assert bundles.digest(tmp_path / 'half') == bundles.digest(micro_bundles / 'encoder')
    told = bundles.load(tmp_path / 'head').encoder
    assert told == bundles.identity(encoder) == bundles.identity(bundles.load(tmp_path / 'half'))
    other = encoder.replace(params=jax.tree.map(lambda leaf: leaf * 1.01, encoder.params))
    assert told != bundles.identity(other) and told != bundles.identity(
        encoder.replace(net=encoder.net.clone(layers=(3, 2, 1, 0)))
    )
    assert bundles.load('tiny/head').encoder is None


def test_what_does_not_fit_is_refused_in_one_line(micro_bundles, clips, tmp_path):
    def refused(message, call, *arguments, **keywords):
        with pytest.raises(errors.UserError, match=message) as caught:
            call(*arguments, **keywords)
        assert '\n' not in str(caught.value)

    refused(
        "reads 'colour': expected one of segmentation, depth, normals",
        create,
        'depth',
        micro_bundles,
        reads='colour',
    )
    refused(
        'reads normals has 256 classes: expected 3', create, 'depth', micro_bundles, reads='normals'
    )
    refused(r'depth_range \(5.0, 1.0\)', create, 'depth', micro_bundles, depth_range=(5.0, 1.0))
    refused(
        'field_of_view = 180.0: expected degrees between',
        create,
        'normals',
        micro_bundles,
        field_of_view=180.0,
    )
    refused(
        "config reads 'colour': expected one of segmentation, depth, normals",
        load_config,
        'head',
        'tiny-colour',
    )
    task = create('depth', micro_bundles, depth_range=(1.0, 200.0))
    refused(
        'come without depth, which a head that reads depth',
        task._truth,
        {'frames': clips['frames']},
    )
    refused(
        'config.data.sources: encoded clips hold no frames, which a head is trained on; take a '
        'source of frames',
        task._features,
        task.frozen,
        {'components': np.zeros((1, 1, 4, 8, 32), np.float16)},
    )
    refused(
        "config.init: .*head was trained with reads 'segmentation', and config.loss.reads is 'd",
        task.load,
        micro_bundles / 'head',
    )
    saved = tmp_path / 'depth'
    task.save(variables(task, clips), saved, None)
    assert task.load(saved)
    task.config.loss.depth_range = ()
    refused(
        r'with depth_range \(1.0, 200.0\), and config.loss.depth_range is \(\); set config.loss.d',
        task.load,
        saved,
    )

    principal = bundles.load(micro_bundles / 'principal')
    narrow = type(principal)(
        *(
            leaf[..., :48]
            for leaf in (principal.mean, principal.std, principal.pca_mean, principal.components)
        ),
        principal.variance,
    )
    bundles.save(tmp_path / 'narrow', narrow)
    config = shrink(load_config('head'), micro_bundles)
    config.frozen.principal = str(tmp_path / 'narrow')
    refused(
        r'config.frozen.principal: .*narrow takes features of 48 channels, the encoder gives 96',
        tasks.create,
        config,
    )

    head = bundles.load(micro_bundles / 'head')
    other = head.replace(params=random_variables(head.net, jnp.zeros((1, 2, 4, 48))))
    bundles.save(tmp_path / 'other', other)
    segment = create('segmentation', micro_bundles)
    refused(
        r'other: takes features of 48 channels, and the encoder .* gives 96',
        segment.load,
        tmp_path / 'other',
    )
    np.testing.assert_array_equal(
        jax.tree.leaves(segment.load(micro_bundles / 'head'))[0],
        jax.tree.leaves(head.params)[0],
    )
