"""Checksums of a checkpoint's files, by which damage is noticed before it is trained on."""

import concurrent.futures
import json
import os
import pathlib
import zlib

from re2pix_jax import files

NAME = 'checksums.json'
_CHUNK = 1 << 22


def write(folder: str) -> None:
    """Notes size and CRC-32 of every file of a checkpoint's items beside them."""
    files.write_text(os.path.join(folder, NAME), json.dumps(_of(folder), indent=0))


def damage(folder: str) -> str | None:
    """What is not as it was written; None where all is, or where nothing was noted, as by earlier
    versions.
    """
    path = pathlib.Path(folder, NAME)
    if not path.exists():
        return None
    try:
        noted = json.loads(path.read_text(encoding='utf-8'))
        noted = {name: (int(size), int(crc)) for name, (size, crc) in noted.items()}
    except (ValueError, TypeError, AttributeError):
        return f'{NAME} cannot be read'
    found = _of(folder)
    for name, (size, crc) in noted.items():
        if name not in found:
            return f'{name} is missing'
        if found[name][0] != size:
            return f'{name} has {found[name][0]} bytes, {size} were written'
        if found[name][1] != crc:
            return f'{name} holds other bytes than were written'
    return None


def _of(folder):
    root = pathlib.Path(folder)
    # Those of its items: what Orbax notes beside them changes once more when it is finished.
    paths = [path for path in sorted(root.glob('*/**/*')) if path.is_file()]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return {
            str(path.relative_to(root)): (path.stat().st_size, crc)
            for path, crc in zip(paths, pool.map(_crc, paths), strict=True)
        }


def _crc(path):
    value = 0
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
