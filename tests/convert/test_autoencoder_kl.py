"""Micro autoencoders that diffusers made, the numbers it computed with them, and what is said about
files that do not fit.

tests/convert/data holds a model folder per published kind, in float16, as `save_pretrained` writes
it (`sd_vae`: 4 channels and quant convolutions; `flux_vae`: 16 channels and a shift), and beside
the weights expected.safetensors with inputs and outputs.
"""

import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict

from re2pix_jax import bundles
from re2pix_jax.convert import autoencoder_kl
from re2pix_jax.errors import UserError

DATA = pathlib.Path(__file__).parent / 'data'
FILE = 'diffusion_pytorch_model.safetensors'


@pytest.fixture
def folder(tmp_path):
    """A copy of the Stable Diffusion kind that a test may spoil."""
    return pathlib.Path(shutil.copytree(DATA / 'sd_vae', tmp_path / 'model'))


def change_config(folder, **settings):
    config = json.loads((folder / 'config.json').read_text()) | settings
    (folder / 'config.json').write_text(json.dumps(config))


def change_tensors(folder, change):
    tensors = dict(
        change(key, array) for key, array in safetensors.numpy.load_file(folder / FILE).items()
    )
    safetensors.numpy.save_file(tensors, folder / FILE)


def message_of(path, **arguments):
    with pytest.raises(UserError) as caught:
        autoencoder_kl.convert(path, **arguments)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def same(ours, theirs, limit=1e-5):
    error = np.abs(np.asarray(ours, np.float32) - theirs).max() / np.abs(theirs).max()
    print(f'largest relative error {error:.1e}')
    assert error < limit


@pytest.mark.parametrize(
    ('name', 'channels', 'shift'), [('sd_vae', 4, 0.0), ('flux_vae', 16, 0.1159)]
)
def test_diffusers_numbers(name, channels, shift):
    part = autoencoder_kl.convert(DATA / name)
    assert (part.net.latent_channels, part.shift_factor, part.net.quant_conv) == (
        channels,
        shift,
        channels == 4,
    )
    expected = safetensors.numpy.load_file(DATA / name / 'expected.safetensors')
    mean, logvar = part.moments(expected['frames'][None])
    same(mean[0], expected['mean'])
    same(logvar[0], expected['logvar'])
    same(part.decode_float(expected['latents'][None])[0], np.clip(expected['decoded'], -1, 1))
    half = part.replace(net=part.net.clone(dtype='bfloat16'))
    mean, logvar = half.moments(expected['frames'][None])
    same(mean[0], expected['mean'], 2e-2)
    same(logvar[0], expected['logvar'], 2e-2)
    same(half.decode_float(expected['latents'][None])[0], np.clip(expected['decoded'], -1, 1), 2e-2)


def flat(path, **arguments):
    part = autoencoder_kl.convert(path, **arguments)
    return part, flatten_dict(part.params, sep='/')


def assert_equal(one, other):
    assert one[0].net == other[0].net and one[0].scaling_factor == other[0].scaling_factor
    assert set(one[1]) == set(other[1])
    for key in one[1]:
        np.testing.assert_array_equal(one[1][key], other[1][key])


def test_names_of_old_files(folder):
    """query, key, value and proj_attn, as 1x1 convolutions."""
    old = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}

    def rename(key, array):
        for name, before in old.items():
            if f'.{name}.' in key:
                return key.replace(name, before), array[
                    ..., None, None
                ] if array.ndim == 2 else array
        return key, array

    change_tensors(folder, rename)
    assert any('proj_attn' in key for key in safetensors.numpy.load_file(folder / FILE))
    assert_equal(flat(folder), flat(DATA / 'sd_vae'))


def test_where_the_files_lie(folder, tmp_path):
    (tmp_path / 'pipeline').mkdir()
    shutil.copytree(folder, tmp_path / 'pipeline' / 'vae')
    expected = flat(folder)
    assert_equal(flat(tmp_path / 'pipeline'), expected)
    assert_equal(flat(folder / FILE), expected)


def test_a_file_alone_shows_its_sizes(folder):
    """All but the groups of its norms: with 2 of them it does not fit those that are published."""
    (folder / 'config.json').unlink()
    tensors = safetensors.numpy.load_file(folder / FILE)
    settings = autoencoder_kl.settings_in(tensors, folder)
    config = json.loads((DATA / 'sd_vae' / 'config.json').read_text())
    assert settings == {name: config[name] for name in settings} | {'norm_num_groups': 32}
    assert 'norm_groups 32 does not divide' in message_of(
        folder / FILE, scaling_factor=1.0, shift_factor=0.0
    )


