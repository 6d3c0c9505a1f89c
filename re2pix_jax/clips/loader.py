"""From sources to batches (grain): this process's shard → shuffle → repeat → mix → sample a window → batch.

The order of the records depends on (seed, process, number of processes) alone, and a window on (seed, epoch, record)
alone, so the state of an iterator is a handful of counters and a run that resumes from it sees the very batches that
it would have seen.
"""

import os

import grain
import numpy as np

from re2pix_jax.clips import sampling
from re2pix_jax.clips.datasets import open_source
from re2pix_jax.errors import UserError

_ENCODED = 'encoded:'
_SOURCE = 1 << 40  # record = source * _SOURCE + clip


def create(data, batch_size: int, seed: int = 0, training: bool = True,
           process: tuple[int, int] | None = None) -> 'Loader':
    """An iterator of batches, of this process's share of the records.

    Training: batches without end, random windows, other ones in every epoch. Otherwise: one pass in order of the
    records, window from `start` at the first of `strides`, centre crop, no flip; the last batch may be smaller.

    Args:
        data: a ConfigDict (or anything with `get`):
            sources: tuple of 'world' | 'records:FOLDER' | 'videos:FOLDER', or all of them 'encoded:FOLDER'.
            weights: shares of the sources in training, positive; empty: equal. An epoch is counted for each source by
                itself.
            split: 'train' | 'validation' | 'test'.
            size: (height, width) of the batch.
            frames: frames in a clip, T.
            strides: in frames at 17 Hz; drawn uniformly in training.
            crop: (lo, hi), scale of the random crop; (1, 1): none.
            flip: probability of a horizontal flip.
            labels: whether to decode labels and depth; default True.
            clips: how many clips of the world; 0: its default.
            start: first native frame of the window in evaluation; default 0.
            source_size: (height, width) at which the world is rendered and videos are fitted before the crop; default
                (): `size` for the world and for evaluation, `size` / lo for videos in training, so that crops of these
                are not blown up.
            workers: processes that read; 0: threads of this one.
        batch_size: clips in a batch of this process (global batch / number of processes).
        seed: of order and windows.
        process: (index, count); default: those of jax.

    Raises:
        UserError: a source that can't be opened, settings that contradict each other, clips all too short for the
            window, fewer clips than processes.
    """
    settings = _settings(data, batch_size, training)
    process = process or _process()
    sources = [open_source(name, settings['split'], _source_size(name, settings), settings['clips'])
               for name in settings['sources']]
    records = [_usable(number, source, settings) for number, source in enumerate(sources)]
    index, count = process
    short = [name for name, ids in zip(settings['sources'], records) if len(ids) < count]
    if short and training or sum(map(len, records)) < count:
        raise UserError(f'{(short or settings["sources"])[0]}: fewer clips than the {count} processes that read; '
                        'use fewer processes or more clips')
    sample = _Sample(sources, settings, seed)
    if training:
        shards = []
        for number, ids in enumerate(records):
            shard = grain.MapDataset.source(ids[index::count]).shuffle(seed=_seed32(seed, number)).repeat()
            # The epoch is counted here, before mixing: every source has its own.
            shards.append(shard.map_with_index(_WithEpoch(len(ids[index::count]))))
        dataset = shards[0] if len(shards) == 1 else grain.MapDataset.mix(shards, weights=settings['weights'])
    else:
        ids = [record for of_source in records for record in of_source]
        dataset = grain.MapDataset.source(ids[index::count]).map(_WithEpoch.first)
    # Batches are made before the iterator: their order is then the same for any number of workers.
    dataset = dataset.map(sample).batch(batch_size, drop_remainder=training)
    kept = {'workers': settings['workers'], 'processes': count, 'batch_size': batch_size,
            'records': sum(map(len, records))}
    return Loader(_iterate(dataset, settings['workers']), kept, sample)


class Loader:
    """Iterator of batches, dicts of numpy arrays.

    'frames' uint8 [B, T, H, W, 3], 'labels' uint8 [B, T, H, W], 'depth' float32 [B, T, H, W], 'record' int64 [B].
    Labels and depth are left out with `data.labels = False`. From encoded sources 'components' float16 [B, T, h, w, P] and
    'latents' float16 [B, T, H/f, W/f, c] come instead of these three.
    """

    def __init__(self, iterator, kept: dict, sample):
        self._iterator, self._kept, self._sample = iterator, kept, sample

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return next(self._iterator)
        except UserError as error:  # grain appends a paragraph of its own about tracebacks
            raise UserError(str(error).partition('\n')[0]) from error

    def get_state(self) -> dict:
        """Where the iterator stands: a dict for JSON, the same on all processes. What is read ahead does not count."""
        return {**self._kept, 'position': self._iterator.get_state()}

    def set_state(self, state: dict) -> None:
        """Goes on right after the batch at which `state` was taken.

        Raises:
            UserError: it was taken with other numbers of workers, processes, clips in a batch or records, with which
                it means other data.
        """
        for name, kept in self._kept.items():
            if state.get(name) != kept:
                raise UserError(f'data state: {name.replace("_", " ")} was {state.get(name)}, now {kept}; '
                                'resume with the former number or start a new run')
        self._iterator.set_state(state['position'])

    def record_name(self, record: int) -> str:
        """What a number in 'record' stands for: 'source/clip'."""
        return self._sample.name(int(record))

    def encoded_by(self) -> dict:
        """{source: {name of a frozen network: sha256 of its bundle}} of the sources that come encoded."""
        return {name: source.parts for name, source in zip(self._sample.settings['sources'], self._sample.sources)
                if name.startswith(_ENCODED)}

    def close(self) -> None:
        """Ends the worker processes."""
        if hasattr(self._iterator, 'close'):
            self._iterator.close()


