"""Buckets: `gs://BUCKET/FOLDER` and `s3://BUCKET/FOLDER` where commands take a folder.

What is read whole (bundles, prepared clips, reports) is copied into the user's cache when it is
first needed, and a file again when its size or time in the bucket is another. What is written is
written on this machine and uploaded; the JSON files at the top of a folder, by which it is known,
go last. Checkpoints are read and written in their bucket by Orbax itself (`training.checkpoint`).

Names that went through pathlib, which makes `gs:/BUCKET` of `gs://BUCKET`, are understood.
"""

import concurrent.futures
import contextlib
import fcntl
import importlib.util
import os
import pathlib
import posixpath
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.progress import Progress

CLIENTS = {'gs': ('gcsfs', 'gcs'), 's3': ('s3fs', 's3')}
"""Scheme → the package that reads and writes there, and the extra that installs it."""
PLACES = 'a path of this machine, gs://BUCKET/... or s3://BUCKET/...'
PATIENCE = 300.0  # seconds that a bucket may be away from a run that is under way [O]
_PAUSE = 5.0  # seconds between two attempts; its client has made some of its own before
_AT_ONCE = 8  # transfers [O]
_TOLD = 64e6  # bytes from which on a transfer shows its progress [O]
_ADDRESS = re.compile(rf'({"|".join(CLIENTS)}):/+([^/]+)/*(.*)', re.DOTALL)
# Otherwise gcsfs asks for the kind of each bucket, a right that its users often do not have.
os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')


def is_remote(path) -> bool:
    """Whether `path` lies in a bucket."""
    return bool(_ADDRESS.fullmatch(os.fspath(path)))


def address(path) -> str:
    """'gs://BUCKET/KEY' of a path in a bucket, without dots and a slash at its end."""
    scheme, bucket, key = _ADDRESS.fullmatch(os.fspath(path)).groups()
    key = posixpath.normpath(f'/{key}').strip('/')
    return f'{scheme}://{bucket}' + (f'/{key}' if key else '')


def join(path, *names: str) -> str:
    """`os.path.join`, in a bucket too: there `..` leads up."""
    joined = os.path.join(path, *names)
    return address(joined) if is_remote(path) and is_remote(joined) else joined


def relative(path, start) -> str | None:
    """The path beside it, '../..', from one folder of a bucket to another, None into itself or to
    another bucket.
    """
    (bucket, _, key), (other, _, base) = (
        address(place).partition('://')[2].partition('/') for place in (path, start)
    )
    between = posixpath.relpath(f'/{key}', f'/{base}')
    return between if bucket == other and between.startswith('..') else None


def check(path, name: str = '') -> None:
    """Refuses an address that nothing here can reach.

    Args:
        path: a path or an address.
        name: of the flag or field that it was given as.

    Raises:
        UserError: the scheme is unknown, the bucket has no name, or its client is not installed.
    """
    text = os.fspath(path)
    shown = f'{name}={text}' if name else text
    scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]+)://', text)
    cut = text.startswith(tuple(f'{known}:' for known in CLIENTS)) and not is_remote(text)
    if scheme and scheme[1] not in CLIENTS or cut:
        raise UserError(f'{shown}: no such place; {PLACES} expected')
    if is_remote(text):
        package, extra = CLIENTS[text.partition(':')[0]]
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f'{shown}: needs the {package} package: pip install "re2pix_jax[{extra}]"'
            )


@contextlib.contextmanager
def talking(path):
    """Turns what a client says of `path` into a UserError of one line.

    Raises:
        UserError: anything that is raised inside, UserErrors as they are.
    """
    try:
        yield
    except UserError:
        raise
    # Clients raise errors of their own, of their HTTP and login libraries and of the file system.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'{address(path)}: {type(error).__name__}{reason and f" ({reason})"}; check the name '
            'of the bucket, the login on this machine and the network'
        ) from error


def patiently(path, action: Callable):
    """What `action` gives, in a run that has reached the bucket before; tried again and again while
    the bucket does not answer.

    Raises:
        UserError: it fails for another reason.
        Interrupted: there was no answer for `PATIENCE` seconds.
    """
    away = None
    while True:
        try:
            return action()
        except UserError as error:
            if not is_away(error):
                raise
            if away is None:
                away = time.monotonic()
                print(f'{address(path)} does not answer: waiting for it', file=sys.stderr)
            if time.monotonic() - away > PATIENCE:
                raise Interrupted(
                    f'{address(path)} has not answered for {PATIENCE / 60:.0f} minutes'
                ) from error
            time.sleep(_PAUSE)