def test_bfloat16_files_are_cast(folder):
    change_tensors(folder, lambda key, array: (key, array.astype(ml_dtypes.bfloat16)))
    part, tensors = flat(folder)
    assert {array.dtype.name for array in tensors.values()} == {'float32'}
    expected = flat(DATA / 'sd_vae')[1]
    for key, array in tensors.items():
        np.testing.assert_allclose(array, expected[key], rtol=2**-8)


def test_scaling_can_be_given_and_defaults_to_stable_diffusions(folder):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(
        json.dumps({key: value for key, value in config.items() if 'factor' not in key})
    )
    part = autoencoder_kl.convert(folder)
    assert (part.scaling_factor, part.shift_factor) == (0.18215, 0.0)
    part = autoencoder_kl.convert(folder, scaling_factor=2, shift_factor=0.5)
    assert (part.scaling_factor, part.shift_factor) == (2.0, 0.5)


def test_becomes_a_bundle_and_comes_back(folder, tmp_path):
    part = autoencoder_kl.convert(folder)
    bundles.save(tmp_path / 'vae', part.replace(frames_at_once=2))
    again = bundles.load(tmp_path / 'vae', 'vae')
    assert (again.net, again.scaling_factor, again.frames_at_once) == (
        part.net,
        part.scaling_factor,
        2,
    )


def test_missing_files(folder, tmp_path):
    assert 'nothing.safetensors: cannot be read: No such file' in message_of(
        tmp_path / 'nothing.safetensors', scaling_factor=1, shift_factor=0
    )
    (tmp_path / 'empty').mkdir()
    assert (
        'empty: is no folder of a diffusers autoencoder: expected config.json and '
        in message_of(tmp_path / 'empty')
    )
    (folder / 'config.json').unlink()
    assert 'model: is no folder of a diffusers autoencoder' in message_of(folder)
    assert 'has no config.json beside it' in message_of(folder / FILE)
    assert 'pass --scaling_factor and --shift_factor' in message_of(
        folder / FILE, scaling_factor=1.0
    )


def test_another_kind_of_file(tmp_path):
    safetensors.numpy.save_file(
        {'encoder.down.0.block.0.conv1.weight': np.zeros((4, 4, 3, 3))},
        tmp_path / 'ldm.safetensors',
    )
    message = message_of(tmp_path / 'ldm.safetensors', scaling_factor=1.0, shift_factor=0.0)
    assert (
        'has no tensor encoder.down_blocks.0.resnets.0.conv1.weight with 4 axes: is this the '
        'right kind of file?' in message
    )


def test_truncated_file(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])
    assert f'{FILE}: is not a whole safetensors file' in message_of(folder)


def test_every_tensor_that_does_not_fit_is_named(folder):
    def spoil(key, array):
        if key == 'decoder.conv_in.bias':
            return 'decoder.conv_in.other', array
        return key, array[:, :, :1] if key == 'encoder.conv_in.weight' else array

    change_tensors(folder, spoil)
    message = message_of(folder)
    assert '3 tensors do not match AutoencoderKL' in message
    assert (
        'left over decoder.conv_in.other [6]' in message
        and 'missing decoder.conv_in.bias' in message
    )
    assert (
        'encoder.conv_in.weight has shape [4, 3, 1, 3], which does not give '
        'params/encoder/conv_in/kernel [3, 3, 3, 4]' in message
    )


@pytest.mark.parametrize(
    ('settings', 'expected'),
    [
        ({'act_fn': 'gelu'}, "act_fn 'gelu' and not 'silu'"),
        ({'in_channels': 4}, 'in_channels 4 and not 3'),
        ({'latents_mean': [0.0] * 4}, 'latents_mean [0.0, 0.0, 0.0, 0.0] and not None'),
        (
            {'_class_name': 'AutoencoderTiny'},
            "_class_name 'AutoencoderTiny' and not 'AutoencoderKL'",
        ),
        (
            {'down_block_types': ['DownEncoderBlock2D', 'AttnDownEncoderBlock2D']},
            'AttnDownEncoderBlock2D',
        ),
        ({'use_quant_conv': False}, 'only one of use_quant_conv and use_post_quant_conv'),
        (
            {'block_out_channels': 8},
            'block_out_channels: expected a list of positive integers, got 8: fetch it again',
        ),
        ({'norm_num_groups': 3}, 'norm_groups 3 does not divide 4 channels'),
    ],
)
def test_settings_that_are_refused(folder, settings, expected):
    change_config(folder, **settings)
    assert expected in message_of(folder)


def test_settings_that_are_no_settings(folder):
    for text in ('{"act_fn"', '[]'):
        (folder / 'config.json').write_text(text)
        assert 'config.json: ' in message_of(folder)