class _Sample:
    """(record, epoch) → one sampled clip. Picklable, for it travels to the workers."""

    def __init__(self, sources, settings, seed):
        self.sources, self.settings, self.seed = sources, settings, seed

    def name(self, record):
        number, index = divmod(record, _SOURCE)
        return f'{self.settings["sources"][number]}/{self.sources[number].name(index)}'

    def __call__(self, asked):
        record, epoch = asked
        number, index = divmod(record, _SOURCE)
        source, settings, size = self.sources[number], self.settings, self.settings['size']
        native = source.num_frames(index), source.fps(index), settings['frames']
        rng = sampling.generator(self.seed, epoch, record)
        try:
            if settings['training']:
                window = sampling.window(rng, *native, settings['strides'])
            else:
                window = sampling.evaluation_window(*native, settings['strides'][0], settings['start'])
        except UserError as error:
            raise UserError(f'{self.name(record)}: {error}') from error
        clip = source.read(index, window, labels=settings['labels'])
        if 'frames' not in clip:  # encoded: nothing to cut
            return {**clip, 'record': np.int64(record)}
        height, width = clip['frames'].shape[1:3]
        if settings['training']:
            box, flip = sampling.crop(rng, height, width, size, settings['crop']), rng.random() < settings['flip']
        else:
            box, flip = sampling.centre_box(height, width, size), False
        return {**sampling.apply(clip, box, size, flip), 'record': np.int64(record)}


class _WithEpoch:
    """record at a position of the endless shard → (record, epoch)."""

    def __init__(self, length):
        self.length = length

    def __call__(self, position, record):
        return record, position // self.length

    @staticmethod
    def first(record):
        return record, 0


def _iterate(dataset, workers):
    # A buffer of a few batches: grain's default of 500 would hold gigabytes of frames.
    threads = 1 if workers else max(1, min(4, os.cpu_count() or 1))
    iterable = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    if workers:
        from absl import flags
        if not flags.FLAGS.is_parsed():  # grain reads flags of its own, which outside of a command nobody has parsed
            flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(iterable)


def _settings(data, batch_size, training) -> dict:
    """The fields of `data` as plain values, checked."""
    get = data.get
    settings = {
        'sources': tuple(get('sources', ('world',))), 'weights': tuple(get('weights', ()) or ()),
        'split': get('split', 'train'),
        'size': tuple(get('size', (64, 128))), 'frames': get('frames', 8), 'strides': tuple(get('strides', (3,))),
        'crop': tuple(get('crop', (1.0, 1.0))), 'flip': get('flip', 0.0), 'labels': get('labels', True),
        'clips': get('clips', 0),
        'start': get('start', 0), 'source_size': tuple(get('source_size', ()) or ()), 'workers': get('workers', 0),
        'training': training}
    settings['weights'] = settings['weights'] or (1.0,) * len(settings['sources'])
    low, high = settings['crop']
    for name, right, expected in (
            ('sources', settings['sources'], 'at least one source'),
            ('sources', len({name.startswith(_ENCODED) for name in settings['sources']}) <= 1,
             'all of them encoded, or none: a batch holds either features or frames'),
            ('weights', len(settings['weights']) == len(settings['sources']) and min(settings['weights']) > 0,
             f'{len(settings["sources"])} positive numbers, one for each source'),
            ('strides', settings['strides'] and min(settings['strides']) > 0, 'positive numbers'),
            ('crop', 0 < low <= high <= 1, '0 < lo <= hi <= 1'),
            ('flip', 0 <= settings['flip'] <= 1, 'a probability'),
            ('size', len(settings['size']) == 2 and min(settings['size']) > 0, '(height, width)'),
            ('frames', settings['frames'] > 0, 'at least 1'),
            ('start', settings['start'] >= 0, 'at least 0'),
            ('workers', settings['workers'] >= 0, 'at least 0')):
        if not right:
            raise UserError(f'data.{name} = {settings[name]}: expected {expected}')
    if training and settings['sources'][0].startswith(_ENCODED) and (low < 1 or settings['flip']):
        raise UserError(f'{settings["sources"][0]}: these frames were encoded whole and as they are; '
                        'set data.crop=(1.0, 1.0) and data.flip=0')
    if batch_size < 1:
        raise UserError(f'batch_size = {batch_size}: expected at least 1 clip for every process')
    return settings


def _source_size(name, settings):
    if settings['source_size']:
        return settings['source_size']
    scale = 1.0 / settings['crop'][0] if name.startswith('videos:') and settings['training'] else 1.0
    return tuple(int(np.ceil(side * scale)) for side in settings['size'])


def _usable(number, source, settings) -> list[int]:
    """The records of a source; in training those that are long enough, in evaluation all: none may be lost unseen."""
    ids = range(len(source))
    if settings['training']:
        needed = settings['frames'], settings['strides']
        ids = [index for index in ids if sampling.fitting(source.num_frames(index), source.fps(index), *needed)]
        if not ids:
            longest = max(range(len(source)), key=source.num_frames)
            try:
                sampling.window(None, source.num_frames(longest), source.fps(longest), *needed)
            except UserError as error:
                raise UserError(f'{settings["sources"][number]}: all clips are too short, even {source.name(longest)}: '
                                f'{error}') from error
    return [number * _SOURCE + index for index in ids]


def _seed32(seed, number) -> int:
    """A seed for the order of one source, in the 32 bits that grain takes."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _process() -> tuple[int, int]:
    import jax  # here: worker processes must not start an accelerator's runtime
    return jax.process_index(), jax.process_count()
