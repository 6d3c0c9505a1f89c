"""DINOv3 files: numbers that transformers' code gave for micro models, the published sizes, and
what is refused.
"""

import json
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from re2pix_jax import bundles
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import dinov3
from re2pix_jax.encoder import Principal, VisionTransformer
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer
from tests.convert import torch_pickles

# width, depth, heads, hidden width, gated, which have a bias -> parameters of transformers' class
PUBLISHED = {
    'S': ((384, 12, 6, 1536, False, 'qv'), 21_596_544),
    'S+': ((384, 12, 6, 1536, True, 'qv'), 28_692_864),
    'B': ((768, 12, 12, 3072, False, 'qv'), 85_660_416),
    'L': ((1024, 24, 16, 4096, False, 'qv'), 303_129_600),
    'H+': ((1280, 32, 20, 5120, True, 'qv'), 840_592_640),
    '7B': ((4096, 40, 32, 8192, True, ''), 6_716_035_072),
}


@pytest.mark.parametrize('name', ['dinov3', 'dinov3_gated'])
def test_numbers(micro_model, check_numbers, name):
    path, images, expected = micro_model(name)
    encoder = dinov3.convert(path, heads=1, layers=(0, 1))
    assert encoder.net.position_grid is None and encoder.net.biased == 'qv'
    check_numbers(name, encoder, images, expected)


def test_a_folder_brings_its_config_and_may_be_split(micro_model, compare, tmp_path):
    path, images, expected = micro_model('dinov3')
    folder = tmp_path / 'folder'
    folder.mkdir()
    tensors = load_file(path)
    for index in range(2):
        part = {key: tensors[key] for key in sorted(tensors)[index::2]}
        save_file(part, folder / f'model-0000{index + 1}-of-00002.safetensors')
    config = {
        'model_type': 'dinov3_vit',
        'num_attention_heads': 1,
        'layer_norm_eps': 1e-5,
        'rope_theta': 100.0,
    }
    (folder / 'config.json').write_text(json.dumps(config))
    assert compare('folder', dinov3.convert(folder, layers=(0, 1)).encode(images), expected) < 1e-5
    (folder / 'config.json').write_text(json.dumps(config | {'rope_theta': 10.0}))
    assert (
        compare('another theta', dinov3.convert(folder, layers=(0, 1)).encode(images), expected)
        > 1e-3
    )


def test_a_folder_of_torch_files(micro_model, compare, tmp_path):
    """Where there is no safetensors file; beside one, they hold the same once more."""
    path, images, expected = micro_model('dinov3')
    folder, tensors = tmp_path / 'folder', load_file(path)
    folder.mkdir()
    names = sorted(tensors)
    for index in range(2):
        part = {name: tensors[name].astype(np.float32) for name in names[index::2]}
        torch_pickles.state_dict(folder / f'pytorch_model-0000{index + 1}-of-00002.bin', part)
    assert compare('torch files', dinov3.convert(folder, 1, (0, 1)).encode(images), expected) < 1e-5
    torch_pickles.state_dict(folder / 'pytorch_model.bin', {names[0]: np.zeros(3, np.float32)})
    with pytest.raises(
        UserError,
        match=f'holds {names[0]} in pytorch_model.bin and in another file: expected one model; '
        'name the file',
    ):
        dinov3.convert(folder, 1, (0, 1))
    save_file(tensors, folder / 'model.safetensors')
    assert compare('safetensors', dinov3.convert(folder, 1, (0, 1)).encode(images), expected) < 1e-5


