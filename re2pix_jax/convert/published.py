"""Every kind of published file that becomes a bundle: what reads it, and the options it takes."""

import hashlib
import inspect
import json
import pathlib
import re
from typing import NamedTuple

import jax

from re2pix_jax import bundles, remote
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

FILES = tuple(  # of a folder, the first that is there
    f'{name}{end}'
    for name in ('model.safetensors', 'pytorch_model.bin')
    for end in ('', '.index.json')
)
SUFFIXES = ('.safetensors', '.bin', '.pth', '.pt', '.ckpt')


class Converted(NamedTuple):
    """What came of a conversion."""

    parameters: int
    left_out: list[str]  # tensors that no network needs, and why


def convert(kind: str, source: str, destination: str, options: dict, **saving) -> Converted:
    """Reads published files and writes the bundle.

    Args:
        kind: one of `CONVERTERS`.
        source: file, folder or hf:OWNER/REPO[/FOLDER][:FILE].
        destination: folder of the bundle.
        options: name → value, of those that the kind takes; None is as good as left away.
        **saving: as `bundles.save` takes them: storage, overwrite.

    Raises:
        UserError: the kind, the source or an option is not what it should be, or a tensor is
            missing, left over or of another shape.
    """
    if kind not in CONVERTERS:
        raise UserError(f'convert {kind}: expected as kind one of {", ".join(CONVERTERS)}')
    options = {name: value for name, value in options.items() if value is not None}
    _check_options(kind, options)
    patterns = ['*.json', *(f'*{suffix}' for suffix in SUFFIXES)]
    path = hub.fetch(source, patterns) if source.startswith(hub.PREFIX) else remote.local(source)
    if not path.exists():
        raise UserError(f'{source}: no such file or folder; give one, or hf:OWNER/REPO[:FILE]')
    if path.is_file() and re.search(r'-\d{5}-of-\d{5}\.\w+$', path.name):
        raise UserError(
            f'{path}: is one of several files of a model: expected all; give their folder'
        )
    with table.notes() as left_out:
        part = CONVERTERS[kind](path, **options)
    about = {'converted from': f'{kind} {source}', **_origin(path)}
    bundles.save(destination, part, about=about, **saving)
    return Converted(sum(leaf.size for leaf in jax.tree.leaves(part)), left_out)


def _dinov2(path, heads=None, layers=None, image_size=None):
    file = _file(path)
    return dinov2.convert(
        file, heads or _configured(file, 'num_attention_heads'), layers, image_size
    )


def _dinov3(path, heads=None, layers=None, image_size=None):
    return dinov3.convert(path, heads, layers, image_size)


def _sd_vae(path, scaling_factor=None, shift_factor=None):
    return autoencoder_kl.convert(path, scaling_factor, shift_factor)


def _dino_foresight(path, pca=None, encoder=None, transformer_heads=None, **of_encoder):
    if encoder and of_encoder:
        raise UserError(
            f'--encoder={encoder}: takes the place of the encoder in the checkpoint, which '
            f'{" and ".join(map("--{}".format, of_encoder))} would describe: give one or the other'
        )
    return dino_foresight.convert(
        _file(path),
        bundles.load(encoder, 'encoder') if encoder else None,
        dino_foresight.convert_principal(pca) if pca else None,
        transformer_heads,
        *(of_encoder.get(name) for name in OF_ENCODER),
    )


def _dpt_head(path):
    return dpt.convert(_file(path))


def _inception(path):
    return inception.convert(_file(path))


def _i3d(path):
    return i3d.convert(_file(path))


def _lpips(path, linear=None):
    return lpips.convert(_file(path), linear)


OF_ENCODER = ('heads', 'layers', 'image_size')
CONVERTERS = {  # kind → (path, the options it takes) → part
    'dinov2': _dinov2,
    'dinov3': _dinov3,
    'sd-vae': _sd_vae,
    'dino-foresight': _dino_foresight,
    'dpt-head': _dpt_head,
    'inception': _inception,
    'i3d': _i3d,
    'lpips': _lpips,
}


def options_of(kind: str) -> list[str]:
    """Names of the options that a kind takes."""
    names = list(inspect.signature(CONVERTERS[kind]).parameters)[1:]
    return [*names[:-1], *OF_ENCODER] if names[-1:] == ['of_encoder'] else names


def _check_options(kind, options):
    """An option that would do nothing is a mistake."""
    taken = options_of(kind)
    if strange := [f'--{name}' for name in options if name not in taken]:
        raise UserError(
            f'convert {kind}: takes no {" or ".join(strange)}; it takes '
            f'{", ".join(f"--{name}" for name in (*taken, "storage"))}: leave others away'
        )


def _file(path: pathlib.Path) -> pathlib.Path:
    """The weights in a folder; a file is itself."""
    if path.is_file():
        return path
    named = [path / name for name in FILES if (path / name).is_file()]
    found = named or [file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES]
    if not named and len(found) != 1:
        raise UserError(
            f'{path}: holds {len(found)} weight files, expected {FILES[0]} or {FILES[2]} (or their '
            'index) or a single file; name the file'
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


def _origin(path: pathlib.Path) -> dict:
    """What the bundle remembers of its source: the hash of the file."""
    if not path.is_file():
        return {}
    with open(path, 'rb') as file:
        return {'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}
