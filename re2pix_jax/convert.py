"""Turns published weights into a bundle that re2pix_jax.load opens.

    python -m re2pix_jax.convert dinov2 dinov2_vitb14_reg4_pretrain.pth bundles/dinov2_b --image_size 224x448
    python -m re2pix_jax.convert dinov3 hf:facebook/dinov3-vitb16-pretrain-lvd1689m bundles/dinov3_b
    python -m re2pix_jax.convert sd-vae hf:stabilityai/sd-vae-ft-mse bundles/vae
    python -m re2pix_jax.convert dino-foresight lowres.ckpt bundles/forecaster --pca pca.pth
    python -m re2pix_jax.convert dpt-head head_segm.ckpt bundles/head
    python -m re2pix_jax.convert inception pt_inception-2015-12-05-6726825d.pth bundles/inception
    python -m re2pix_jax.convert i3d rgb_imagenet.pt bundles/i3d
    python -m re2pix_jax.convert lpips alexnet-owt-7be5be79.pth bundles/lpips --linear alex.pth

The source is a file (.pth, .pt, .ckpt, .bin, .safetensors), a folder as `transformers` and `diffusers` save it, or
hf:OWNER/REPO[:FILE]. Nothing in a file is run. Every tensor is used, or the command says which are not.
"""

from re2pix_jax import cli  # first: it quietens what the native libraries print while they load

# isort: split
import hashlib
import json
import pathlib

import jax
from absl import flags

from re2pix_jax import weights
from re2pix_jax.errors import UserError
from re2pix_jax.weights import autoencoder_kl, dino_foresight, dinov2, dinov3, dpt, hub, i3d, inception, lpips

_PCA = flags.DEFINE_string('pca', None, 'File of the principal components (dino-foresight); none: those of the checkpoint.')
_ENCODER = flags.DEFINE_string('encoder', None, 'Encoder bundle (dino-foresight); none: the encoder inside the checkpoint.')
_LAYERS = flags.DEFINE_list('layers', None, 'Zero-based blocks whose outputs are the features, e.g. 2,5,8,11 (dinov2, dinov3).')
_HEADS = flags.DEFINE_integer('heads', None, 'Attention heads, where the file is of no published size.', lower_bound=1)
_IMAGE_SIZE = flags.DEFINE_string('image_size', None, 'HEIGHTxWIDTH that frames are resized to (encoders); none: as they come.')
_LINEAR = flags.DEFINE_string('linear', None, 'File of the linear weights (lpips).')
_STORAGE = flags.DEFINE_enum('storage', 'float32', ['float32', 'float16'], 'Precision of the tensors in the bundle.')

FILES = ('model.safetensors', 'pytorch_model.bin')  # of a folder, the first that is there
PATTERNS = ['*.json', '*.safetensors', '*.bin', '*.pth', '*.pt', '*.ckpt']


def main(argv):
    _, kind, source, destination = argv
    if kind not in CONVERTERS:
        raise UserError(f'convert {kind}: expected as kind one of {", ".join(CONVERTERS)}')
    path = hub.fetch(source, PATTERNS) if source.startswith(hub.PREFIX) else pathlib.Path(source)
    if not path.exists():
        raise UserError(f'{source}: no such file or folder; give one, or hf:OWNER/REPO[:FILE]')
    part = CONVERTERS[kind](path)
    weights.save(destination, part, storage=_STORAGE.value, about={'converted from': f'{kind} {source}', **_origin(path)})
    count = sum(leaf.size for leaf in jax.tree.leaves(part))
    print(f'{destination}: {kind}, {count:,} parameters from {source}')


def _dinov2(path):
    file = _file(path)
    return dinov2.convert(file, _HEADS.value or _configured(file, 'num_attention_heads'), _layers(), _size())


def _dinov3(path):
    return dinov3.convert(path, layers=_layers(), image_size=_size())


def _dino_foresight(path):
    principal = dino_foresight.convert_principal(_PCA.value) if _PCA.value else None
    encoder = weights.load(_ENCODER.value, 'encoder') if _ENCODER.value else None
    return dino_foresight.convert(_file(path), encoder, principal, encoder_heads=_HEADS.value)


CONVERTERS = {
    'dinov2': _dinov2, 'dinov3': _dinov3, 'sd-vae': autoencoder_kl.convert, 'dino-foresight': _dino_foresight,
    'dpt-head': lambda path: dpt.convert(_file(path)), 'inception': lambda path: inception.convert(_file(path)),
    'i3d': lambda path: i3d.convert(_file(path)), 'lpips': lambda path: lpips.convert(_file(path), _LINEAR.value),
}


def _file(path: pathlib.Path) -> pathlib.Path:
    """The weights in a folder; a file is itself."""
    if path.is_file():
        return path
    named = [path / name for name in FILES if (path / name).is_file()]
    found = named or [file for file in sorted(path.iterdir()) if file.suffix in ('.safetensors', '.bin', '.pth', '.pt', '.ckpt')]
    if not named and len(found) != 1:
        raise UserError(f'{path}: holds {len(found)} weight files, expected {" or ".join(FILES)} or a single file; name the file')
    return found[0]


def _configured(file: pathlib.Path, name: str):
    """A field of the config.json beside the weights, None without one."""
    config = file.with_name('config.json')
    if not config.is_file():
        return None
    try:
        return json.loads(config.read_text()).get(name)
    except (ValueError, AttributeError) as error:
        raise UserError(f'{config}: is no JSON object ({error}); fetch it again or remove it') from error


def _layers():
    if _LAYERS.value is None:
        return None
    if not _LAYERS.value or not all(layer.isdigit() for layer in _LAYERS.value):
        raise UserError(f'--layers={",".join(_LAYERS.value)}: expected numbers of blocks from 0 on, such as 2,5,8,11')
    return tuple(int(layer) for layer in _LAYERS.value)


def _size():
    if _IMAGE_SIZE.value is None:
        return None
    sides = _IMAGE_SIZE.value.lower().split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise UserError(f'--image_size={_IMAGE_SIZE.value}: expected HEIGHTxWIDTH in pixels, for instance 224x448')
    return int(sides[0]), int(sides[1])


def _origin(path: pathlib.Path) -> dict:
    """What the bundle remembers of its source: the hash of the file."""
    if not path.is_file():
        return {}
    with open(path, 'rb') as file:
        return {'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


if __name__ == '__main__':
    cli.run(main, arguments=('kind', 'source', 'destination'))
