"""DINOv3 vision transformers as the `transformers` package stores them: a folder, or a file of
tensors alone.
"""

import pathlib
from typing import TypedDict

from re2pix_jax import schema
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.dinov2 import LAYERS, feed_forward, fuse
from re2pix_jax.convert.table import (
    Table,
    count,
    keep,
    layer,
    left_out,
    need,
    norm,
    patches,
    rename,
)
from re2pix_jax.encoder import IMAGE_MEAN, IMAGE_STD, Encoder, VisionTransformer
from re2pix_jax.errors import UserError

MODEL_TYPE = 'dinov3_vit'
HEADS = {
    384: 6,
    768: 12,
    1024: 16,
    1280: 20,
    4096: 32,
}  # of the published sizes S, S+; B; L; H+; 7B
REGISTERS = 'embeddings.register_tokens'
BLOCK, OURS = 'layer.{}', 'params/blocks'
QKV, GATE_UP = (
    'attention.(q,k,v)_proj',
    'mlp.(gate,up)_proj',
)  # what pieces are called once they are joined
_QKV_PIECES = (tuple(f'attention.{name}_proj' for name in 'qkv'), QKV)
JOINED = {
    'mlp': (_QKV_PIECES,),
    'swiglu': (_QKV_PIECES, (('mlp.gate_proj', 'mlp.up_proj'), GATE_UP)),
}


_Colour = tuple[float, float, float]


class Config(TypedDict, total=False):
    """What is read of config.json."""

    num_attention_heads: schema.Positive
    rope_theta: schema.PositiveNumber
    layer_norm_eps: schema.PositiveNumber
    hidden_act: str


def _inner(array):
    """(1, 1, width) -> (1, width)."""
    return array[0]


def _table(*feed_forward_rules) -> Table:
    return Table(
        'DINOv3',
        (
            ('embeddings.cls_token', 'params/cls_token', keep),
            ('embeddings.register_tokens', 'params/register_tokens', keep),
            ('embeddings.mask_token', 'params/mask_token', _inner),
            *layer('embeddings.patch_embeddings', 'params/patch_embed', patches),
            *norm(f'{BLOCK}.norm1', f'{OURS}/norm1'),
            *layer(f'{BLOCK}.{QKV}', f'{OURS}/attn/qkv'),
            *layer(f'{BLOCK}.attention.o_proj', f'{OURS}/attn/proj'),
            (f'{BLOCK}.layer_scale1.lambda1', f'{OURS}/ls1/gamma', keep),
            *norm(f'{BLOCK}.norm2', f'{OURS}/norm2'),
            *feed_forward_rules,
            (f'{BLOCK}.layer_scale2.lambda1', f'{OURS}/ls2/gamma', keep),
            *norm('norm', 'params/norm'),
        ),
    )


TABLES = {
    'mlp': _table(
        *layer(f'{BLOCK}.mlp.up_proj', f'{OURS}/mlp/fc1'),
        *layer(f'{BLOCK}.mlp.down_proj', f'{OURS}/mlp/fc2'),
    ),
    'swiglu': _table(
        *layer(f'{BLOCK}.{GATE_UP}', f'{OURS}/mlp/w12'),
        *layer(f'{BLOCK}.mlp.down_proj', f'{OURS}/mlp/w3'),
    ),
}


def network_of(
    tensors: dict, config: dict, where, heads: int | None = None, layers=None
) -> VisionTransformer:
    """The network that tensors (names as stored) and config.json (empty: as published) describe;
    see `convert`.
    """
    kernel = need(tensors, 'embeddings.patch_embeddings.weight', 4, where)
    width, depth = kernel.shape[0], count(tensors, f'{BLOCK}.')
    heads, layers = (
        heads or config.get('num_attention_heads') or HEADS.get(width),
        layers or LAYERS.get(depth),
    )
    if heads is None or layers is None:
        raise UserError(
            f'{where}: width {width} and depth {depth} are not those of a published DINOv3: say '
            'how many heads it has and which layers are its features (--heads, --layers)'
        )
    gated = 'layer.0.mlp.gate_proj.weight' in tensors
    needed = 'silu' if gated else 'gelu'
    if config.get('hidden_act', needed) != needed:
        raise UserError(
            f'{where}: config.json says hidden_act {config["hidden_act"]!r}: expected {needed!r}, '
            'as published; correct it or use a published model'
        )
    registers = need(tensors, REGISTERS, 3, where).shape[1] if REGISTERS in tensors else 0
    return VisionTransformer(
        patch_size=kernel.shape[2],
        width=width,
        depth=depth,
        heads=heads,
        registers=registers,
        layers=tuple(layers),
        position_grid=None,
        **feed_forward(need(tensors, 'layer.0.mlp.down_proj.weight', 2, where), gated),
        theta=float(config.get('rope_theta', 100.0)),
        norm_eps=float(config.get('layer_norm_eps', 1e-5)),
        biased=''.join(name for name in 'qkv' if f'layer.0.attention.{name}_proj.bias' in tensors),
    )


