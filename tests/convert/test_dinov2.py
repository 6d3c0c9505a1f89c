"""DINOv2 files: numbers that transformers' code gave for micro models, the published sizes, and
what is refused.
"""

import math

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import dinov2
from re2pix_jax.encoder import VisionTransformer
from re2pix_jax.errors import UserError

NAMES = ('dinov2', 'dinov2_registers', 'dinov2_swiglu')
# width, depth, heads -> parameters without and with registers; the latter's are those of
# transformers' classes
PUBLISHED = {
    'S': ((384, 12, 6), 22_056_576, 22_058_112),
    'B': ((768, 12, 12), 86_580_480, 86_583_552),
    'L': ((1024, 24, 16), 304_368_640, 304_372_736),
    'g': ((1536, 40, 24), 1_136_480_768, 1_136_486_912),
}


def convert(path):
    """The micro model as transformers computes it, which has no 0.1 in its interpolation without
    registers.
    """
    encoder = dinov2.convert(path, heads=2, layers=(0, 1))
    return encoder.replace(net=encoder.net.clone(offset=0.0))


@pytest.mark.parametrize('name', NAMES)
def test_numbers(micro_model, check_numbers, name):
    path, images, expected = micro_model(name)
    check_numbers(name, convert(path), images, expected)


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_precision_is_read_as_float32(micro_model, compare, dtype):
    def store(tensors):
        tensors.update({key: array.astype(dtype) for key, array in tensors.items()})

    path, images, expected = micro_model('dinov2_registers', store)
    encoder = convert(path)
    assert encoder.params['params']['norm']['scale'].dtype == jnp.float32
    assert compare(np.dtype(dtype).name, encoder.encode(images), expected) < (
        2e-2 if dtype == ml_dtypes.bfloat16 else 1e-5
    )


@pytest.mark.parametrize('size', PUBLISHED)
@pytest.mark.parametrize('registers', [0, 4])
def test_published_parameter_counts(size, registers):
    (width, depth, heads), plain, registered = PUBLISHED[size]
    net = VisionTransformer(
        patch_size=14,
        width=width,
        depth=depth,
        heads=heads,
        registers=registers,
        layers=(0,),
        position_grid=(37, 37),
        ffn='swiglu' if size == 'g' else 'mlp',
    )
    shapes = KINDS['encoder'].expected(net, {}, {}, size)
    assert sum(math.prod(shape) for shape in shapes.values()) == (
        registered if registers else plain
    )


def test_what_is_refused_in_one_line(micro_model, tmp_path):
    def refused(match, name='dinov2', edit=lambda tensors: None, **arguments):
        path = micro_model(name, edit)[0]
        with pytest.raises(UserError, match=match) as caught:
            dinov2.convert(path, **{'heads': 2, 'layers': (0, 1)} | arguments)
        assert '\n' not in str(caught.value) and str(path) in str(caught.value)

    refused(
        'width 8 and depth 2 are not those of a published DINOv2: say how many heads', heads=None
    )
    refused('layers .0, 2. of an encoder of 2 blocks: expected numbers from 0 to 1', layers=(0, 2))
    refused('width 8 cannot have 3 heads', heads=3)
    refused('has no position table, as DINOv3: .*convert it as dinov3', name='dinov3')
    refused(
        'blocks.1.norm2.weight has shape .4.',
        edit=lambda tensors: tensors.update(
            {'encoder.layer.1.norm2.weight': np.zeros(4, np.float16)}
        ),
    )
    refused(
        'has blocks.0.attention.attention.query.weight and lacks '
        'blocks.0.attention.attention.key.weight',
        edit=lambda tensors: tensors.pop('encoder.layer.0.attention.attention.key.weight'),
    )
    refused(
        'attention.key.weight.* have shapes .*8, 7',
        edit=lambda tensors: tensors.update(
            {'encoder.layer.0.attention.attention.key.weight': np.zeros((8, 7), np.float16)}
        ),
    )
    refused(
        'attention.key.bias.* have shapes .*, .., ',
        edit=lambda tensors: tensors.update(
            {'encoder.layer.0.attention.attention.key.bias': np.float16(1)}
        ),
    )
    refused(
        'dinov2.embeddings.mask_token and embeddings.mask_token are both mask_token',
        edit=lambda tensors: tensors.update(
            {'dinov2.embeddings.mask_token': tensors['embeddings.mask_token']}
        ),
    )
    refused(
        'has blocks.0.attn.qkv.bias and, of it, blocks.0.attention.attention.query.bias, '
        '.*expected one or the other',
        edit=lambda tensors: tensors.update(
            {'encoder.layer.0.attn.qkv.bias': np.zeros(24, np.float16)}
        ),
    )
    cut = tmp_path / 'cut.safetensors'
    cut.write_bytes(micro_model('dinov2')[0].read_bytes()[:-100])
    with pytest.raises(UserError, match='cut.safetensors: is not a whole safetensors file'):
        dinov2.convert(cut)
