"""DINOv2 weights: the hub's .pth files, and the same weights under the names of the `transformers`
package.
"""

import functools
import re

import numpy as np

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.bundles.stored import Stored
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.table import Table, count, keep, layer, need, norm, patches, rename
from re2pix_jax.encoder import Encoder, VisionTransformer
from re2pix_jax.errors import UserError

BLOCK, OURS = 'blocks.{}', 'params/blocks'
TABLE = Table(
    'DINOv2',
    (
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
    ),
    ignored=tuple((f'{head}_head.*', 'a head of its training') for head in ('dino', 'ibot')),
)

# transformers' name -> the hub's, in order. Its files and (since version 5) its state dicts differ:
# both are here.
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
    (
        ('attention.attention.query', 'attention.attention.key', 'attention.attention.value'),
        'attn.qkv',
    ),
    (('attention.q_proj', 'attention.k_proj', 'attention.v_proj'), 'attn.qkv'),
    (('mlp.gate_proj', 'mlp.up_proj'), 'mlp.w12'),
)
HEADS = {
    384: 6,
    768: 12,
    1024: 16,
    1536: 24,
}  # of the published sizes; a state dict does not hold it
LAYERS = {
    12: (2, 5, 8, 11),
    24: (4, 11, 17, 23),
    32: (7, 15, 23, 31),
    40: (9, 19, 29, 39),
}  # by depth; 12 is [P], others [O]


def to_hub_names(tensors: dict[str, np.ndarray | Stored], where) -> dict[str, np.ndarray | Stored]:
    """A state dict of `transformers`' Dinov2Model or Dinov2WithRegistersModel under the hub's
    names; others pass unchanged.
    """
    if not any(key.endswith('embeddings.cls_token') for key in tensors):
        return tensors

    def hub_name(key):
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        return key

    return fuse(rename(tensors, hub_name, where), FUSED, where)


def fuse(tensors: dict, groups, where, required: tuple[str, ...] = ('weight', 'bias')) -> dict:
    """Joins, along their first axis, the layers that a file holds in pieces; nothing is read before
    it is needed.

    Args:
        tensors: by name.
        groups: (names of the pieces in order, name of the whole), each a part of a name between
            dots.
        where: the file, for messages.
        required: which of 'weight' and 'bias' must have every piece; the other is joined of the
            pieces there are.

    Raises:
        UserError: a piece is missing, is not as wide as the others, or is there beside the whole.
    """
    joined = dict(tensors)
    for pieces, fused in groups:
        starts = {
            (key.partition(f'.{piece}.')[0], key.rpartition('.')[2])
            for piece in pieces
            for key in tensors
            if f'.{piece}.' in key
        }
        for start, end in sorted(starts):
            names = [f'{start}.{piece}.{end}' for piece in pieces]
            held = [name for name in names if name in joined]
            lacking = [name for name in names if name not in joined]
            if lacking and end in required:
                raise UserError(
                    f'{where}: has {held[0]} and lacks {", ".join(lacking)}, which belong to it: '
                    'fetch it again'
                )
            arrays = [joined.pop(name) for name in held]
            if len({tuple(array.shape[1:]) for array in arrays}) > 1 or not all(
                array.ndim for array in arrays
            ):
                raise UserError(
                    f'{where}: {", ".join(held)} have shapes '
                    f'{", ".join(str(list(array.shape)) for array in arrays)}: expected the same '
                    'but for the first side; fetch the file again'
                )
            shape = (sum(array.shape[0] for array in arrays), *arrays[0].shape[1:])
            if f'{start}.{fused}.{end}' in joined:
                raise UserError(
                    f'{where}: has {start}.{fused}.{end} and, of it, {", ".join(held)}: expected '
                    'one or the other'
                )
            joined[f'{start}.{fused}.{end}'] = Stored(
                shape, arrays[0].dtype, functools.partial(_joined, arrays)
            )
    return joined


def _joined(arrays) -> np.ndarray:
    return np.concatenate([np.asarray(array) for array in arrays])


def feed_forward(down, gated: bool) -> dict:
    """The network's fields `ffn` and `mlp_ratio`, given the last weight [width, hidden] of a
    block's MLP or SwiGLU (gated).
    """
    width, hidden = down.shape
    if gated:
        return {
            'ffn': 'swiglu',
            'mlp_ratio': 1.5 * hidden / width,
        }  # of which SwiGLU takes two thirds
    return {'ffn': 'mlp', 'mlp_ratio': hidden / width}


def network_of(
    tensors: dict[str, np.ndarray | Stored], where, heads: int | None = None, layers=None
) -> VisionTransformer:
    """The network whose sizes the tensors (hub names) show; `heads` and `layers` are needed for
    sizes that are not published.
    """
    kernel = need(tensors, 'patch_embed.proj.weight', 4, where)
    table = need(tensors, 'pos_embed', 3, where)
    width, depth = kernel.shape[0], count(tensors, 'blocks.{}.')
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1:
        raise UserError(f'{where}: a position table of {table.shape[1] - 1} places is not square')
    heads, layers = heads or HEADS.get(width), layers or LAYERS.get(depth)
    if heads is None or layers is None:
        raise UserError(
            f'{where}: width {width} and depth {depth} are not those of a published DINOv2: say '
            'how many heads it has and which layers are its features (--heads, --layers)'
        )
    registers = (
        need(tensors, 'register_tokens', 3, where).shape[1] if 'register_tokens' in tensors else 0
    )
    gated = any('.mlp.w12.' in key for key in tensors)
    down = need(tensors, f'blocks.0.mlp.{"w3" if gated else "fc2"}.weight', 2, where)
    return VisionTransformer(
        patch_size=kernel.shape[2],
        width=width,
        depth=depth,
        heads=heads,
        registers=registers,
        layers=tuple(layers),
        position_grid=(side, side),
        **feed_forward(down, gated),
        antialias=registers > 0,
        offset=0.0 if registers else 0.1,
    )


def encoder_of(
    tensors: dict[str, np.ndarray], where, heads=None, layers=None, image_size=None
) -> Encoder:
    """A DINOv2 state dict, under either naming, as an `Encoder`."""
    rotary = any(
        key.startswith('rope_embed') or key.endswith('layer.0.attention.q_proj.weight')
        for key in tensors
    )
    if rotary and not any(key.endswith(('pos_embed', 'position_embeddings')) for key in tensors):
        raise UserError(
            f'{where}: has no position table, as DINOv3: expected DINOv2, which has one; convert '
            'it as dinov3'
        )
    # Its training saves the encoder beside heads, its blocks in chunks.
    bare = lambda key: re.sub(
        r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.', key.removeprefix('backbone.')
    )
    tensors = to_hub_names(rename(tensors, bare, where), where)
    net = network_of(tensors, where, heads, layers)
    expected = KINDS['encoder'].expected(net, {}, {}, str(where))
    return Encoder(TABLE.convert(tensors, expected, where), net, image_size)


def convert(
    path,
    heads: int | None = None,
    layers: tuple[int, ...] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Encoder:
    """Reads a DINOv2 file (.pth of the hub; .bin or .safetensors of `transformers`).

    Args:
        path: the file.
        heads, layers: known for the published sizes; otherwise required.
        image_size: what the encoder resizes frames to, such as (224, 448).
    """
    return encoder_of(torch_file.tensors(path), path, heads, layers, image_size)
