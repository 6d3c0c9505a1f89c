"""Turns published weights into a bundle that re2pix_jax.load opens.

    python -m re2pix_jax convert dinov2 dinov2_vitb14_reg4_pretrain.pth bundles/dinov2_b \
        --image_size 224x448
    python -m re2pix_jax convert dinov3 hf:facebook/dinov3-vitb16-pretrain-lvd1689m bundles/dinov3_b
    python -m re2pix_jax convert sd-vae hf:stabilityai/sd-vae-ft-mse bundles/vae
    python -m re2pix_jax convert dino-foresight lowres.ckpt bundles/forecaster --pca pca.pth
    python -m re2pix_jax convert dpt-head head_segm.ckpt bundles/head
    python -m re2pix_jax convert inception pt_inception-2015-12-05-6726825d.pth bundles/inception
    python -m re2pix_jax convert i3d rgb_imagenet.pt bundles/i3d
    python -m re2pix_jax convert lpips alexnet-owt-7be5be79.pth bundles/lpips --linear alex.pth

The source is a file (.pth, .pt, .ckpt, .bin, .safetensors), a folder as `transformers` and
`diffusers` save it, or hf:OWNER/REPO[/FOLDER][:FILE]. Nothing in a file is run. Every tensor is
used, or the command says which are not.
"""

# isort: split
import hashlib
import json
import pathlib

import jax
from absl import flags

from re2pix_jax import bundles
from re2pix_jax.bundles import hub
from re2pix_jax.convert import (
    autoencoder_kl,
    dino_foresight,
    dinov2,
    dinov3,
    dpt,
    i3d,
    inception,
    lpips,
    table,
)
from re2pix_jax.errors import UserError

_PCA = flags.DEFINE_string(
    'pca', None, 'File of the principal components (dino-foresight); none: those of the checkpoint.'
)
_ENCODER = flags.DEFINE_string(
    'encoder', None, 'Encoder bundle (dino-foresight); none: the encoder inside the checkpoint.'
)
_LAYERS = flags.DEFINE_list(
    'layers',
    None,
    'Zero-based blocks whose outputs are the features, e.g. 2,5,8,11 (dinov2, dinov3, '
    'dino-foresight).',
)
_HEADS = flags.DEFINE_integer(
    'heads',
    None,
    'Attention heads of the encoder, where it is of no published size (dinov2, dinov3, '
    'dino-foresight).',
    lower_bound=1,
)
_TRANSFORMER_HEADS = flags.DEFINE_integer(
    'transformer_heads',
    None,
    'Attention heads of the forecaster, where the checkpoint does not say (dino-foresight).',
    lower_bound=1,
)
_IMAGE_SIZE = flags.DEFINE_string(
    'image_size',
    None,
    'HEIGHTxWIDTH that frames are resized to (dinov2, dinov3, dino-foresight); none: '
    'as they come, or as the checkpoint says.',
)
_SCALING = flags.DEFINE_float(
    'scaling_factor', None, "What latents are multiplied by, instead of config.json's (sd-vae)."
)
_SHIFT = flags.DEFINE_float(
    'shift_factor',
    None,
    "What is subtracted from latents before that, instead of config.json's (sd-vae).",
)
_LINEAR = flags.DEFINE_string('linear', None, 'File of the linear weights (lpips).')
_STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Precision of the tensors in the bundle.'
)

FILES = ('model.safetensors', 'pytorch_model.bin')  # of a folder, the first that is there
PATTERNS = ['*.json', '*.safetensors', '*.bin', '*.pth', '*.pt', '*.ckpt']


def main(argv):
    _, kind, source, destination = argv
    if kind not in CONVERTERS:
        raise UserError(f'convert {kind}: expected as kind one of {", ".join(CONVERTERS)}')
    converter, taken = CONVERTERS[kind]
    _check_options(kind, taken)
    path = hub.fetch(source, PATTERNS) if source.startswith(hub.PREFIX) else pathlib.Path(source)
    if not path.exists():
        raise UserError(f'{source}: no such file or folder; give one, or hf:OWNER/REPO[:FILE]')
    with table.notes() as left_out:
        part = converter(path)
    bundles.save(
        destination,
        part,
        storage=_STORAGE.value,
        about={'converted from': f'{kind} {source}', **_origin(path)},
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(part))
    print(f'{destination}: {kind}, {count:,} parameters from {source}')
    if left_out:
        print(f'{destination}: left out on purpose: {"; ".join(left_out)}')


