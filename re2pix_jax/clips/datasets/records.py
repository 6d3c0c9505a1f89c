"""Prepared clips: ArrayRecord files in the layout of tensorflow-datasets, written and read without TensorFlow.

A record is one clip. Its frames are separate encoded images, so that reading a window decodes no others:

    name    bytes
    frames  PNG (lossless) or JPEG, one per frame
    labels  8-bit PNG of train ids, one per frame
    depth   16-bit PNG in centimetres, one per frame: rounded to 0.01 m, 0 = unknown, at most 655.35 m

Frames without any label (or depth) store empty bytes. Beside the records lies `manifest.json`: format version, source,
size, and for each split the number of clips, their names, frames and rates. `tfds.data_source` and
`tfds.builder_from_directory` open the folder too.
"""

import concurrent.futures
import contextlib
import errno
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import shutil
import sys
import time

import numpy as np
import tqdm
from PIL import Image

from re2pix_jax.clips.datasets import IGNORE
from re2pix_jax.errors import UserError

FORMAT = 1
MANIFEST = 'manifest.json'
FIELDS = ['frames', 'labels', 'depth']
CENTIMETRE = 0.01


class Records:
    """The clips of one split of a prepared folder; decodes only the frames it is asked for.

    Raises:
        UserError: no prepared folder, another format version, or no such split.
    """

    def __init__(self, path, split: str = 'train'):
        self.path = pathlib.Path(path)
        self.manifest = read_manifest(self.path)
        if split not in self.manifest['splits']:
            raise UserError(f'{path}: no split {split!r}, there is {", ".join(self.manifest["splits"])}')
        if self.manifest.get('fields', FIELDS) != FIELDS:
            raise UserError(f'{path}: holds {", ".join(self.manifest["fields"])} rather than frames; '
                            f'expected as source: "encoded:{path}"')
        self.clips = self.manifest['splits'][split]
        self._reader = open_reader(self.path, split)

    def __len__(self):
        return self.clips['count']

    def num_frames(self, index):
        return self.clips['frames'][index]

    def fps(self, index):
        return self.clips['fps'][index]

    def name(self, index):
        return self.clips['names'][index]

    def read(self, index, indices, labels=True):
        try:
            record = self._reader[int(index)]
            clip = {'frames': np.stack([_decode(record['frames'][k]) for k in indices])}
            if labels:
                shape = clip['frames'].shape[1:3]
                clip['labels'] = np.stack([_decode_or(record['labels'][k], shape, IGNORE, np.uint8) for k in indices])
                depth = np.stack([_decode_or(record['depth'][k], shape, 0, np.uint16) for k in indices])
                clip['depth'] = depth.astype(np.float32) * np.float32(CENTIMETRE)
        except Exception as error:  # damaged data shows in many ways: the reader's, the parser's, the image decoder's
            raise UserError(f'{self.path}: record {index} ({self.name(index)}) can\'t be read ({reason(error)}); '
                            'prepare the folder again') from error
        return clip


def write(out, splits: dict, image_format: str = 'png', quality: int = 95, processes: int | None = None,
          source: str = '') -> None:
    """Writes the clips of each split's source to the folder `out`, several clips at a time.

    Everything goes to `out`.partial, which becomes `out` at the end; on failure it is removed.

    Args:
        splits: name → `Source`.
        image_format: 'png' (lossless) or 'jpeg' (of `quality`) for the frames.
        processes: how many processes read and encode clips; None: one per core.
        source: what the manifest says about where the clips come from.

    Raises:
        UserError: `out` exists already, an unknown image format, or what a source raises.
        OSError: the disk is full.
    """
    if image_format not in ('png', 'jpeg'):
        raise UserError(f'image format {image_format!r}: expected png or jpeg')
    write_folder(out, splits, _encoded(splits, image_format, quality, processes), FIELDS,
                 {'source': source, 'image_format': image_format})


def write_folder(out, splits: dict, encoding, fields, about: dict) -> None:
    """Writes a folder of records and its manifest whole or not at all, see `write`.

    Args:
        splits: name → `Source`, of which only the length is used.
        encoding: context manager of a function split → iterator of (record, frame rate, [height, width]).
        fields: names of what a record holds for every frame.
        about: what else the manifest says.
    """
    out = pathlib.Path(out)
    if out.exists():
        raise UserError(f'{out}: exists already; remove it or choose another folder')
    partial = out.with_name(out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    failures = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        kept = {split: {'count': len(clips), 'names': [], 'frames': [], 'fps': []} for split, clips in splits.items()}
        with encoding as encoded:
            size = _write_tfds(partial, splits, kept, encoded, fields, failures)
        manifest = {'format': FORMAT, **about, 'fields': fields, 'size': size, 'splits': kept}
        (partial / MANIFEST).write_text(json.dumps(manifest) + '\n')
        os.rename(partial, out)
    except BaseException as error:
        full = out.parent.exists() and shutil.disk_usage(out.parent).free < 1 << 20
        shutil.rmtree(partial, ignore_errors=True)
        if failures:
            raise failures[0] from None  # the source's own error rather than what the writer made of it
        if full and isinstance(error, Exception):  # the record writer does not say so itself
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out)) from error
        raise


