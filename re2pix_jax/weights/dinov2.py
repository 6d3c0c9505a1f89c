"""DINOv2 weights: the hub's .pth files, and the same weights under the names of the `transformers` package."""

import re

import jax.numpy as jnp
import numpy as np

from re2pix_jax.encoder import Encoder, VisionTransformer
from re2pix_jax.errors import UserError
from re2pix_jax.weights import torch_file
from re2pix_jax.weights.kinds import KINDS, unflatten
from re2pix_jax.weights.table import Table, count, keep, layer, need, norm, patches

BLOCK, OURS = 'blocks.{}', 'params/blocks_{}'
TABLE = Table('DINOv2', (
    ('cls_token', 'params/cls_token', keep),
    ('pos_embed', 'params/pos_embed', keep),
    ('register_tokens', 'params/register_tokens', keep),
    ('mask_token', 'params/mask_token', keep),
    *layer('patch_embed.proj', 'params/patch_embed', patches),
    *norm(f'{BLOCK}.norm1', f'{OURS}/norm1'),
    *layer(f'{BLOCK}.attn.qkv', f'{OURS}/attn/qkv'),
    *layer(f'{BLOCK}.attn.proj', f'{OURS}/attn/proj'),
    (f'{BLOCK}.ls1.gamma', f'{OURS}/ls1/gamma', keep),
    *norm(f'{BLOCK}.norm2', f'{OURS}/norm2'),
    *layer(f'{BLOCK}.mlp.fc1', f'{OURS}/mlp/fc1'),
    *layer(f'{BLOCK}.mlp.fc2', f'{OURS}/mlp/fc2'),
    *layer(f'{BLOCK}.mlp.w12', f'{OURS}/mlp/w12'),
    *layer(f'{BLOCK}.mlp.w3', f'{OURS}/mlp/w3'),
    (f'{BLOCK}.ls2.gamma', f'{OURS}/ls2/gamma', keep),
    *norm('norm', 'params/norm'),
))

# transformers' name -> the hub's, in order. Its files and (since version 5) its state dicts differ: both are here.
RENAMED = (
    (r'^(dinov2|dinov2_with_registers|backbone)\.', ''),
    (r'^embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
    (r'^embeddings\.position_embeddings$', 'pos_embed'),
    (r'^embeddings\.', ''),
    (r'^encoder\.layer\.(\d+)\.', r'blocks.\1.'),
    (r'attention\.(output\.dense|o_proj)\.', 'attn.proj.'),
    (r'layer_scale(\d)\.lambda1$', r'ls\1.gamma'),
    (r'mlp\.weights_in\.', 'mlp.w12.'),
    (r'mlp\.(weights_out|down_proj)\.', 'mlp.w3.'),
    (r'^layernorm\.', 'norm.'),
)
# Layers that the hub holds fused: the names of their pieces in order, and the fused name.
FUSED = (
    (('attention.attention.query', 'attention.attention.key', 'attention.attention.value'), 'attn.qkv'),
    (('attention.q_proj', 'attention.k_proj', 'attention.v_proj'), 'attn.qkv'),
    (('mlp.gate_proj', 'mlp.up_proj'), 'mlp.w12'),
)
HEADS = {384: 6, 768: 12, 1024: 16, 1536: 24}  # of the published sizes; a state dict does not hold it
LAYERS = {12: (2, 5, 8, 11), 24: (4, 11, 17, 23), 40: (9, 19, 29, 39)}  # by depth; 12 is published, the others are [O]


def to_hub_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict of `transformers`' Dinov2Model or Dinov2WithRegistersModel under the hub's names; others pass unchanged."""
    if not any(key.endswith('embeddings.cls_token') for key in tensors):
        return tensors
    renamed = {}
    for key, array in tensors.items():
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        renamed[key] = array
    for pieces, fused in FUSED:
        for key in [key for key in renamed if f'.{pieces[0]}.' in key]:
            names = [key.replace(pieces[0], piece) for piece in pieces]
            lacking = [name for name in names if name not in renamed]
            if lacking:
                raise UserError(f'{key}: the file lacks {", ".join(lacking)}, which belong to it')
            renamed[key.replace(pieces[0], fused)] = np.concatenate([renamed.pop(name) for name in names])
    return renamed


def network_of(tensors: dict[str, np.ndarray], where, heads: int | None = None, layers=None) -> VisionTransformer:
    """The network whose sizes the tensors (hub names) show; `heads` and `layers` are needed for sizes that are not published."""
    kernel = need(tensors, 'patch_embed.proj.weight', 4, where)
    table = need(tensors, 'pos_embed', 3, where)
    width, depth = kernel.shape[0], count(tensors, 'blocks.{}.')
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1:
        raise UserError(f'{where}: a position table of {table.shape[1] - 1} places is not square')
    heads, layers = heads or HEADS.get(width), layers or LAYERS.get(depth)
    if heads is None or layers is None:
        raise UserError(f'{where}: width {width} and depth {depth} are not those of a published DINOv2: say how many heads it '
                        f'has and which layers are its features')
    registers = tensors['register_tokens'].shape[1] if 'register_tokens' in tensors else 0
    swiglu = any('.mlp.w12.' in key for key in tensors)
    ratio = 4.0
    if not swiglu and 'blocks.0.mlp.fc1.weight' in tensors:
        ratio = tensors['blocks.0.mlp.fc1.weight'].shape[0] / width
    return VisionTransformer(
        patch_size=kernel.shape[2], width=width, depth=depth, heads=heads, registers=registers, layers=tuple(layers),
        position_grid=(side, side), ffn='swiglu' if swiglu else 'mlp', mlp_ratio=ratio,
        antialias=registers > 0, offset=0.0 if registers else 0.1)


def encoder_of(tensors: dict[str, np.ndarray], where, heads=None, layers=None, image_size=None) -> Encoder:
    """A DINOv2 state dict, under either naming, as an `Encoder`."""
    tensors = to_hub_names(tensors)
    net = network_of(tensors, where, heads, layers)
    expected = KINDS['encoder'].expected(net, {}, {}, str(where))
    flat = TABLE.convert(tensors, expected, where)
    return Encoder(unflatten({path: jnp.asarray(array) for path, array in flat.items()}), net, image_size)


def convert(path, heads: int | None = None, layers: tuple[int, ...] | None = None,
            image_size: tuple[int, int] | None = None) -> Encoder:
    """Reads a DINOv2 file (.pth of the hub; .bin or .safetensors of `transformers`).

    Args:
        path: the file.
        heads, layers: known for the published sizes; otherwise required.
        image_size: what the encoder resizes frames to, such as (224, 448).
    """
    return encoder_of(torch_file.tensors(path), path, heads, layers, image_size)