def is_away(error: BaseException) -> bool:
    """Whether `error`, as `talking` raises it, says that a bucket of Google's did not answer, so
    that another attempt may succeed.
    """
    if 'gcsfs' not in sys.modules:  # nothing has been asked
        return False
    import gcsfs.retry

    while error is not None and not gcsfs.retry.is_retriable(error):
        error = error.__cause__
    return error is not None


def names(path, deep: bool = True) -> dict[str, tuple[int, float]]:
    """{relative name: (bytes, time of the last change)} of the files below a path, or {'': ...} of
    a file; empty where there is nothing. Without `deep` those of its subfolders are not asked for,
    and these stand for themselves, with a slash at their end.
    """
    place = address(path)
    base = place.partition('://')[2]
    with talking(place):
        system = _system(place)
        try:
            if deep:
                entries = system.find(place, detail=True)
            else:
                entries = {entry['name']: entry for entry in system.ls(place, detail=True)}
        except FileNotFoundError:
            return {}
    found = {}
    for name, entry in entries.items():
        inside, folder = name[len(base) :].strip('/'), entry['type'] == 'directory'
        if not folder or inside and not deep:  # a bucket may hold empty files that mark folders
            found[inside + '/' * folder] = entry['size'], _time(entry)
    return found


def local(path, wanted: Callable[[str], bool] = lambda name: True) -> pathlib.Path:
    """The path on this machine of a file or folder: itself, or the copy of what is in a bucket,
    brought up to date; where there is nothing, a path that does not exist.

    Args:
        path: a path or an address.
        wanted: which files of a folder, by their names relative to it.

    Raises:
        UserError: the bucket cannot be reached, or a file came over cut.
    """
    if not is_remote(path):
        return pathlib.Path(path)
    check(path)
    copy = _copy_of(path)
    there = {name: at for name, at in names(path).items() if name == '' or wanted(name)}
    if outside := [name for name in there if '..' in name.split('/')]:
        raise UserError(f'{address(path)}: holds {outside[0]!r}, which is no name of a file here')
    if not there:
        return copy.with_name(f'{copy.name}.absent')
    with _locked(copy), talking(path):
        missing = {name: at for name, at in there.items() if not _is_as(copy / name, at)}
        total = sum(size for size, _ in missing.values())
        _transfer(address(path), copy, missing, total)
        for file in copy.rglob('[!.]*'):  # what is no longer there
            name = file.relative_to(copy).as_posix()
            if name not in there and wanted(name) and file.is_file():
                file.unlink(missing_ok=True)  # a folder inside may have a copy of its own
    return copy


def origin(path) -> str | None:
    """The address whose copy `path` is, None of any other path."""
    with contextlib.suppress(ValueError):
        scheme, bucket, *key = pathlib.Path(path).relative_to(cache('buckets')).parts
        return address(f'{scheme}://{bucket}/{"/".join(key)}')
    return None


def read(path) -> bytes | None:
    """The bytes of a file in a bucket as it is now; None where there is none.

    Raises:
        UserError: the bucket cannot be reached.
    """
    with talking(path), contextlib.suppress(FileNotFoundError):
        return _system(address(path)).cat_file(address(path))
    return None


def remove(path) -> None:
    """Removes a file, from a bucket or this machine, if there is one."""
    if not is_remote(path):
        pathlib.Path(path).unlink(missing_ok=True)
        return
    with talking(path), contextlib.suppress(FileNotFoundError):
        _system(address(path)).rm_file(address(path))


def move(source, target) -> None:
    """Gives a file of a bucket another name in the same bucket, without its bytes coming here.

    Raises:
        UserError: the bucket cannot be reached or written.
    """
    with talking(source):
        system = _system(address(source))
        system.cp_file(address(source), address(target))
        system.rm_file(address(source))


def check_writable(path) -> None:
    """Writes a file into a folder of a bucket and takes it away again.

    Raises:
        UserError: that cannot be done.
    """
    check(path)
    probe = join(address(path), f'.probe-{secrets.token_hex(4)}')
    with talking(path):
        _system(probe).pipe_file(probe, b'\n')
        _system(probe).rm_file(probe)


