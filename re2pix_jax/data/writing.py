"""From any source to a folder of prepared clips (`records`): file by file, over several processes
and machines, and resumable.

Everything goes to FOLDER.partial (`unfinished`), which becomes FOLDER at the end. A file of records
is there whole or not at all, so that the same command, run again after an interruption, goes on
with the first one that is missing; and which command wrote it leaves no trace, so that as many as
there are machines may write a shard each: the files that follow from its number.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence

from re2pix_jax import files
from re2pix_jax.data import records
from re2pix_jax.data.sources.source import Source
from re2pix_jax.data.unfinished import Job, Unfinished
from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.progress import Progress, counted

# [O] of Cityscapes at 512x1024 some 80 MB: what is lost at most by an interruption, a process
CLIPS_PER_FILE = 16
PACKAGES = ('re2pix_jax', 'array_record', 'av', 'jaxlib', 'numpy', 'pillow')
"""On whose versions the bytes depend."""


def write(
    out: str | os.PathLike,
    splits: dict[str, Source],
    encode: Callable[[Source, int], tuple[list[dict[str, bytes]], dict]],
    fields: Sequence[str],
    about: dict,
    *,
    settings: dict | None = None,
    processes: int = 1,
    threads: int = 1,
    strict: bool = False,
    shard: tuple[int, int] | None = None,
) -> dict[str, dict]:
    """Writes the clips of each split's source to the folder `out`.

    Args:
        out: folder to write, here or in a bucket; must not exist yet.
        splits: name → its clips.
        encode: (source, index) → (list of records, field → bytes, one for each frame; what the
            manifest says of the clip beside its name, origin, rate and frames). Picklable where
            `processes` is above 1.
        fields: names of what a record holds.
        about: what the manifest says of all clips, JSON; a preparation that was interrupted goes on
            only with the same.
        settings: what else it goes on only with, JSON.
        processes: how many read and encode; threads: so too, within this process.
        strict: stop at the first clip that cannot be read; by default it is left out, and the
            manifest says why.
        shard: (i, n), the i-th of n shards, from 1 on: writes its files alone. Once all are there,
            a call without it makes the folder of them; it is that of a single call, byte by byte.

    Returns:
        split → {'clips': [...], 'left_out': [{'name', 'reason'}]}, as in the manifest; of a shard,
        those that it wrote. A split without clips, of which the folder then has nothing but the
        reasons ('empty' in the manifest), is among them.

    Raises:
        UserError: `out` exists, `out`.partial was begun with other settings, clips of one name, no
            clip of any split can be read, with `strict` the first that cannot, the disk is full, or
            shards are not complete.
    """
    if _printable(str(out)) != str(out):
        raise UserError(f'{out}: not UTF-8, as the writer of records wants it; choose another name')
    place = Unfinished(out)
    _check_names(splits)
    plan = _plan(splits, {'fields': fields, **about, **(settings or {})})
    with files.writing(out):
        begun_in = place.begin(plan, shard and shard[1])
    if (manifest := place.manifest()) is not None:  # cut off in its last lines
        place.tidy()
        without = {split: {'clips': [], 'left_out': of} for split, of in manifest['empty'].items()}
        return {split: {**manifest['splits'], **without}[split] for split in splits}
    every = [
        (split, number)
        for split, source in splits.items()
        for number in range(-(-len(source) // CLIPS_PER_FILE))
    ]
    jobs = every if shard is None else _of_shard(every, *shard)
    notes = place.notes(jobs)
    if shard is None and begun_in > 1:
        _check_shards(place.out, every, notes, begun_in)
    clips = lambda jobs: sum(len(_clips_of(job, splits)) for job in jobs)
    progress = Progress(clips(jobs), 'prepare', done=clips(notes))
    waiting = [job for job in jobs if job not in notes]
    if notes and waiting:
        progress.note(f'prepare: going on after {progress.done} of {progress.total} clips')
    work = (place, splits, encode, fields, strict)
    try:
        try:
            with (
                contextlib.closing(progress),
                contextlib.closing(_written(waiting, work, processes, threads)) as written,
            ):
                for job, note in written:
                    notes[job] = note
                    progress.add(clips([job]))
        finally:
            if not notes and shard is None:  # nothing to go on with
                place.forget()
        if shard is not None:
            return _gathered(splits, [(job, notes[job]) for job in jobs])
        return _finish(place, splits, [(job, notes[job]) for job in jobs], fields, about)
    except Exception as error:
        if files.full_disk(error) is None:
            raise
        raise UserError(
            f'{out}: the disk is full after {len(notes)} of {len(jobs)} files; free space and '
            f'give the same command again to go on, or remove {place.partial}'
        ) from error


def _of_shard(jobs: Sequence[Job], number: int, of: int) -> Sequence[Job]:
    """Files that follow each other: who reads long recordings opens few."""
    return jobs[len(jobs) * (number - 1) // of : len(jobs) * number // of]


def _check_shards(out, jobs, notes, of):
    shards = {number: _of_shard(jobs, number, of) for number in range(1, of + 1)}
    open_ = [number for number, its in shards.items() if not notes.keys() >= {*its}]
    if open_:
        first, *others = open_
        its = shards[first]
        there = f'{len(notes.keys() & {*its})} of {counted(len(its), "file")}'
        also = f', nor {"is" if len(others) == 1 else "are"} {_listed(others)}' if others else ''
        raise UserError(
            f'{out}: shard {first} of {of} is not complete ({there}){also}; give the same command '
            f'with --shard={first}/{of}, and then this one again'
        )


def _listed(numbers) -> str:
    return ', '.join(map(str, numbers[:8])) + (', ...' if len(numbers) > 8 else '')


def _check_names(splits):
    splits_of = {}
    for split, source in splits.items():
        for name in map(source.name, range(len(source))):
            if (text := _printable(name)) != name:
                raise UserError(
                    f'{split}: the name of {text} is not UTF-8, as a manifest has it; rename it'
                )
            if name in splits_of:
                raise UserError(
                    f'{split} and {splits_of[name]}: both have a clip {name}; rename one of its '
                    'files'
                )
            splits_of[name] = split


def _printable(text) -> str:
    """Without what names of files may hold and no text in UTF-8 can."""
    return text.encode(errors='backslashreplace').decode()


def _plan(splits, about) -> dict:
    """What a preparation is of and by, as JSON gives it back."""
    clips = {}
    for split, source in splits.items():
        names = [source.name(index) for index in range(len(source))]
        contents = [source.contents()] if hasattr(source, 'contents') else []
        clips[split] = hashlib.sha256('\n'.join(names + contents).encode()).hexdigest()
    versions = {package: _version(package) for package in PACKAGES}
    plan = {'format': records.FORMAT, 'clips': clips, **about, 'versions': versions}
    return json.loads(json.dumps(plan))


def _version(package) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from its folder, without being installed
        return None


def _clips_of(job, splits):
    split, number = job
    return range(len(splits[split]))[number * CLIPS_PER_FILE : (number + 1) * CLIPS_PER_FILE]


def _written(jobs, work, processes, threads):
    """Yields (job, its note) as they are done."""
    workers = min(max(processes, threads), len(jobs))
    if workers <= 1:
        yield from ((job, _write(job, *work)) for job in jobs)
        return
    if threads > 1:
        pool, run = concurrent.futures.ThreadPoolExecutor(workers), lambda job: _write(job, *work)
    else:  # fork would copy the threads of an accelerator's runtime
        context = multiprocessing.get_context('spawn')
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, work)
        run = _work
    with pool:
        try:
            with _deaf():
                futures = {pool.submit(run, job): job for job in jobs}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except (KeyboardInterrupt, GeneratorExit):
            for worker in multiprocessing.active_children():
                worker.kill()  # what it was writing is written again
            raise
        except concurrent.futures.BrokenExecutor as error:
            raise Interrupted(
                f'one of {workers} processes that prepare was killed (where memory has run out, '
                'lower --processes)'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf():
    """Processes that are started within never hear a Ctrl-C; this one does, at the end."""
    heard = []
    # The mask is what they inherit; here another thread may take the signal all the same.
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    own = own and threading.current_thread() is threading.main_thread()
    if own:
        signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if own:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if heard:
        raise KeyboardInterrupt


def _start_worker(*work):
    global _of_this_worker
    _of_this_worker = work
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent():
    """Were the command killed alone, its workers would go on for nothing."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job):
    return _write(job, *_of_this_worker)


