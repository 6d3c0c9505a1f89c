"""A file by its address: begun where it was left, whole or not there at all."""

import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable

from re2pix_jax import files
from re2pix_jax.errors import UserError
from re2pix_jax.progress import Progress

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte


def fetch(url: str, path: pathlib.Path, check: Callable = lambda path: None) -> None:
    """Downloads `url` to `path`; what came before an interruption lies beside it, in `path`.part,
    and is gone on from. What `check` of the whole file raises leaves nothing behind.

    Raises:
        UserError: the server does not answer, has no such file, or stops before its end.
    """
    part = path.with_name(path.name + '.part')
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        done = part.stat().st_size if part.exists() else 0
        try:
            size = _append(url, part, done, path.name)
        except (OSError, http.client.HTTPException) as error:
            if files.full_disk(error) is not None:
                raise
            if getattr(error, 'code', None) == 416:  # nothing is left to fetch, or it has changed
                part.unlink(missing_ok=True)
            raise UserError(
                f'{url}: could not be fetched ({getattr(error, "reason", None) or error}): give '
                f'the same command again to go on, or fetch it elsewhere and put it at {path}'
            ) from error
        if size is not None and part.stat().st_size != size:
            raise UserError(
                f'{url}: ended after {part.stat().st_size:,} of {size:,} bytes: give the same '
                'command again to go on'
            )
        try:
            check(part)
        except UserError as error:
            part.unlink()
            raise UserError(f'{url}: sent no such file: {error}') from error
        os.replace(part, path)


def _append(url, part, done, label) -> int | None:
    """Adds what is missing to `part`; the size of the whole, where the server says it."""
    headers = {'User-Agent': 're2pix_jax'} | ({'Range': f'bytes={done}-'} if done else {})
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:  # it sends all, whatever was asked
            done = 0
        length = answer.headers.get('Content-Length')
        size = None if length is None else done + int(length)
        progress = Progress(round((size or 0) / 1e6), label, 'megabyte', round(done / 1e6))
        try:
            with open(part, 'ab' if done else 'wb') as file:
                while chunk := answer.read(CHUNK):
                    before = round(file.tell() / 1e6)
                    file.write(chunk)
                    progress.add(round(file.tell() / 1e6) - before)
        finally:
            progress.close()
    return size
