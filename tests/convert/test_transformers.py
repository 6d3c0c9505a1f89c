"""The encoders against the `transformers` package, on random weights. Skipped where torch or
transformers are not installed.

    python tests/convert/test_transformers.py

writes tests/convert/data: micro models under that package's names, an input and its output, for
    machines without torch.
"""

import math
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.convert import dinov2, dinov3
from re2pix_jax.nn.positions import resize_table

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

LIMIT = 1e-5  # largest difference over largest value
DATA = pathlib.Path(__file__).parent / 'data'
SIZES = {
    'hidden_size': 24,
    'num_hidden_layers': 3,
    'num_attention_heads': 3,
    'patch_size': 4,
    'image_size': 28,
}
MICRO = {
    'hidden_size': 8,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'patch_size': 2,
    'image_size': 10,
}
SMALL = {
    'hidden_size': 384,
    'num_hidden_layers': 12,
    'num_attention_heads': 6,
    'patch_size': 14,
    'image_size': 518,
}
GIANT = {
    'hidden_size': 1536,
    'num_hidden_layers': 1,
    'num_attention_heads': 24,
    'patch_size': 14,
    'image_size': 98,
}


def build(kind, **sizes):
    """A model of random weights: matrices that keep the size of what they turn, vectors about
    0.5.
    """
    torch.manual_seed(0)
    if kind == 'dinov3':
        hidden = sizes.pop('intermediate_size', 4 * sizes['hidden_size'])
        config = transformers.DINOv3ViTConfig(intermediate_size=hidden, **sizes)
        model = transformers.DINOv3ViTModel(config)
    elif sizes.get('num_register_tokens'):
        model = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**sizes)
        )
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    for parameter in model.parameters():
        vector = parameter.ndim == 1
        torch.nn.init.normal_(
            parameter,
            0.5 if vector else 0.0,
            0.2 if vector else max(1, math.prod(parameter.shape[1:])) ** -0.5,
        )
    return model.eval()


