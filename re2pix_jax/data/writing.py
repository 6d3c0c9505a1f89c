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
import io
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import threading
import time

import numpy as np
import tqdm
from PIL import Image

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import records, windows
from re2pix_jax.errors import UserError, disk_full

# [O] of Cityscapes at 512x1024 some 80 MB: what is lost at most by an interruption, a process
CLIPS_PER_SHARD = 16
BLOCK = 16  # frames in memory at their original size
PLAN = 'plan.json'


def write(
    out, splits: dict, encode, fields, about: dict, processes: int = 1, strict: bool = False
) -> dict:
    """Writes the clips of each split's source to the folder `out`.

    Args:
        splits: name → `Source`.
        encode: (source, index) → (list of records, field → bytes, one for each frame; what the
            manifest says of the clip beside its name, origin, rate and frames). Picklable where
            `processes` is above 1.
        fields: names of what a record holds.
        about: what the manifest says of all clips, JSON; a preparation that was interrupted goes on
            only with the same.
        processes: how many read and encode.
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
    out = pathlib.Path(out)
    if out.exists():
        raise UserError(f'{out}: exists already; remove it or choose another folder')
    _check_names(splits)
    partial = out.with_name(out.name + '.partial')
    jobs = _begin(partial, splits, {'fields': fields, **about})
    shards, waiting = {}, []
    for job in jobs:
        if _done(partial, job).is_file():
            shards[job] = json.loads(_done(partial, job).read_text())
        else:
            waiting.append(job)
    progress = _Progress(
        sum(len(_clips_of(job, splits)) for job in jobs),
        sum(len(_clips_of(job, splits)) for job in shards),
    )
    work = (str(partial), splits, encode, fields, strict)
    try:
        try:
            with (
                contextlib.closing(progress),
                contextlib.closing(_shards(waiting, work, processes)) as written,
            ):
                for job, shard in written:
                    shards[job] = shard
                    progress.add(len(_clips_of(job, splits)))
        finally:
            if not any(_done(partial, job).is_file() for job in jobs):  # nothing to go on with
                shutil.rmtree(partial, ignore_errors=True)
        return _finish(out, partial, splits, [(job, shards[job]) for job in jobs], fields, about)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f'{out}: the disk is full after {len(shards)} of {len(jobs)} shards; free space and '
            'give the same command '
            f'again to go on, or remove {partial}'
        ) from error


def _check_names(splits):
    seen = {}
    for split, source in splits.items():
        for index in range(len(source)):
            name = source.name(index)
            if name in seen:
                raise UserError(
                    f'{split} and {seen[name]}: both have a clip {name}; rename one of its files'
                )
            seen[name] = split


def _begin(partial, splits, about) -> list[tuple[str, int]]:
    """Makes the folder, or checks that it was begun with the same clips and settings. Returns the
    jobs, (split, shard).
    """
    names = {
        split: [source.name(index) for index in range(len(source))]
        for split, source in splits.items()
    }
    clips = {
        split: hashlib.sha256('\n'.join(names[split]).encode()).hexdigest() for split in splits
    }
    plan = json.loads(json.dumps({'format': records.FORMAT, 'clips': clips, **about}))
    file = partial / PLAN
    if file.is_file():
        begun = json.loads(file.read_text())
        changed = [name for name in plan.keys() | begun.keys() if plan.get(name) != begun.get(name)]
        if changed:
            raise UserError(
                f'{partial}: was begun with other {", ".join(sorted(changed))}; give the same '
                'command again to go on, '
                'or remove that folder'
            )
    else:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_text(file, json.dumps(plan))
    return [
        (split, number)
        for split, source in splits.items()
        for number in range(-(-len(source) // CLIPS_PER_SHARD))
    ]


def _clips_of(job, splits):
    split, number = job
    return range(len(splits[split]))[number * CLIPS_PER_SHARD : (number + 1) * CLIPS_PER_SHARD]


def _done(partial, job) -> pathlib.Path:
    return pathlib.Path(partial, f'{job[0]}-{job[1]:05d}.json')


def _shards(jobs, work, processes):
    """Yields (job, what `_shard` returned) as they are done."""
    processes = min(processes, len(jobs))
    if processes <= 1:
        yield from ((job, _shard(job, *work)) for job in jobs)
        return
    context = multiprocessing.get_context(
        'spawn'
    )  # fork would copy the threads of an accelerator's runtime
    with concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, work) as pool:
        futures = {pool.submit(_work, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
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

    file = _file(partial, job)
    try:
        about['bytes'] = tfds_layout.write_shard(f'{file}.partial', rows(), fields)
        os.replace(f'{file}.partial', file)
        _write_text(_done(partial, job), json.dumps(about))
    except BaseException as error:
        # Before the file goes, with which there is space again. The record writer's error has the
        # system's text but not its number.
        full = (
            isinstance(error, Exception)
            and not isinstance(error, UserError)
            and (disk_full(error) is not None or shutil.disk_usage(partial).free < 1 << 20)
        )
        with contextlib.suppress(OSError):
            os.unlink(f'{file}.partial')
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
        raise
    return about


def _file(partial, job) -> pathlib.Path:
    return pathlib.Path(partial, f'{job[0]}-{job[1]:05d}.array_record')


def _finish(out, partial, splits, shards, fields, about) -> dict:
    """Describes the shards, writes the manifest and gives the folder its name."""
    from re2pix_jax.data import tfds_layout

    manifest = {split: {'clips': [], 'left_out': []} for split in splits}
    files = {split: [] for split in splits}
    for job, shard in shards:
        for name in ('clips', 'left_out'):
            manifest[job[0]][name] += shard[name]
        if shard['clips']:
            files[job[0]].append(
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
    tfds_layout.describe(partial, {split: files[split] for split in there}, fields)
    _write_text(
        partial / records.MANIFEST,
        json.dumps(
            {'format': records.FORMAT, **about, 'fields': fields, 'splits': there, 'empty': empty}
        ),
    )
    for job, _ in shards:
        _done(partial, job).unlink()
    (partial / PLAN).unlink()
    os.rename(partial, out)
    return manifest


def _write_text(file, text) -> None:
    partial = file.with_name(file.name + '.partial')
    partial.write_text(text + '\n')
    os.replace(partial, file)


def write_frames(
    out,
    splits: dict,
    image_format: str = 'png',
    quality: int = 95,
    size=None,
    processes: int = 1,
    strict: bool = False,
    source: str = '',
) -> dict:
    """Writes clips of frames, labels and depth, see `Frames` and `write`.

    source: what the manifest says about where the clips come from.
    """
    about = {
        'source': source,
        'image_format': image_format,
        'quality': quality if image_format == 'jpeg' else None,
        'frames_cover': list(size) if size else None,
    }
    return write(
        out, splits, Frames(image_format, quality, size), records.FIELDS, about, processes, strict
    )


class Frames:
    """Encodes a clip's frames as images at the wanted size, its labels and depth without loss as
    they are.

    Args:
        image_format: 'png' (lossless) or 'jpeg' of `quality`.
        size: (height, width); frames are scaled down, keeping their aspect, until they just cover
            it. None: never.
    """

    def __init__(self, image_format: str, quality: int = 95, size=None):
        if image_format not in ('png', 'jpeg'):
            raise UserError(f'image format {image_format!r}: expected png or jpeg')
        self.image_format, self.size = image_format, size
        # Colour at half the resolution [O]: as video has it, a third smaller and a third faster to
        # read.
        self.options = (
            {'quality': quality, 'subsampling': '4:2:0'} if image_format == 'jpeg' else {}
        )

    def __call__(self, source, index):
        coding = getattr(source, 'depth_coding', lambda _: records.CENTIMETRES)(index)
        rows, count = [], source.num_frames(index)
        about = {'size': None, 'labelled': 0, 'label_size': None, 'depth': None, 'depth_size': None}
        for start in range(0, count, BLOCK):
            clip = source.read(index, range(start, min(start + BLOCK, count)))
            for frame, labels, depth in zip(
                clip['frames'], clip['labels'], clip['depth'], strict=True
            ):
                frame = windows.cover(frame, self.size) if self.size else frame
                row = {
                    'frames': _image(frame, self.image_format, **self.options),
                    'labels': b'',
                    'depth': b'',
                }
                if about['size'] not in (None, list(frame.shape[:2])):
                    raise UserError(
                        f'{source.name(index)}: frame {len(rows)} has {list(frame.shape[:2])} '
                        'pixels, those before '
                        f'{about["size"]}; expected one size in a clip'
                    )
                about['size'] = list(frame.shape[:2])
                if (labels != IGNORE).any():
                    row['labels'] = _image(labels, 'png')
                    about |= {'labelled': about['labelled'] + 1, 'label_size': list(labels.shape)}
                if depth.any():
                    row['depth'] = _image(records.counts_of(depth, coding), 'png')
                    about |= {'depth': list(coding), 'depth_size': list(depth.shape)}
                rows.append(row)
        return rows, about


def _image(array, image_format, **options) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(encoded, image_format, **options)
    return encoded.getvalue()


class _Progress:
    """A bar on a terminal; otherwise a plain line every ten seconds and at the end."""

    def __init__(self, total, done):
        self.total, self.done, self.first = total, done, done
        self.began = self.told = time.monotonic()
        self.bar = (
            tqdm.tqdm(total=total, initial=done, desc='prepare', unit='clip')
            if sys.stderr.isatty()
            else None
        )
        if done and not self.bar:
            print(f'prepare: going on after {done} of {total} clips', file=sys.stderr, flush=True)

    def add(self, clips):
        self.done += clips
        if self.bar:
            self.bar.update(clips)
            return
        now = time.monotonic()
        if now - self.told >= 10 or self.done == self.total:
            self.told, rate = now, (self.done - self.first) / max(now - self.began, 1e-9)
            print(
                f'prepare: {self.done}/{self.total} clips, {rate:.1f} clips/s, '
                f'{(self.total - self.done) / rate:.0f} s left',
                file=sys.stderr,
                flush=True,
            )

    def close(self):
        if self.bar:
            self.bar.close()
