"""AutoencoderKL weights as diffusers saves them, or under latent-diffusion's names (`ldm`): Stable
Diffusion 1 and 2, SD3, FLUX and everything else of that class.
"""

import pathlib
from typing import Annotated, TypedDict

from re2pix_jax import schema
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import ldm, torch_file
from re2pix_jax.convert.table import Table, conv, count, layer, need, norm
from re2pix_jax.errors import UserError
from re2pix_jax.vae import Autoencoder, AutoencoderKL

FILES = tuple(
    f'diffusion_pytorch_model{kind}'
    for kind in (
        *('.safetensors', '.fp16.safetensors', '.bin', '.fp16.bin'),
        *('.safetensors.index.json', '.bin.index.json'),
    )
)


class Settings(TypedDict, total=False):
    """What is read from config.json."""

    block_out_channels: list[schema.Positive]
    layers_per_block: Annotated[int, schema.Within(1, 64)]
    latent_channels: schema.Positive
    norm_num_groups: schema.Positive
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool
    scaling_factor: float
    shift_factor: float | None


DEFAULTS: Settings = {  # what the silence of a config means
    'block_out_channels': [64],
    'layers_per_block': 1,
    'latent_channels': 4,
    'norm_num_groups': 32,
    'use_quant_conv': True,
    'use_post_quant_conv': True,
    'mid_block_add_attention': True,
    'scaling_factor': 0.18215,
    'shift_factor': None,
}
# Those that have only one value here.
FIXED = {
    '_class_name': 'AutoencoderKL',
    'act_fn': 'silu',
    'in_channels': 3,
    'out_channels': 3,
    'latents_mean': None,
    'latents_std': None,
}
BLOCKS = {'down_block_types': 'DownEncoderBlock2D', 'up_block_types': 'UpDecoderBlock2D'}
NORM_GROUPS = 32  # of every published file; tensors do not show it


def projection(array):
    """torch Linear [out, in], or the 1x1 Conv2d [out, in, 1, 1] that it once was -> kernel [in,
    out].
    """
    return array.reshape(array.shape[:2]).T


def _resnet(theirs: str, ours: str) -> list:
    return [
        *norm(f'{theirs}.norm1', f'{ours}/norm1'),
        *layer(f'{theirs}.conv1', f'{ours}/conv1', conv),
        *norm(f'{theirs}.norm2', f'{ours}/norm2'),
        *layer(f'{theirs}.conv2', f'{ours}/conv2', conv),
        *layer(f'{theirs}.conv_shortcut', f'{ours}/conv_shortcut', conv),
    ]


def _half(name: str, direction: str) -> list:
    """The encoder (direction 'down') or the decoder ('up')."""
    theirs, ours = f'{name}.{direction}_blocks.{{}}', f'params/{name}/{direction}_blocks_{{}}'
    attention = f'{name}.mid_block.attentions.0', f'params/{name}/mid_block/attentions_0'
    # Before diffusers 0.13 the projections had other names; files from then are still about.
    projections = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
    return [
        *layer(f'{name}.conv_in', f'params/{name}/conv_in', conv),
        *_resnet(f'{theirs}.resnets.{{}}', f'{ours}/resnets_{{}}'),
        *layer(f'{theirs}.{direction}samplers.0.conv', f'{ours}/{direction}samplers_0/conv', conv),
        *_resnet(f'{name}.mid_block.resnets.{{}}', f'params/{name}/mid_block/resnets_{{}}'),
        *norm(f'{attention[0]}.group_norm', f'{attention[1]}/group_norm'),
        *[
            rule
            for new, old in projections.items()
            for key in (new, old)
            for rule in layer(
                f'{attention[0]}.{key}', f'{attention[1]}/{new.replace(".", "_")}', projection
            )
        ],
        *norm(f'{name}.conv_norm_out', f'params/{name}/conv_norm_out'),
        *layer(f'{name}.conv_out', f'params/{name}/conv_out', conv),
    ]


TABLE = Table(
    'AutoencoderKL',
    (
        *_half('encoder', 'down'),
        *_half('decoder', 'up'),
        *layer('quant_conv', 'params/quant_conv', conv),
        *layer('post_quant_conv', 'params/post_quant_conv', conv),
    ),
)


