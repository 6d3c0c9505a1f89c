"""The arithmetic that benchmarks state by hand is what XLA counts, and their programs are the
package's own; no torch is needed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.benchmarks import generator_prediction, generator_step, prediction
from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.generator import SpaceTimeDiT

DEPTH, TINY = 3, dict(latent_grid=(8, 16), components=96, width=128, heads=2)


@pytest.fixture
def net():
    # Wide enough for products to outweigh the elementwise work that XLA counts too.
    return SpaceTimeDiT(**work.BASE | TINY, depth=DEPTH, unroll=True)


def test_forward_flops_by_hand_are_what_xla_counts(net):
    by_hand = work.flops(net)
    for name, count in work.counted(net).items():
        assert count == pytest.approx(by_hand[name], rel=0.05), name


def test_step_flops_by_hand_are_what_xla_counts():
    batch = 2
    task = generator_step.make_task('b', DEPTH, batch, **TINY, unroll=True)
    parts = work.flops(task.net)
    by_hand = sum(parts[name] for name in ('context', 'denoise', 'backward'))
    assert generator_step.lower_step(task).cost_analysis()['flops'] / batch == pytest.approx(
        by_hand, rel=0.08
    )


def test_flops_follow_size_depth_and_frames(net):
    parts = work.flops(net)
    deeper = work.flops(net.clone(depth=2 * DEPTH))
    assert parts['context'] < parts['denoise'] < deeper['denoise'] < 2 * parts['denoise']
    assert parts['denoise'] < parts['peer'] < 2.01 * parts['denoise']
    assert work.fields('xl') == work.BASE | {'width': 1152, 'depth': 28, 'heads': 16}
    assert work.fields('b', 2)['depth'] == 2


def test_prediction_is_the_generators_chunk_by_chunk():
    net = SpaceTimeDiT(**work.SMALL)
    latents, components, keys = generator_prediction.draw(net, 2)
    model = generator_prediction.make_model(net, work.draw_params(net), latents, components)
    frames = jnp.zeros((2, net.context_frames, *generator_prediction.FRAMES, 3), jnp.uint8)
    predicted = model.rollout(frames, keys, horizon=generator_prediction.HORIZON, sampler_steps=2)[
        'latents'
    ]
    chunk_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, 0)
    first = model.generator.sample(
        latents, components[:, :4], components[:, 4:8], chunk_keys, steps=2
    )
    assert predicted.shape == (2, 8, 8, 16, 4)
    np.testing.assert_allclose(predicted[:, :4], first, rtol=1e-4, atol=1e-4)
    noise = generator_prediction.noise_of(net, keys)
    np.testing.assert_array_equal(noise[0][0], jax.random.normal(chunk_keys[0], noise.shape[2:]))


def test_a_whole_prediction_is_of_published_sizes():
    def predict():
        model = prediction.make_model('b', None)
        context = jnp.zeros((2, model.context_frames, *prediction.FRAMES, 3), jnp.uint8)
        return model, model.rollout(
            context, jax.random.split(jax.random.key(0), 2), prediction.HORIZON, sampler_steps=3
        )

    model, future = jax.eval_shape(predict)  # nothing is computed
    assert future['frames'].shape == (2, 8, 256, 512, 3) and future['components'].shape == (
        2,
        8,
        16,
        32,
        1152,
    )
    count = lambda part: sum(leaf.size for leaf in jax.tree.leaves(part.params))
    assert count(model.vae) == 83_653_863
    assert count(model.forecaster.encoder) == pytest.approx(86.6e6, rel=0.01)
    assert count(model.generator) == pytest.approx(12 * 16.5e6, rel=0.5)