def _write(job, place, splits, encode, fields, strict) -> dict:
    """Writes one file and, after it, its part of the manifest: {'clips', 'left_out', 'bytes'}."""
    from re2pix_jax.data import tfds_layout

    source, about = splits[job[0]], {'clips': [], 'left_out': []}

    def rows():
        for index in _clips_of(job, splits):
            try:
                if problem := getattr(source, 'problem', lambda _: None)(index):
                    raise UserError(f'{source.name(index)}: {problem}')
                encoded, clip = encode(source, index)
            except UserError as error:
                if strict:
                    raise
                reason = _printable(str(error))
                about['left_out'].append({'name': source.name(index), 'reason': reason})
                continue
            about['clips'].append(
                {
                    'name': source.name(index),
                    'origin': getattr(source, 'origin', source.name)(index),
                    'frames': len(encoded),
                    'fps': float(source.fps(index)),
                    'target': getattr(source, 'target', lambda _: None)(index),
                    **clip,
                    'sha256': records.checksum(encoded),
                }
            )
            yield from encoded

    place.check_begun()
    file = place.new_file(job)
    try:
        with files.replacing(file) as written:
            try:
                about['bytes'] = tfds_layout.write_shard(written, rows(), fields)
            except UserError:
                raise
            except Exception as error:
                # Before the file goes, with which there is space again: not all that the record
                # writer raises says that the disk is full.
                if shutil.disk_usage(written.parent).free < 1 << 20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file) from error
                raise
    except FileNotFoundError:
        place.check_begun()
        raise
    return place.add(job, file, about)