def locate(path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The file of tensors and, where there is one, the config.json of a model folder, a pipeline
    folder or a file.

    Raises:
        UserError: if a folder lacks either of them.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        config = path.with_name('config.json')
        return path, config if config.is_file() else None
    folder = path / 'vae' if (path / 'vae').is_dir() else path
    files = [folder / name for name in FILES if (folder / name).is_file()]
    if not files or not (folder / 'config.json').is_file():
        raise UserError(
            f'{folder}: is no folder of a diffusers autoencoder: expected config.json and '
            f'{FILES[0]} (or {FILES[2]}) in it, or a folder vae that holds them'
        )
    return files[0], folder / 'config.json'


def settings_of(config: dict, where) -> Settings:
    """What a config says.

    Raises:
        UserError: if it asks for anything that `AutoencoderKL` here does not compute.
    """
    config = {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
    }
    found = schema.check(config, Settings, where, 'fetch it again')
    settings = DEFAULTS | {name: found[name] for name in DEFAULTS if name in found}
    widths = settings['block_out_channels']
    fixed = FIXED | {name: [block] * len(widths) for name, block in BLOCKS.items()}
    strange = [
        f'{name} {config[name]!r} and not {value!r}'
        for name, value in fixed.items()
        if config.get(name, value) != value
    ]
    if settings['use_quant_conv'] != settings['use_post_quant_conv']:
        strange.append('only one of use_quant_conv and use_post_quant_conv')
    if strange:
        raise UserError(
            f'{where}: its config asks for what is not implemented here: {"; ".join(strange)}: '
            'choose another autoencoder'
        )
    return settings


def settings_in(tensors: dict, where) -> dict:
    """Those settings that the tensors themselves show, under the names of a config.json."""
    blocks = count(tensors, 'encoder.down_blocks.{}.')
    widths = [
        need(tensors, f'encoder.down_blocks.{index}.resnets.0.conv1.weight', 4, where).shape[0]
        for index in range(max(blocks, 1))
    ]
    return {
        'block_out_channels': widths,
        'layers_per_block': count(tensors, 'encoder.down_blocks.0.resnets.{}.'),
        'latent_channels': need(tensors, 'decoder.conv_in.weight', 4, where).shape[1],
        'norm_num_groups': NORM_GROUPS,
        'use_quant_conv': 'quant_conv.weight' in tensors,
        'mid_block_add_attention': any('.mid_block.attentions.' in key for key in tensors),
    }


def autoencoder_of(
    tensors: dict,
    config: dict | None,
    where,
    scaling_factor: float | None = None,
    shift_factor: float | None = None,
) -> Autoencoder:
    """A state dict of diffusers' AutoencoderKL and its config (None: sizes are read from the
    tensors) as an `Autoencoder`.
    """
    settings = settings_in(tensors, where) if config is None else settings_of(config, where)
    net = AutoencoderKL(
        block_out_channels=tuple(settings['block_out_channels']),
        layers_per_block=settings['layers_per_block'],
        latent_channels=settings['latent_channels'],
        norm_groups=settings['norm_num_groups'],
        quant_conv=settings['use_quant_conv'],
        mid_attention=settings['mid_block_add_attention'],
    )
    params = TABLE.convert(tensors, KINDS['vae'].expected(net, {}, {}, str(where)), where)
    scale = settings['scaling_factor'] if scaling_factor is None else scaling_factor
    shift = settings['shift_factor'] if shift_factor is None else shift_factor
    return Autoencoder(params, net, float(scale), float(shift or 0.0))


def convert(
    path, scaling_factor: float | None = None, shift_factor: float | None = None
) -> Autoencoder:
    """Reads an AutoencoderKL of diffusers.

    Args:
        path: its folder (config.json, diffusion_pytorch_model.safetensors or .bin), a pipeline's
            folder with `vae` inside, or the file itself. Sizes come from the config.json beside the
            file, else from the tensors.
        scaling_factor, shift_factor: used instead of config.json's; both are needed where there is
            none.

    Raises:
        UserError: if a file is missing or damaged, or something in it does not fit; all tensors
            that do not are in one message.
    """
    file, config = locate(path)
    if config is None and (scaling_factor is None or shift_factor is None):
        raise UserError(
            f'{file}: has no config.json beside it, which says how latents are scaled: put it '
            'there, or pass --scaling_factor and --shift_factor'
        )
    return autoencoder_of(
        ldm.to_diffusers_names(torch_file.tensors(file), file),
        schema.read_json(config, dict) if config else None,
        file,
        scaling_factor,
        shift_factor,
    )