def features(model, images, layers):
    """[B, 3, H, W] -> chosen layers through the final norm, patches only: [B, h, w, C]."""
    final = model.layernorm if hasattr(model, 'layernorm') else model.norm
    with torch.no_grad():
        states = model(images, output_hidden_states=True).hidden_states
        kept = torch.cat([final(states[layer + 1]) for layer in layers], dim=-1)
    patch, front = model.config.patch_size, 1 + getattr(model.config, 'num_register_tokens', 0)
    return (
        kept[:, front:]
        .reshape(len(images), images.shape[2] // patch, images.shape[3] // patch, -1)
        .numpy()
    )


def compare(name, encoder, model, images):
    """Encoder against model: prints and returns the largest relative error."""
    net = encoder.net
    if (
        model.config.model_type == 'dinov2'
    ):  # the hub's code asks for 0.1 of a patch more than the grid, this package does not
        net = net.clone(offset=0.0)
    theirs = features(model, images, net.layers)
    ours = encoder.replace(net=net).encode(
        jnp.asarray(images.permute(0, 2, 3, 1).numpy())[:, None]
    )[:, 0]
    assert ours.shape == theirs.shape
    error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(f'{name}: {tuple(images.shape[2:])} pixels, largest relative error {error:.1e}')
    return error


def save(model, folder, in_memory):
    """The model as a folder, or under the names that it has in memory, which are others, in a
    file.
    """
    if in_memory:
        torch.save(model.state_dict(), folder / 'model.bin')
        return folder / 'model.bin'
    model.save_pretrained(folder)
    return folder / 'model.safetensors'


@pytest.mark.parametrize('kind', ['none', 'registers', 'swiglu'])
@pytest.mark.parametrize('in_memory', [False, True])
def test_dinov2(tmp_path, kind, in_memory):
    extra = {
        'none': {},
        'registers': {'num_register_tokens': 4},
        'swiglu': {'use_swiglu_ffn': True},
    }[kind]
    model = build('dinov2', **SIZES, **extra)
    encoder = dinov2.convert(save(model, tmp_path, in_memory), heads=3, layers=(0, 2))
    assert encoder.net.ffn == ('swiglu' if kind == 'swiglu' else 'mlp')
    for size in (
        (28, 28),
        (20, 44),
        (36, 16),
    ):  # the trained grid, and two that are neither it nor square
        assert compare(f'DINOv2 {kind}', encoder, model, torch.randn(2, 3, *size)) < LIMIT


@pytest.mark.parametrize(
    ('kind', 'extra'),
    [
        ('mlp', {'num_register_tokens': 4}),
        (
            'gated',
            {
                'num_register_tokens': 4,
                'use_gated_mlp': True,
                'hidden_act': 'silu',
                'intermediate_size': 48,
            },
        ),
        (
            'no bias, no registers',
            {'query_bias': False, 'value_bias': False, 'rope_theta': 30.0, 'layer_norm_eps': 1e-3},
        ),
    ],
)
@pytest.mark.parametrize('in_memory', [False, True])
def test_dinov3(tmp_path, kind, extra, in_memory):
    model = build('dinov3', **SIZES, **extra)
    path = save(model, tmp_path, in_memory)
    if in_memory:
        model.config.save_pretrained(tmp_path)  # beside the file
    encoder = dinov3.convert(path if in_memory else tmp_path, layers=(0, 2))
    for size in ((28, 28), (20, 44)):
        assert compare(f'DINOv3 {kind}', encoder, model, torch.randn(2, 3, *size)) < LIMIT


@pytest.mark.parametrize(
    ('name', 'kind', 'sizes'),
    [
        ('DINOv2 S', 'dinov2', SMALL),
        ('DINOv2 S with registers', 'dinov2', SMALL | {'num_register_tokens': 4}),
        ('one block of DINOv2 g', 'dinov2', GIANT | {'use_swiglu_ffn': True}),
        ('DINOv3 S', 'dinov3', SMALL | {'num_register_tokens': 4, 'patch_size': 16}),
    ],
)
def test_published_sizes(tmp_path, name, kind, sizes):
    model = build(kind, **sizes)
    path = save(model, tmp_path, False)
    layers = None if sizes['num_hidden_layers'] == 12 else (0,)
    encoder = (dinov2 if kind == 'dinov2' else dinov3).convert(path, layers=layers)
    patch = sizes['patch_size']
    assert compare(name, encoder, model, torch.randn(1, 3, 4 * patch, 9 * patch)) < LIMIT


@pytest.mark.parametrize(('antialias', 'offset'), [(True, 0.0), (False, 0.1)])
def test_position_tables_as_the_hub_resizes_them(antialias, offset):
    table = torch.randn(1, 6, 37, 37)
    size = (
        {'size': (16, 32)}
        if not offset
        else {'scale_factor': ((16 + offset) / 37, (32 + offset) / 37)}
    )
    theirs = (
        torch.nn.functional.interpolate(table, mode='bicubic', antialias=antialias, **size)[0]
        .permute(1, 2, 0)
        .numpy()
    )
    ours = resize_table(jnp.asarray(table[0].permute(1, 2, 0).numpy()), (16, 32), antialias, offset)
    error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(
        f'position table, antialias {antialias}, offset {offset}: largest relative error '
        f'{error:.1e}'
    )
    assert error < LIMIT


def write_data():
    from safetensors.torch import load_file, save_file

    for name, kind, extra in (
        ('dinov2', 'dinov2', {}),
        ('dinov2_registers', 'dinov2', {'num_register_tokens': 2}),
        ('dinov2_swiglu', 'dinov2', {'use_swiglu_ffn': True, 'mlp_ratio': 3}),
        ('dinov3', 'dinov3', {'num_register_tokens': 2, 'intermediate_size': 16}),
        (
            'dinov3_gated',
            'dinov3',
            {
                'num_register_tokens': 2,
                'use_gated_mlp': True,
                'hidden_act': 'silu',
                'intermediate_size': 16,
            },
        ),
    ):
        model = build(
            kind,
            **MICRO
            | ({'mlp_ratio': 2} if kind == 'dinov2' else {'num_attention_heads': 1})
            | extra,
        )
        for parameter in model.parameters():
            parameter.data = (
                parameter.data.half().float()
            )  # so that half the bytes hold them exactly
        side = (
            5 if name == 'dinov2' else 3
        )  # rows: see `compare` for why the plain one keeps its grid
        images = torch.randn(1, 3, 2 * side, 10)
        DATA.mkdir(exist_ok=True)
        model.save_pretrained(DATA / 'model')
        tensors = {
            key: tensor.half()
            for key, tensor in load_file(DATA / 'model' / 'model.safetensors').items()
        }
        outputs = {'input': images, 'output': torch.from_numpy(features(model, images, (0, 1)))}
        save_file(tensors | outputs, DATA / f'{name}.safetensors')
        for file in (DATA / 'model').iterdir():
            file.unlink()
        (DATA / 'model').rmdir()


if __name__ == '__main__':
    write_data()