@contextlib.contextmanager
def writing(path, folder: bool = False, replace: bool = False) -> Iterator[pathlib.Path]:
    """Gives a path of this machine to write to; what is there when all is well is uploaded, and
    otherwise the bucket stays as it was.

    Args:
        path: an address.
        folder: whether it is one, which is made; otherwise a file.
        replace: of a folder that was there, what the new one does not have goes.

    Raises:
        UserError: the bucket cannot be written.
    """
    check(path)
    with tempfile.TemporaryDirectory(prefix='re2pix-') as above:
        place = pathlib.Path(above, posixpath.basename(address(path)))
        if folder:
            place.mkdir()
        yield place
        upload(place, path, replace)


def upload(place: pathlib.Path, path, replace: bool = False) -> None:
    """Copies a file or folder of this machine to an address. With `replace`, what else was there
    goes: the JSON files at the top first, so that a folder which is half old is none.

    Raises:
        UserError: the bucket cannot be written.
    """
    place, target = pathlib.Path(place), address(path)
    with talking(path):
        system = _system(target)
        if place.is_file():
            system.put_file(str(place), target)
            return
        sizes = {
            file.relative_to(place).as_posix(): file.stat().st_size
            for file in place.rglob('*')
            if file.is_file()
        }
        before = names(path) if replace else {}
        for name in filter(_is_top, before):
            system.rm_file(join(target, name))
        last = {name: size for name, size in sizes.items() if _is_top(name)}
        first = {name: size for name, size in sizes.items() if name not in last}
        put = lambda name: system.put_file(str(place / name), join(target, name))
        _all(put, first, f'uploading to {target}')
        for name in sorted(last):
            put(name)
        for name in before.keys() - sizes.keys() - set(filter(_is_top, before)):
            system.rm_file(join(target, name))


def _is_top(name):
    return name.endswith('.json') and '/' not in name


def cache(name: str) -> pathlib.Path:
    """The folder of that name for what can be fetched, or made, again."""
    base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    return pathlib.Path(base, 're2pix_jax', name)


def _copy_of(path) -> pathlib.Path:
    return cache('buckets') / address(path).replace('://', '/', 1)


def _system(place):
    import fsspec

    system = fsspec.filesystem(place.partition(':')[0])
    system.invalidate_cache()  # of listings: others write there, too
    return system


def _time(entry) -> float:
    changed = entry.get('mtime') or entry.get('LastModified')
    return round(changed.timestamp(), 3) if changed else 0.0


def _is_as(file, at):
    try:
        about = file.stat()
    except OSError:
        return False
    return (about.st_size, round(about.st_mtime, 3)) == at


@contextlib.contextmanager
def _locked(copy):
    """One process of this machine at a time; the others sleep, and then find it all there."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with open(copy.with_name(f'.{copy.name}.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _transfer(source, copy, missing, total):
    free = shutil.disk_usage(copy.parent).free
    if total > free:
        raise UserError(
            f'{source}: {total / 1e9:.1f} GB do not fit into {cache("buckets")}, where '
            f'{free / 1e9:.1f} GB are left; free space or set XDG_CACHE_HOME to a larger disk'
        )
    system = _system(source)

    def get(name):
        size, changed = missing[name]
        file = copy / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f'.{file.name}.{os.getpid()}.partial')
        system.get_file(join(source, name) if name else source, str(partial))
        if partial.stat().st_size != size:
            raise UserError(
                f'{join(source, name)}: {partial.stat().st_size} of {size} bytes came over; give '
                'the same command again'
            )
        os.utime(partial, (changed, changed))
        os.replace(partial, file)

    _all(get, {name: size for name, (size, _) in missing.items()}, f'fetching {source}')


def _all(action, sizes, label):
    """`action` of every name, some at once; tells of what takes long."""
    total = sum(sizes.values())
    progress = Progress(-(-total // 10**6), label, 'MB', silent=total < _TOLD)
    done = 0
    with (
        contextlib.closing(progress),
        concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        jobs = {pool.submit(action, name): sizes[name] for name in sizes}
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
                done += jobs[job]
                progress.add(done // 10**6 - progress.done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
