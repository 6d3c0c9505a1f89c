"""From any source to a folder of prepared clips (`records`): shard by shard, over several
processes, and resumable.

Everything goes to FOLDER.partial, which becomes FOLDER at the end. A shard is there whole or not at
all, so that the same command, run again after an interruption, goes on with the first one that is
missing.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Sequence

from re2pix_jax import files, remote
from re2pix_jax.data import records
from re2pix_jax.data.sources.source import Source
from re2pix_jax.errors import Interrupted, UserError
from re2pix_jax.progress import Progress

# [O] of Cityscapes at 512x1024 some 80 MB: what is lost at most by an interruption, a process
CLIPS_PER_SHARD = 16
PLAN = 'plan.json'


def write(
    out: str | os.PathLike,
    splits: dict[str, Source],
    encode: Callable[[Source, int], tuple[list[dict[str, bytes]], dict]],
    fields: Sequence[str],
    about: dict,
    *,
    processes: int = 1,
    threads: int = 1,
    strict: bool = False,
) -> dict[str, dict]:
    """Writes the clips of each split's source to the folder `out`.

    Args:
        out: folder to write; must not exist yet. One in a bucket is written on this machine and
            uploaded when it is complete.
        splits: name → its clips.
        encode: (source, index) → (list of records, field → bytes, one for each frame; what the
            manifest says of the clip beside its name, origin, rate and frames). Picklable where
            `processes` is above 1.
        fields: names of what a record holds.
        about: what the manifest says of all clips, JSON; a preparation that was interrupted goes on
            only with the same.
        processes: how many read and encode; threads: so too, within this process.
        strict: stop at the first clip that cannot be read; by default it is left out, and the
            manifest says why.

    Returns:
        split → {'clips': [...], 'left_out': [{'name', 'reason'}]}, as in the manifest. A split
        without clips, of which the folder then has nothing but the reasons ('empty' in the
        manifest), is among them.

    Raises:
        UserError: `out` exists, `out`.partial was begun with other settings, clips of one name, no
            clip of any split can be read, with `strict` the first that cannot, or the disk is full.
    """
    if remote.is_remote(out):
        how = {'processes': processes, 'threads': threads, 'strict': strict}
        return _write_to_bucket(out, splits, encode, fields, about, how)
    out = pathlib.Path(out)
    if out.exists():
        raise _exists(out)
    _check_names(splits)
    partial = out.with_name(out.name + '.partial')
    with files.writing(out):
        jobs = _begin(partial, splits, {'fields': fields, **about})
    shards, waiting = {}, []
    for job in jobs:
        if _done(partial, job).is_file():
            shards[job] = json.loads(_done(partial, job).read_text())
        else:
            waiting.append(job)
    clips = lambda jobs: sum(len(_clips_of(job, splits)) for job in jobs)
    progress = Progress(clips(jobs), 'prepare', done=clips(shards))
    if shards:
        progress.note(f'prepare: going on after {progress.done} of {progress.total} clips')
    work = (str(partial), splits, encode, fields, strict)
    try:
        try:
            with (
                contextlib.closing(progress),
                contextlib.closing(_shards(waiting, work, processes, threads)) as written,
            ):
                for job, shard in written:
                    shards[job] = shard
                    progress.add(clips([job]))
        finally:
            if not any(_done(partial, job).is_file() for job in jobs):  # nothing to go on with
                shutil.rmtree(partial, ignore_errors=True)
        return _finish(out, partial, splits, [(job, shards[job]) for job in jobs], fields, about)
    except Exception as error:
        if files.full_disk(error) is None:
            raise
        raise UserError(
            f'{out}: the disk is full after {len(shards)} of {len(jobs)} shards; free space and '
            f'give the same command again to go on, or remove {partial}'
        ) from error


def _exists(out) -> UserError:
    return UserError(f'{out}: exists already; remove it or choose another folder')


def _write_to_bucket(out, splits, encode, fields, about, how) -> dict[str, dict]:
    """`write`, on this machine first; both parts of the work go on where they were cut off."""
    remote.check_writable(out)
    # What an upload left that was cut off is overwritten.
    if any('.array_record' not in name for name in remote.names(out, deep=False)):
        raise _exists(remote.address(out))
    plan = json.dumps([remote.address(out), _plan(splits, {'fields': fields, **about})])
    place = remote.workplace(hashlib.sha256(plan.encode()).hexdigest()[:16])
    if not place.exists():
        try:
            write(place, splits, encode, fields, about, **how)
        except UserError as error:
            told = re.sub(rf'{re.escape(str(place))}(?!\.)', remote.address(out), str(error))
            raise UserError(told) from error
    manifest = json.loads((place / records.MANIFEST).read_text())
    remote.upload(place, out)
    shutil.rmtree(place)
    left_out = {split: {'clips': [], 'left_out': of} for split, of in manifest['empty'].items()}
    return {split: {**manifest['splits'], **left_out}[split] for split in splits}


def _check_names(splits):
    splits_of = {}
    for split, source in splits.items():
        for name in map(source.name, range(len(source))):
            if name in splits_of:
                raise UserError(
                    f'{split} and {splits_of[name]}: both have a clip {name}; rename one of its '
                    'files'
                )
            splits_of[name] = split


def _begin(partial, splits, about) -> list[tuple[str, int]]:
    """Makes the folder, or checks that it was begun with the same clips and settings. Returns the
    jobs, (split, shard).
    """
    plan = _plan(splits, about)
    file = partial / PLAN
    if file.is_file():
        begun = json.loads(file.read_text())
        changed = [name for name in plan.keys() | begun.keys() if plan.get(name) != begun.get(name)]
        if changed:
            raise UserError(
                f'{partial}: was begun with other {", ".join(sorted(changed))}; give the same '
                'command again to go on, or remove that folder'
            )
    else:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        files.write_text(file, json.dumps(plan) + '\n')
    return [
        (split, number)
        for split, source in splits.items()
        for number in range(-(-len(source) // CLIPS_PER_SHARD))
    ]


def _plan(splits, about) -> dict:
    """What a preparation is of, as JSON gives it back."""
    names = {
        split: [source.name(index) for index in range(len(source))]
        for split, source in splits.items()
    }
    clips = {
        split: hashlib.sha256('\n'.join(names[split]).encode()).hexdigest() for split in splits
    }
    return json.loads(json.dumps({'format': records.FORMAT, 'clips': clips, **about}))


def _clips_of(job, splits):
    split, number = job
    return range(len(splits[split]))[number * CLIPS_PER_SHARD : (number + 1) * CLIPS_PER_SHARD]


def _done(partial, job) -> pathlib.Path:
    return pathlib.Path(partial, f'{job[0]}-{job[1]:05d}.json')


def _shards(jobs, work, processes, threads):
    """Yields (job, what `_shard` returned) as they are done."""
    workers = min(max(processes, threads), len(jobs))
    if workers <= 1:
        yield from ((job, _shard(job, *work)) for job in jobs)
        return
    if threads > 1:
        pool, run = concurrent.futures.ThreadPoolExecutor(workers), lambda job: _shard(job, *work)
    else:  # fork would copy the threads of an accelerator's runtime
        context = multiprocessing.get_context('spawn')
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker, work)
        run = _work
    with pool:
        futures = {pool.submit(run, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except concurrent.futures.BrokenExecutor as error:
            raise Interrupted(
                f'one of {workers} processes that prepare was killed (where memory has run out, '
                'lower --processes)'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(*work):
    global _of_this_worker
    _of_this_worker = work
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent():
    """Were the command killed alone, its workers would go on writing the shards that the next one
    begins.
    """
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(job):
    return _shard(job, *_of_this_worker)


def _shard(job, partial, splits, encode, fields, strict) -> dict:
    """Writes one shard and, after it, its part of the manifest: {'clips', 'left_out', 'bytes'}."""
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
                about['left_out'].append({'name': source.name(index), 'reason': str(error)})
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

    with files.replacing(_file(partial, job)) as place:
        try:
            about['bytes'] = tfds_layout.write_shard(place, rows(), fields)
        except UserError:
            raise
        except Exception as error:
            # Before the file goes, with which there is space again: not all that the record writer
            # raises says that the disk is full.
            if shutil.disk_usage(partial).free < 1 << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place)) from error
            raise
    files.write_text(_done(partial, job), json.dumps(about) + '\n')
    return about


def _file(partial, job) -> pathlib.Path:
    return pathlib.Path(partial, f'{job[0]}-{job[1]:05d}.array_record')


def _finish(out, partial, splits, shards, fields, about) -> dict:
    """Describes the shards, writes the manifest and gives the folder its name."""
    from re2pix_jax.data import tfds_layout

    manifest = {split: {'clips': [], 'left_out': []} for split in splits}
    written = {split: [] for split in splits}
    for job, shard in shards:
        for name in ('clips', 'left_out'):
            manifest[job[0]][name] += shard[name]
        if shard['clips']:
            written[job[0]].append(
                (
                    _file(partial, job),
                    sum(clip['frames'] for clip in shard['clips']),
                    shard['bytes'],
                )
            )
        else:
            _file(partial, job).unlink(missing_ok=True)
    there = {split: of_split for split, of_split in manifest.items() if of_split['clips']}
    empty = {
        split: of_split['left_out'] for split, of_split in manifest.items() if not of_split['clips']
    }
    if not there:
        shutil.rmtree(partial)
        split, reasons = next(iter(empty.items()))
        reason = reasons[0]['reason'] if reasons else 'it has none'
        raise UserError(f'{out}: no clip of split {split} can be used, the first because: {reason}')
    tfds_layout.describe(partial, {split: written[split] for split in there}, fields)
    manifest_json = {
        'format': records.FORMAT,
        **about,
        'fields': fields,
        'splits': there,
        'empty': empty,
    }
    files.write_text(partial / records.MANIFEST, json.dumps(manifest_json) + '\n')
    for job, _ in shards:
        _done(partial, job).unlink()
    (partial / PLAN).unlink()
    os.rename(partial, out)
    return manifest
