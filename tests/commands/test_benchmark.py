"""The command says what each benchmark takes; the arithmetic that they state by hand is what XLA
counts, and their programs are the package's own; no torch is needed.
"""

import ast
import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.benchmarks import (
    BENCHMARKS,
    generator_prediction,
    generator_step,
    measuring,
    prediction,
)
from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.generator import SpaceTimeDiT
from tests.conftest import ROOT
from tests.running import outcomes

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


def test_every_file_with_a_run_is_a_benchmark():
    files = (ROOT / 're2pix_jax' / 'benchmarks').glob('*.py')
    run = [
        file.stem
        for file in files
        if any(getattr(node, 'name', '') == 'run' for node in ast.parse(file.read_text()).body)
    ]
    assert sorted(run) == sorted(BENCHMARKS)


def test_help_lists_what_a_benchmark_takes_and_nothing_else_is_accepted():
    commands = {name: [name, '--help'] for name in BENCHMARKS}
    commands |= {'strange': ['convert', '--tokens=3'], 'unknown': ['nosuch'], 'none': []}
    commands |= {'tokens': ['pca', '--tokens=1,x'], 'all': ['--help']}
    found = outcomes('benchmark', commands)
    for name in BENCHMARKS:
        module = importlib.import_module(f're2pix_jax.benchmarks.{name}')
        status, out, err = found[name]
        assert (status, err) == (0, '') and f' re2pix benchmark {name}' in out
        listed = {line[4:].split('=')[0] for line in out.splitlines() if line.startswith('  --')}
        assert listed == {*inspect.signature(module.run).parameters, '[no]traceback'}
        assert f'    re2pix benchmark {name} ' in found['all'][1]
    assert found['strange'][2] == (
        'error: benchmark convert: takes no --tokens; it takes no flags\n'
    )
    assert 'benchmark nosuch: expected one of pca, encoder' in found['unknown'][2]
    assert 'positional arguments expected: NAME' in found['none'][2]
    assert '--tokens=1,x: expected whole numbers from 2 on' in found['tokens'][2]


def test_a_share_of_the_peak_is_named_by_what_it_is_of(monkeypatch):
    measured = measuring.peak('float32')
    assert measured.flops > 0 and measured.share == 'of a product'
    device = type('Device', (), {'device_kind': 'NVIDIA H100 80GB HBM3'})
    monkeypatch.setattr(jax, 'devices', lambda: [device])
    nominal = measuring.peak('bfloat16')
    assert (nominal.flops, nominal.share) == (989e12, 'MFU')
    assert 'nominal 989 TFLOP/s of NVIDIA H100' in nominal.about
    assert measuring.peak('float32').share == 'of a product'
    assert 'MFU' in measuring.speed_table((1.0, 2.0), 1e12, nominal)
    assert 'of a product' in measuring.speed_table((1.0, 2.0), 1e12, measured)
