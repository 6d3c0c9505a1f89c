"""Inception, I3D and LPIPS: against the numbers of the published code, by weights that follow a
rule; from file to bundle to feature.
"""

import json
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from re2pix_jax import bundles
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import i3d, inception, lpips
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.networks.i3d import LEAST_FRAMES, InceptionI3D, check_frames
from tests.conftest import ROOT

GOLDEN = ROOT.parent / 'shared' / 'golden' / 'metrics'
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the published code's numbers are not here")
LIMIT = 1e-5  # largest difference over largest value; asked: 1e-4


def array(key, shape):
    """The tensor that stands for a key."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        return np.zeros(shape, np.int64)
    if key.endswith('running_var'):
        values = 0.5 + random.rand(*shape)
    elif len(shape) == 1:
        values = (
            0.8 + 0.4 * random.rand(*shape)
            if key.endswith('weight')
            else 0.1 * random.randn(*shape)
        )
    else:
        values = random.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    return values.astype(np.float32)


def shapes(name):
    return json.loads((GOLDEN / 'state_dict_shapes.json').read_text())[name]


def through_a_bundle(part, folder):
    bundles.save(folder, part)
    return bundles.load(folder)


def compare(ours, theirs):
    assert ours.shape == theirs.shape
    error = np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()
    print(f'largest relative error {error:.1e}')
    assert error < LIMIT


@pytest.mark.long
@golden
def test_inception(tmp_path):
    save_file(
        {key: array(key, shape) for key, shape in shapes('inception').items()},
        tmp_path / 'w.safetensors',
    )
    network = through_a_bundle(inception.convert(tmp_path / 'w.safetensors'), tmp_path / 'bundle')
    expected = np.load(GOLDEN / 'expected.npz')
    images = 2 * expected['inception_images_b3hw'].transpose(0, 2, 3, 1) - 1
    for number, block in enumerate(network.blocks(images[None, :1])):
        compare(block[0], expected[f'inception_block{number}_mean'][:1])


@pytest.mark.long
@golden
def test_i3d(tmp_path):
    save_file(
        {key: array(key, shape) for key, shape in shapes('i3d').items()}, tmp_path / 'w.safetensors'
    )
    network = through_a_bundle(i3d.convert(tmp_path / 'w.safetensors'), tmp_path / 'bundle')
    expected = np.load(GOLDEN / 'expected.npz')
    clip = (
        (np.random.RandomState(1).rand(1, 3, 16, 224, 224) * 2 - 1)
        .astype(np.float32)
        .transpose(0, 2, 3, 4, 1)
    )
    features, logits = network.activations(clip)
    compare(features[:, 0], expected['i3d_features_bct11'][..., 0, 0, 0])
    compare(logits.mean(1), expected['i3d_logits_bkt'].mean(2))


@golden
def test_every_tensor_that_does_not_fit_is_named(tmp_path):
    for name, module, unit in (
        ('inception', inception, 'Mixed_7c.branch_pool'),
        ('i3d', i3d, 'Mixed_5c.b3b'),
    ):
        last = f'{unit}.bn.running_mean'
        tensors = {
            key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes(name).items()
        }
        tensors['head.weight'] = tensors.pop(last)
        tensors[last.replace('mean', 'var')] = np.zeros(3, np.float32)
        (table, expected) = _table(module, name)
        with pytest.raises(UserError, match='3 tensors do not match') as error:
            table.convert(tensors, expected, 'w.pth')
        for words in (
            'left over head.weight',
            f'missing {last}',
            f'{last.replace("mean", "var")} has shape [3]',
        ):
            assert words in str(error.value)


def _table(module, name):
    net = KINDS[name].build_net({}, 'here')
    expected = KINDS[name].expected(net, {}, {}, 'here')
    return module.table(expected), expected


def test_i3d_takes_nine_frames():
    with pytest.raises(
        ValueError,
        match='clips of 8 frames, .*at least 9, usual are 16: lengthen the horizon by 1 or more',
    ):
        check_frames(8)
    _, expected = _table(i3d, 'i3d')
    assert expected['params/logits/kernel'] == (1, 1, 1, 1024, InceptionI3D().classes)
    check_frames(LEAST_FRAMES)


def test_lpips(tmp_path):
    """By plain loops over the taps of every kernel; from the two files that it comes in."""
    widths, kernels, strides, paddings = (
        (64, 192, 384, 256, 256),
        (11, 5, 3, 3, 3),
        (4, 1, 1, 1, 1),
        (2, 2, 1, 1, 1),
    )
    inputs, places = (3, *widths), (0, 3, 6, 8, 10)
    alexnet, linear = {'classifier.1.bias': np.zeros(4, np.float32)}, {}
    for k, place in enumerate(places):
        alexnet[f'features.{place}.weight'] = array(
            f'{k}.weight', (widths[k], inputs[k], kernels[k], kernels[k])
        )
        alexnet[f'features.{place}.bias'] = array(f'{k}.bias', (widths[k],))
        linear[f'lin{k}.model.1.weight'] = np.abs(array(f'{k}.linear', (1, widths[k], 1, 1)))
    save_file(alexnet, tmp_path / 'alexnet.safetensors')
    save_file(linear, tmp_path / 'linear.safetensors')
    network = through_a_bundle(
        lpips.convert(tmp_path / 'alexnet.safetensors', tmp_path / 'linear.safetensors'),
        tmp_path / 'bundle',
    )
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 1, 37, 45, 3), np.uint8)

    def activations(x):
        x = (x / 127.5 - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])
        for k, place in enumerate(places):
            if k in (1, 2):
                rows, columns = ((side - 3) // 2 + 1 for side in x.shape[:2])
                x = np.max(
                    [
                        x[i : i + 2 * rows : 2, j : j + 2 * columns : 2][:rows, :columns]
                        for i in range(3)
                        for j in range(3)
                    ],
                    axis=0,
                )
            kernel, bias = alexnet[f'features.{place}.weight'], alexnet[f'features.{place}.bias']
            x = np.pad(x, [(paddings[k],) * 2] * 2 + [(0, 0)])
            rows, columns = ((side - kernels[k]) // strides[k] + 1 for side in x.shape[:2])
            taps = [
                x[
                    i : i + strides[k] * rows : strides[k],
                    j : j + strides[k] * columns : strides[k],
                ][:rows, :columns]
                @ kernel[:, :, i, j].T
                for i in range(kernels[k])
                for j in range(kernels[k])
            ]
            x = np.maximum(np.sum(taps, axis=0) + bias, 0)
            yield x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)

    expected = [
        sum(
            ((a - b) ** 2 @ linear[f'lin{k}.model.1.weight'][0, :, 0, 0]).mean()
            for k, (a, b) in enumerate(zip(activations(one[0]), activations(other[0])))
        )
        for one, other in zip(*frames)
    ]
    np.testing.assert_allclose(network.distance(*frames)[:, 0], expected, rtol=1e-4)
    assert np.abs(network.distance(frames[0], frames[0])).max() == 0
    with pytest.raises(
        UserError, match="pass the lpips package's weights/v0.1/alex.pth as --linear"
    ):
        lpips.convert(tmp_path / 'alexnet.safetensors', None)
    with pytest.raises(
        UserError, match='5 tensors do not match LPIPS on AlexNet: missing lin0.model.1.weight'
    ):
        lpips.convert(tmp_path / 'alexnet.safetensors', tmp_path / 'alexnet.safetensors')