def _write_tfds(partial, splits, kept, encoded, fields, failures) -> list[int]:
    """Feeds the encoded clips to a TFDS builder; fills in `kept`, the manifest's splits. Returns [height, width]."""
    from re2pix_jax.clips.datasets import tfds_layout
    size = []

    def feed(split):
        try:
            numbers = _progress(range(len(splits[split])), f'prepare {split}')
            for number, (example, fps, shape) in zip(numbers, encoded(split)):
                if size and size != shape:
                    raise UserError(f'{split} clip {number}: {shape} pixels, those before it {size}; expected one size')
                size[:] = shape
                kept[split]['names'].append(example['name'].decode())
                kept[split]['frames'].append(len(example[fields[0]]))
                kept[split]['fps'].append(fps)
                yield example
        except Exception as error:
            failures.append(error)
            raise

    tfds_layout.build(partial, {split: feed(split) for split in splits}, fields)
    return size


def open_reader(path, split):
    """The records of a split, by index."""
    import tensorflow_datasets as tfds  # here: half a second that other sources need not wait for
    try:
        return tfds.builder_from_directory(path).as_data_source(split)
    except Exception as error:
        raise UserError(f'{path}: the records can\'t be opened ({reason(error)}); '
                        'prepare the folder again') from error


@contextlib.contextmanager
def _encoded(splits, image_format, quality, processes):
    """A function split → its encoded clips in order, from a pool of processes few of them on the way at a time."""
    processes = processes or os.cpu_count() or 1
    if processes == 1:
        yield lambda split: (_encode(splits[split], i, image_format, quality) for i in range(len(splits[split])))
        return
    context = multiprocessing.get_context('spawn')  # fork would copy the threads of an accelerator's runtime
    work = splits, image_format, quality
    with concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, work) as pool:
        def ordered(split):
            jobs = iter(range(len(splits[split])))
            waiting = [pool.submit(_work, split, index) for index in itertools.islice(jobs, 2 * processes)]
            while waiting:
                yield waiting.pop(0).result()
                waiting.extend(pool.submit(_work, split, index) for index in itertools.islice(jobs, 1))
        try:
            yield ordered
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(*work):
    global _of_this_worker
    _of_this_worker = work


def _work(split, index):
    splits, image_format, quality = _of_this_worker
    return _encode(splits[split], index, image_format, quality)


def _encode(source, index, image_format, quality):
    """One clip as (record, frame rate, [height, width])."""
    clip = source.read(index, range(source.num_frames(index)))
    options = {'quality': quality, 'subsampling': 0} if image_format == 'jpeg' else {}
    known = np.clip(np.rint(clip['depth'] / CENTIMETRE), 1, 65535)
    centimetres = np.where(clip['depth'] > 0, known, 0).astype(np.uint16)
    record = {
        'name': source.name(index).encode(),
        'frames': [_image(frame, image_format, **options) for frame in clip['frames']],
        'labels': [b'' if (labels == IGNORE).all() else _image(labels, 'png') for labels in clip['labels']],
        'depth': [_image(depth, 'png') if depth.any() else b'' for depth in centimetres],
    }
    return record, float(source.fps(index)), [int(side) for side in clip['frames'].shape[1:3]]


def _image(array, image_format, **options) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, image_format, **options)
    return encoded.getvalue()


def _decode(encoded) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


def _decode_or(encoded, shape, unknown, dtype) -> np.ndarray:
    return _decode(encoded).astype(dtype, copy=False) if encoded else np.full(shape, unknown, dtype)


def read_manifest(path) -> dict:
    file = path / MANIFEST
    if not file.is_file():
        raise UserError(f'{path}: no prepared clips there (no {MANIFEST}); make them with python -m re2pix_jax.prepare')
    try:
        manifest = json.loads(file.read_text())
        version = manifest['format']
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file}: not a manifest of prepared clips; prepare the folder again') from error
    if version != FORMAT:
        raise UserError(f'{file}: format {version}, this version reads format {FORMAT}; prepare the folder again')
    return manifest


def reason(error) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__


def _progress(items, label):
    """A bar on a terminal; otherwise a plain line every ten seconds and at the end."""
    if sys.stderr.isatty():
        yield from tqdm.tqdm(items, desc=label, unit='clip')
        return
    began = told = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - told >= 10 or done == len(items):
            told, rate = now, done / max(now - began, 1e-9)
            print(f'{label}: {done}/{len(items)} clips, {rate:.1f} clips/s, {(len(items) - done) / rate:.0f} s left',
                  file=sys.stderr, flush=True)