def encoder_of(
    tensors: dict, config: dict, where, heads=None, layers=None, image_size=None
) -> Encoder:
    """A state dict of `transformers`' DINOv3ViTModel, as in its files or (with `model.` in front of
    layers) in memory.
    """
    tensors = rename(tensors, lambda name: name.removeprefix('model.'), where)
    if any(name.endswith(('pos_embed', 'position_embeddings')) for name in tensors):
        raise UserError(
            f'{where}: has a learned position table, as DINOv2: expected DINOv3, which has none; '
            'convert it as dinov2'
        )
    if 'embeddings.patch_embeddings.weight' not in tensors:
        raise UserError(
            f'{where}: has no tensor embeddings.patch_embeddings.weight: expected DINOv3 as the '
            'transformers package stores it; give such a folder, or its model.safetensors'
        )
    if REGISTERS in tensors and not tensors[REGISTERS].size:
        del tensors[REGISTERS]
        left_out([REGISTERS], REGISTERS, 'empty')
    net = network_of(tensors, config, where, heads, layers)
    expected = KINDS['encoder'].expected(net, {}, {}, str(where))
    # A bias is joined of those that exist: none of the published keys has one, and 7B has none at
    # all.
    params = TABLES[net.ffn].convert(
        fuse(tensors, JOINED[net.ffn], where, required=('weight',)), expected, where
    )
    return Encoder(params, net, image_size)


def convert(
    path,
    heads: int | None = None,
    layers: tuple[int, ...] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Encoder:
    """Reads a DINOv3 of `transformers`.

    Args:
        path: its folder (config.json and one or several model*.safetensors or else
            pytorch_model*.bin, as their index lists them if it is there), or a file of tensors. A
            config.json beside the file is read too; without one, what the tensors do not show is
            taken as published. A preprocessor_config.json must say that images are normalised as
            they are here.
        heads: of attention; None for those of config.json, or of the published size.
        layers: zero-based blocks whose outputs are the features; None for a depth that is
            published.
        image_size: what the encoder resizes frames to, such as (256, 512).

    Raises:
        UserError: a file is missing or damaged, is of another kind or size, or holds tensors that
            do not fit.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    config = _config(folder / 'config.json')
    _check_normalisation(folder / 'preprocessor_config.json')
    files = (
        sorted(path.glob('model.safetensors.index.json'))
        or sorted(path.glob('model*.safetensors'))
        or sorted(path.glob('pytorch_model.bin.index.json'))
        or sorted(path.glob('pytorch_model*.bin'))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise UserError(
            f'{path}: is a folder without model.safetensors: expected DINOv3 as the transformers '
            'package stores it'
        )
    tensors: dict = {}
    for file in files:
        more = torch_file.tensors(file)
        if twice := sorted(set(tensors) & set(more)):
            raise UserError(
                f'{path}: holds {twice[0]} in {file.name} and in another file: expected one model; '
                'name the file'
            )
        tensors |= more
    return encoder_of(tensors, config, path, heads, layers, image_size)


def _config(file: pathlib.Path) -> Config:
    if not file.is_file():
        return {}
    config = schema.read_json(file, dict)
    if config.get('model_type') != MODEL_TYPE:
        raise UserError(
            f'{file}: says model_type {config.get("model_type")!r}: expected {MODEL_TYPE!r}; '
            'convert it as the kind it is'
        )
    return schema.check(config, Config, file, 'fetch it again')


def _check_normalisation(file: pathlib.Path) -> None:
    """Refuses models of other images than the web's: those trained on satellites' normalise by
    another mean and deviation.
    """
    if not file.is_file():
        return
    config, again = schema.read_json(file, dict), 'choose a model that was trained on web images'
    for name, ours in (('image_mean', IMAGE_MEAN), ('image_std', IMAGE_STD)):
        theirs = schema.check(config.get(name, list(ours)), _Colour, f'{file}: {name}', again)
        if any(abs(value - own) > 1e-4 for value, own in zip(theirs, ours)):
            raise UserError(
                f'{file}: says {name} {theirs}: expected {list(ours)}, by which frames are '
                f'normalised here; {again} (lvd1689m)'
            )