def test_models_of_satellite_images_are_refused(micro_model):
    """They normalise by another mean and deviation, which an encoder here does not keep."""
    path = micro_model('dinov3')[0]
    file = path.with_name('preprocessor_config.json')
    web = {'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}
    file.write_text(json.dumps(web))
    dinov3.convert(path, 1, (0, 1))
    for change, said in (
        (
            {'image_mean': [0.43, 0.411, 0.296], 'image_std': [0.213, 0.156, 0.143]},
            'says image_mean .0.43, 0.411, 0.296.',
        ),
        ({'image_std': [0.213, 0.156, 0.143]}, 'says image_std .0.213'),
        ({'image_std': 1}, 'image_std: '),
    ):
        file.write_text(json.dumps(web | change))
        with pytest.raises(
            UserError,
            match=f'preprocessor_config.json: {said}.*expected .*choose a model .*web images',
        ) as caught:
            dinov3.convert(path, 1, (0, 1))
        assert '\n' not in str(caught.value)


def test_bfloat16_files_are_read_as_float32(micro_model, compare):
    def store(tensors):
        tensors.update({key: array.astype(ml_dtypes.bfloat16) for key, array in tensors.items()})

    path, images, expected = micro_model('dinov3', store)
    encoder = dinov3.convert(path, heads=1, layers=(0, 1))
    assert encoder.params['params']['cls_token'].dtype == jnp.float32
    assert compare('bfloat16', encoder.encode(images), expected) < 2e-2


@pytest.mark.parametrize('size', PUBLISHED)
def test_published_parameter_counts(size):
    (width, depth, heads, hidden, gated, biased), count = PUBLISHED[size]
    net = VisionTransformer(
        patch_size=16,
        width=width,
        depth=depth,
        heads=heads,
        registers=4,
        layers=(0,),
        position_grid=None,
        biased=biased,
        norm_eps=1e-5,
        **dinov3.feed_forward(np.broadcast_to(0, (width, hidden)), gated),
    )
    shapes = KINDS['encoder'].expected(net, {}, {}, size)
    assert sum(math.prod(shape) for shape in shapes.values()) == count


@pytest.mark.long
def test_a_forecaster_takes_its_features(micro_model, tmp_path):
    encoder = dinov3.convert(micro_model('dinov3')[0], heads=1, layers=(0, 1), image_size=(8, 12))
    principal = Principal(
        jnp.zeros(16), jnp.ones(16), jnp.zeros(16), jnp.eye(6, 16), jnp.ones(6) / 6
    )
    net = MaskedFeatureTransformer(components=6, width=12, depth=1, heads=2, frames=5, grid=(4, 6))
    frames = np.random.default_rng(0).integers(0, 256, (1, 5, 16, 24, 3), np.uint8)
    params = net.init(jax.random.key(0), jnp.zeros((1, 4, 4, 6, 6)))
    forecaster = Forecaster(params=params, net=net, encoder=encoder, principal=principal)
    bundles.save(tmp_path / 'forecaster', forecaster)
    loaded = bundles.load(tmp_path / 'forecaster', 'forecaster')
    assert loaded.encode(frames).shape == (1, 5, 4, 6, 6)


def test_what_is_refused_in_one_line(micro_model, tmp_path):
    def refused(match, name='dinov3', edit=lambda tensors: None, **arguments):
        path = micro_model(name, edit)[0]
        with pytest.raises(UserError, match=match) as caught:
            dinov3.convert(path, **{'heads': 1, 'layers': (0, 1)} | arguments)
        assert '\n' not in str(caught.value) and str(path.parent) in str(caught.value)

    for name in ('dinov2', 'dinov2_registers'):
        refused(
            'has a learned position table, as DINOv2: expected DINOv3.* convert it as dinov2',
            name=name,
        )
    refused(
        'width 8 and depth 2 are not those of a published DINOv3: say how many heads', heads=None
    )
    refused('layers .5. of an encoder of 2 blocks', layers=(5,))
    refused(
        'width 8 cannot have 4 heads: expected heads of the same size, a multiple of 4 for rotary '
        'positions',
        heads=4,
    )
    refused(
        'has no tensor embeddings.patch_embeddings.weight: expected DINOv3 as the transformers '
        'package stores it',
        edit=lambda tensors: tensors.pop('embeddings.patch_embeddings.weight'),
    )
    refused(
        '2 tensors do not match DINOv3: layer.0.norm1.weight has shape .3., .*; missing norm.bias',
        edit=lambda tensors: (
            tensors.pop('norm.bias'),
            tensors.update({'layer.0.norm1.weight': np.zeros(3, np.float16)}),
        ),
    )
    refused(
        'left over layer.1.extra',
        edit=lambda tensors: tensors.update({'layer.1.extra': np.zeros(3, np.float16)}),
    )
    refused(
        'embeddings.cls_token and model.embeddings.cls_token are both',
        edit=lambda tensors: tensors.update(
            {'model.embeddings.cls_token': tensors['embeddings.cls_token']}
        ),
    )
    refused(
        'has no tensor embeddings.register_tokens with 3 axes',
        edit=lambda tensors: tensors.update({'embeddings.register_tokens': np.float16(1)}),
    )
    refused(
        'has layer.1.attention.q_proj.weight and lacks layer.1.attention.v_proj.weight',
        edit=lambda tensors: tensors.pop('layer.1.attention.v_proj.weight'),
    )
    cut = tmp_path / 'cut.safetensors'
    cut.write_bytes(micro_model('dinov3')[0].read_bytes()[:-100])
    with pytest.raises(UserError, match='cut.safetensors: is not a whole safetensors file'):
        dinov3.convert(cut)
    (tmp_path / 'config.json').write_text('{"model_type": "dinov2"}')
    refused("config.json: says model_type 'dinov2': expected 'dinov3_vit'")
    (tmp_path / 'config.json').write_text('{"model_type": "dinov3_vit", "hidden_act": "relu"}')
    refused("config.json says hidden_act 'relu': expected 'gelu'")
    (tmp_path / 'config.json').write_text(
        '{"model_type": "dinov3_vit", "rope_theta": [100], "num_attention_heads": "one"}'
    )
    refused(r'config.json: rope_theta: expected a positive number, got \[100\]: fetch it again')
    (tmp_path / 'config.json').write_text('{')
    refused('config.json: is not readable JSON')
    with pytest.raises(UserError, match='is a folder without model.safetensors'):
        (tmp_path / 'empty').mkdir()
        dinov3.convert(tmp_path / 'empty')