def _gathered(splits, notes) -> dict[str, dict]:
    found = {split: {'clips': [], 'left_out': []} for split in splits}
    for (split, _), note in notes:
        for name in ('clips', 'left_out'):
            found[split][name] += note[name]
    return found


def _finish(place, splits, notes, fields, about) -> dict:
    """Describes the files, writes the manifest and gives the folder its name."""
    from re2pix_jax.data import tfds_layout

    gathered = _gathered(splits, notes)
    there = {split: of_split for split, of_split in gathered.items() if of_split['clips']}
    empty = {
        split: of_split['left_out'] for split, of_split in gathered.items() if not of_split['clips']
    }
    if not there:
        place.forget()
        split, reasons = next(iter(empty.items()))
        reason = reasons[0]['reason'] if reasons else 'it has none'
        raise UserError(
            f'{place.out}: no clip of split {split} can be used, the first because: {reason}'
        )
    written = {
        split: [note for (of, _), note in notes if of == split and note['clips']] for split in there
    }
    sizes = {
        split: [(sum(clip['frames'] for clip in note['clips']), note['bytes']) for note in of_split]
        for split, of_split in written.items()
    }
    manifest = {
        'format': records.FORMAT,
        **about,
        'fields': fields,
        'splits': there,
        'empty': empty,
    }
    with tempfile.TemporaryDirectory() as described:
        names = tfds_layout.describe(described, sizes, fields)
        named = {
            note['file']: name
            for split, of_split in written.items()
            for note, name in zip(of_split, names[split], strict=True)
        }
        place.settle(named, pathlib.Path(described), json.dumps(manifest) + '\n')
    return gathered