def _dinov2(path):
    file = _file(path)
    return dinov2.convert(
        file, _HEADS.value or _configured(file, 'num_attention_heads'), _layers(), _size()
    )


def _dinov3(path):
    return dinov3.convert(path, _HEADS.value, _layers(), _size())


def _sd_vae(path):
    return autoencoder_kl.convert(path, _SCALING.value, _SHIFT.value)


def _dino_foresight(path):
    if _ENCODER.value and (beside := _given(OF_ENCODER)):
        raise UserError(
            f'--encoder={_ENCODER.value}: takes the place of the encoder in the checkpoint, which '
            f'{" and ".join(beside)} would '
            'describe: give one or the other'
        )
    principal = dino_foresight.convert_principal(_PCA.value) if _PCA.value else None
    encoder = bundles.load(_ENCODER.value, 'encoder') if _ENCODER.value else None
    return dino_foresight.convert(
        _file(path), encoder, principal, _TRANSFORMER_HEADS.value, _HEADS.value, _layers(), _size()
    )


OF_ENCODER = ('heads', 'layers', 'image_size')
CONVERTERS = {  # kind: (what reads it, the options that it takes)
    'dinov2': (_dinov2, OF_ENCODER),
    'dinov3': (_dinov3, OF_ENCODER),
    'sd-vae': (_sd_vae, ('scaling_factor', 'shift_factor')),
    'dino-foresight': (_dino_foresight, ('pca', 'encoder', 'transformer_heads', *OF_ENCODER)),
    'dpt-head': (lambda path: dpt.convert(_file(path)), ()),
    'inception': (lambda path: inception.convert(_file(path)), ()),
    'i3d': (lambda path: i3d.convert(_file(path)), ()),
    'lpips': (lambda path: lpips.convert(_file(path), _LINEAR.value), ('linear',)),
}


def _check_options(kind: str, taken):
    """An option that would do nothing is a mistake."""
    strange = [
        flag
        for flag in _given(option for _, options in CONVERTERS.values() for option in options)
        if flag.removeprefix('--') not in taken
    ]
    known = [f'--{name}' for name in (*taken, 'storage')]
    if strange:
        raise UserError(
            f'convert {kind}: takes no {" or ".join(strange)}; it takes {", ".join(known)}: leave '
            'others away'
        )


def _given(options) -> list[str]:
    return [f'--{name}' for name in dict.fromkeys(options) if flags.FLAGS[name].value is not None]


def _file(path: pathlib.Path) -> pathlib.Path:
    """The weights in a folder; a file is itself."""
    if path.is_file():
        return path
    named = [path / name for name in FILES if (path / name).is_file()]
    found = named or [
        file
        for file in sorted(path.iterdir())
        if file.suffix in ('.safetensors', '.bin', '.pth', '.pt', '.ckpt')
    ]
    if not named and len(found) != 1:
        raise UserError(
            f'{path}: holds {len(found)} weight files, expected {" or ".join(FILES)} or a single '
            'file; name the file'
        )
    return found[0]


def _configured(file: pathlib.Path, name: str):
    """A field of the config.json beside the weights, None without one."""
    config = file.with_name('config.json')
    if not config.is_file():
        return None
    try:
        return json.loads(config.read_text()).get(name)
    except (ValueError, AttributeError) as error:
        raise UserError(
            f'{config}: is no JSON object ({error}); fetch it again or remove it'
        ) from error


def _layers():
    if _LAYERS.value is None:
        return None
    if not _LAYERS.value or not all(layer.isdigit() for layer in _LAYERS.value):
        raise UserError(
            f'--layers={",".join(_LAYERS.value)}: expected numbers of blocks from 0 on, such as '
            '2,5,8,11'
        )
    return tuple(int(layer) for layer in _LAYERS.value)


def _size():
    if _IMAGE_SIZE.value is None:
        return None
    sides = _IMAGE_SIZE.value.lower().split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise UserError(
            f'--image_size={_IMAGE_SIZE.value}: expected HEIGHTxWIDTH in pixels, for instance '
            '224x448'
        )
    return int(sides[0]), int(sides[1])


def _origin(path: pathlib.Path) -> dict:
    """What the bundle remembers of its source: the hash of the file."""
    if not path.is_file():
        return {}
    with open(path, 'rb') as file:
        return {'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


ARGUMENTS = ('kind', 'source', 'destination')
