"""Files that are there whole or not at all: written beside their place, then renamed; those in a
bucket are written here and uploaded when they are whole (`remote`). What a full disk is called; and
what lies where a file should be.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile

from re2pix_jax import remote
from re2pix_jax.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GONE = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN)  # a device, server or mount
REFUSED = (
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)
FETCH = 'fetch the file itself'
UNPACK = 'unpack it, and give the file inside'
_OTHERS = (  # first bytes, what has them, what to do
    (
        b'version https://git-lfs.github.com/spec/',
        'a git-lfs pointer, which only says where the file is',
        f'run `git lfs pull` in its folder, or {FETCH}',
    ),
    (b'PK\x03\x04', 'a zip archive', UNPACK),
    (b'\x1f\x8b', 'a gzip archive', UNPACK),
    (b'BZh', 'a bzip2 archive', UNPACK),
    (b'\xfd7zXZ\0', 'an xz archive', UNPACK),
    (b'\x28\xb5\x2f\xfd', 'a zstd archive', UNPACK),
    (b'7z\xbc\xaf', 'a 7z archive', UNPACK),
    (b'Rar!', 'a rar archive', UNPACK),
)
_FULL_IN_WORDS = ('no space left on device', 'disk quota exceeded', 'file too large')
_GONE_IN_WORDS = ('input/output error', 'stale file handle', 'endpoint is not connected')


def full_disk(error: BaseException | None) -> str | None:
    """The file that could not be written, when `error` or one of its causes says that the disk is
    full; else None.
    """
    return _blamed(error, FULL, _FULL_IN_WORDS)


def gone_disk(error: BaseException | None) -> str | None:
    """The file that could not be read or written, when `error` or one of its causes says that its
    disk does not answer; else None.
    """
    return _blamed(error, GONE, _GONE_IN_WORDS)


def _blamed(error, numbers, words):
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return os.fspath(error.filename) if error.filename else 'the output'
        if any(said in str(error).lower() for said in words):
            # Native writers report the path inside their text, if at all.
            path = re.search(r'["\'](/[^"\']+)["\']', str(error))
            return path.group(1) if path else 'the output'
        error = error.__cause__ or error.__context__
    return None


def instead(head: bytes) -> tuple[str, str] | None:
    """What a file is, by its first 512 bytes, that lies where one of pictures or numbers should;
    and what to do. None where they do not tell.
    """
    if not head:
        return 'empty', FETCH
    if head[257:262] == b'ustar':
        return 'a tar archive', UNPACK
    if head.lstrip(b'\xef\xbb\xbf \t\r\n').startswith(b'<') and b'\0' not in head:
        return 'a web page (HTML or XML)', f'{FETCH}; its server may want a login or a licence'
    return next((tuple(rest) for first, *rest in _OTHERS if head.startswith(first)), None)


@contextlib.contextmanager
def writing(place):
    """Turns what the system says while `place` is written into a UserError of one line.

    Raises:
        UserError: the disk is full, or `place` may not be written.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if full_disk(error) is not None:
            raise UserError(
                f'{place}: the disk is full; nothing half-written was left, free some space and '
                'give the same command again'
            ) from error
        # No such file: there can be none of that name, or none above it, as in /proc.
        above = (str(place), *map(str, pathlib.Path(place).parents))
        nowhere = isinstance(error, FileNotFoundError) and error.filename in above
        if nowhere or isinstance(error, OSError) and error.errno in REFUSED:
            raise UserError(
                f"{place}: can't be written ({os.strerror(error.errno).lower()}); choose another "
                'place or make this one writable'
            ) from error
        raise


@contextlib.contextmanager
def replacing(path):
    """Gives a path beside `path` to write to; it takes the place of `path` when all is well, and
    goes otherwise.

    Folders above are made. Errors are those of `writing`.
    """
    if remote.is_remote(path):
        with writing(path), remote.writing(path) as partial:
            yield partial
        return
    path = pathlib.Path(path)
    partial = path.with_name(path.name + '.partial')
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def replacing_folder(path):
    """As `replacing`, for a folder, which is made. One that was at `path` goes with all it holds,
    once the new one is complete.
    """
    if remote.is_remote(path):
        with writing(path), remote.writing(path, folder=True, replace=True) as partial:
            yield partial
        return
    path = pathlib.Path(path)
    partial, old = (path.with_name(path.name + ending) for ending in ('.partial', '.old'))
    with writing(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
            os.replace(partial, path)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path, content: str) -> None:
    """Writes a file in UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def staging(out):
    """A folder inside `out` for the output; when all is well its files move to `out`, otherwise
    nothing is left of it.

    Raises:
        UserError: `out` can't be written, before any work is done, or the disk runs full later.
    """
    if remote.is_remote(out):
        remote.check_writable(out)
        with writing(out), remote.writing(out, folder=True) as folder:
            yield folder
        return
    out = pathlib.Path(out)
    made = not out.exists()
    folder = None
    try:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            folder = pathlib.Path(tempfile.mkdtemp(prefix='.partial-', dir=out))
            yield folder
            for file in sorted(folder.iterdir()):
                os.replace(file, out / file.name)
    except UserError as error:  # it names the place that was meant
        if folder is None or str(folder) not in str(error):
            raise
        raise UserError(str(error).replace(str(folder), str(out))) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
