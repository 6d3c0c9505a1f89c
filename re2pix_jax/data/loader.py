"""From sources to batches (grain): shuffle → repeat → mix → batch → this process's share → sample
windows.

The order of the records depends on the seed alone, and a window on (seed, epoch, record) alone. So
neither the number of
processes nor that of workers changes what a run sees, and its place in the data is one number: the
    batches it has had.
"""

import bisect
import gc
import os
import sys

import grain
import numpy as np

from re2pix_jax.data import windows
from re2pix_jax.data.sources import open_source
from re2pix_jax.errors import UserError

_ENCODED = 'encoded:'
_SOURCE = 1 << 40  # record = source * _SOURCE + clip
_REPLACEMENTS = (
    8  # clips in a row that cannot be read, at which even data.unreadable = 'skip' stops
)


def create(
    data,
    batch_size: int,
    seed: int = 0,
    training: bool = True,
    process: tuple[int, int] | None = None,
) -> 'Loader':
    """An iterator of this process's shares of the batches.

    Training: batches without end, random windows, other ones in every epoch. Otherwise: one pass in
        order of the
    records, a fixed window at the first of `strides`, centre crop, no flip; the last batch may be
    smaller.

    Args:
        data: a ConfigDict (or anything with `get`):
            sources: tuple of 'world' | 'records:FOLDER' | 'videos:FOLDER' | a dataset's raw folder,
                see `open_source`, or all of them 'encoded:FOLDER'.
            weights: shares of the sources in training, positive; empty: equal. An epoch is counted
                for each source by itself.
            split: 'train' | 'validation' | 'test'.
            size: (height, width) of the batch.
            frames: frames in a clip, T.
            strides: in frames at 17 Hz; drawn uniformly in training.
            crop: (lo, hi), scale of the random crop; (1, 1): none.
            flip: probability of a horizontal flip.
            time_flip: probability that a training window runs backwards; default 0.
            labels: whether to decode labels and depth; default True.
            label_size: (height, width) of labels and depth; default (): `size`.
            clips: how many clips of the world; 0: its default.
            window: 'start' (anywhere in training; evaluation windows begin at the native frame
                `start`, default 0), 'native' (so too, but `strides` count native frames, as the
                published training on nuScenes and CoVLA does), or 'target' (in training too they
                end at the frame that the dataset's protocol predicts, the one with labels in
                Cityscapes; `strides` count native frames).
            unreadable: 'stop' (default) at a clip that cannot be read, or 'skip': another one takes
                its place, and each is named on stderr and counted (`Loader.skipped`).
            source_size: (height, width) at which the world is rendered and videos are fitted before
                the crop; default (): `size` for the world and for evaluation, `size` / lo for
                videos in training, so that crops of these are not blown up.
            workers: processes that read; 0: threads of this one.
        batch_size: clips in a batch, all processes together.
        seed: of order and windows.
        process: (index, count); default: those of jax.

    Raises:
        UserError: a source that can't be opened, settings that contradict each other, clips all too
            short for the window, a batch that the processes cannot share evenly.
    """
    settings = _settings(data, batch_size, training)
    process = process or _process()
    if batch_size % process[1]:
        raise UserError(
            f'batch_size is {batch_size} but there are {process[1]} processes: choose a multiple '
            f'of {process[1]}'
        )
    sources = [
        open_source(name, settings['split'], _source_size(name, settings), settings['clips'])
        for name in settings['sources']
    ]
    records = [_usable(number, source, settings) for number, source in enumerate(sources)]
    if training:
        # Epochs are counted before mixing: every source has its own.
        endless = [
            grain.MapDataset.source(_Endless(ids, seed, number))
            for number, ids in enumerate(records)
        ]
        dataset = (
            endless[0]
            if len(endless) == 1
            else grain.MapDataset.mix(endless, weights=settings['weights'])
        )
    else:
        ids = [record for of_source in records for record in of_source]
        dataset = grain.MapDataset.source([(record, 0) for record in ids])
    # Batched before anything is read: a share is then a function of its number, whoever reads it.
    dataset = dataset.batch(batch_size, drop_remainder=training, batch_fn=list)
    sample = _Sample(sources, records, settings, seed)
    return Loader(
        dataset.map(_Share(sample, batch_size // process[1], process[0])),
        settings['workers'],
        {
            'batch_size': batch_size,
            'records': sum(map(len, records)),
            'contents': [getattr(source, 'contents', lambda: '')() for source in sources],
        },
        sample,
    )


class Loader:
    """Iterator of batches, dicts of numpy arrays.

    'frames' uint8 [B, T, H, W, 3], 'labels' uint8 [B, T, H, W], 'depth' float32 [B, T, H, W],
    'record' int64 [B]. Labels and depth are left out with `data.labels = False`. From encoded
    sources 'components' float16 [B, T, h, w, P] and 'latents' float16 [B, T, H/f, W/f, c] come
    instead of these three.

    Attributes:
        skipped: clips that could not be read and were replaced.
        clips: how many there are, of all sources together.
    """

    def __init__(self, shares, workers: int, kept: dict, sample):
        self._shares, self._workers, self._kept, self._sample = shares, workers, kept, sample
        self.skipped, self.clips = 0, kept['records']
        self._go_to(0)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            batch = next(self._iterator)
        except UserError as error:  # grain appends a paragraph of its own about tracebacks
            raise UserError(str(error).partition('\n')[0]) from error
        self._batches += 1
        for message in batch.pop('skipped'):
            self.skipped += 1
            print(f'skipped, {self.skipped} so far: {message}', file=sys.stderr, flush=True)
        return batch

    def get_state(self) -> dict:
        """Where the iterator stands: a dict for JSON, the same on all processes. What is read ahead
        does not count.
        """
        return {**self._kept, 'batches': self._batches}

    def set_state(self, state: dict) -> None:
        """Goes on right after the batch at which `state` was taken.

        Raises:
            UserError: it was taken with another number of clips in a batch, or of records, or with
                clips that have been prepared anew and came out otherwise, with which it means other
                data.
        """
        for name in ('batch_size', 'records'):
            if state.get(name) != self._kept[name]:
                raise UserError(
                    f'data state: {name.replace("_", " ")} was {state.get(name)}, now '
                    f'{self._kept[name]}; '
                    'resume with the former number or start a new run'
                )
        # States of earlier versions do not say what the clips held.
        changed = [
            name
            for name, then, now in zip(
                self._sample.settings['sources'], state.get('contents', ()), self._kept['contents']
            )
            if then != now
        ]
        if changed:
            raise UserError(
                f'data state: {changed[0]} holds other clips than when it was saved; put the '
                'former ones back or start a '
                'new run'
            )
        self.close()
        self._go_to(state['batches'])

    @property
    def sources(self) -> list:
        """The opened `Source`s, as data.sources names them."""
        return self._sample.sources

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what a batch holds."""
        source, settings = self._sample.sources[0], self._sample.settings
        if settings['sources'][0].startswith(_ENCODED):
            return *source.manifest['shapes'], 'record'
        return 'frames', *(('labels', 'depth') if settings['labels'] else ()), 'record'

    def record_name(self, record: int) -> str:
        """What a number in 'record' stands for: 'source/clip'."""
        return self._sample.name(int(record))

    def encoded_by(self) -> dict:
        """{source: {name of a frozen network: sha256 of its bundle}} of the sources that come
        encoded.
        """
        return {
            name: source.parts
            for name, source in zip(self._sample.settings['sources'], self._sample.sources)
            if name.startswith(_ENCODED)
        }

    def depth_kinds(self) -> dict[str, set[str]]:
        """{source: what its depth is, {'metres'} or {'classes'}, or {} where no clip has any}, see
        `Source`.
        """
        kinds = {}
        for name, source in zip(self._sample.settings['sources'], self._sample.sources):
            of = getattr(source, 'depth_kind', lambda _: None)
            kinds[name] = {of(index) for index in range(len(source))} - {None}
        return kinds

    def close(self) -> None:
        """Ends the worker processes."""
        if hasattr(self._iterator, 'close'):
            self._iterator.close()
            # arrays in memory shared with the workers lie in cycles, and would be reported as
            # leaked at the end
            gc.collect()

    def _go_to(self, batches):
        self._batches, self._iterator = batches, _iterate(self._shares[batches:], self._workers)


class _Share:
    """A batch of (record, epoch) → the arrays of one process's rows. Picklable, for it travels to
    the workers.
    """

    def __init__(self, sample, size, index):
        self.sample, self.rows = sample, slice(index * size, (index + 1) * size)

    def __call__(self, asked):
        rows = asked[self.rows]
        # Of a last batch this process may have none: one is read for its shape.
        clips = [self.sample(row) for row in rows or asked[:1]]
        batch = {
            name: np.stack([clip[name] for clip in clips])[: len(rows)]
            for name in clips[0]
            if name != 'skipped'
        }
        return {**batch, 'skipped': [message for clip in clips for message in clip['skipped']]}


class _Sample:
    """(record, epoch) → one sampled clip."""

    def __init__(self, sources, records, settings, seed):
        self.sources, self.records, self.settings, self.seed = sources, records, settings, seed

    def name(self, record):
        number, index = divmod(record, _SOURCE)
        return f'{self.settings["sources"][number]}/{self.sources[number].name(index)}'

    def __call__(self, asked):
        record, epoch = asked
        known = self.records[record // _SOURCE]
        place, skipped = bisect.bisect_left(known, record), []
        while True:
            number, index = divmod(record, _SOURCE)
            source, rng = self.sources[number], windows.generator(self.seed, epoch, record)
            window = self._window(record, source, index, rng)
            try:
                # Prepared frames come as images: what the crop cuts away is then never copied.
                read = getattr(source, 'read_images', source.read)
                clip = read(index, window, labels=self.settings['labels'])
                break
            except UserError as error:
                skipped.append(str(error))
                if self.settings['unreadable'] == 'stop' or len(skipped) == min(
                    _REPLACEMENTS, len(known)
                ):
                    raise
                record = known[(place + len(skipped)) % len(known)]
        if 'frames' in clip:  # encoded clips have nothing to cut
            clip = self._cut(clip, rng)
        return {**clip, 'record': np.int64(record), 'skipped': skipped}

    def _window(self, record, source, index, rng):
        settings = self.settings
        try:
            if settings['training']:
                window = _random_window(rng, source, index, settings)
                return (
                    window[::-1]
                    if settings['time_flip'] and rng.random() < settings['time_flip']
                    else window
                )
            if settings['window'] == 'target':
                return windows.target_window(
                    _target(source, index), settings['frames'], settings['strides'][0]
                )
            return windows.evaluation_window(
                source.num_frames(index),
                _fps(source, index, settings),
                settings['frames'],
                settings['strides'][0],
                settings['start'],
            )
        except UserError as error:
            raise UserError(f'{self.name(record)}: {error}') from error

    def _cut(self, clip, rng):
        settings, size = self.settings, self.settings['size']
        height, width = windows.sides(clip['frames'])
        if settings['training']:
            box, flip = (
                windows.crop(rng, height, width, size, settings['crop']),
                rng.random() < settings['flip'],
            )
        else:
            box, flip = windows.centre_box(height, width, size), False
        return windows.apply(clip, box, size, flip, settings['label_size'])


def _random_window(rng, source, index, settings):
    if settings['window'] == 'target':
        return windows.random_target_window(
            rng, _target(source, index), settings['frames'], settings['strides']
        )
    return windows.window(
        rng,
        source.num_frames(index),
        _fps(source, index, settings),
        settings['frames'],
        settings['strides'],
    )


def _fits(source, index, settings) -> bool:
    """Whether the clip is long enough for a training window."""
    frames, fps = source.num_frames(index), _fps(source, index, settings)
    if settings['window'] == 'target':
        target = getattr(source, 'target', lambda _: None)(index)
        frames, fps = (0 if target is None or target >= frames else target + 1), None
    return bool(windows.fitting(frames, fps, settings['frames'], settings['strides']))


def _fps(source, index, settings):
    """The frame rate by which strides are made native ones, None where they are already."""
    return None if settings['window'] == 'native' else source.fps(index)


def _target(source, index) -> int:
    """The native frame that the protocol of the clip's dataset predicts."""
    target, frames = getattr(source, 'target', lambda _: None)(index), source.num_frames(index)
    if target is None:
        raise UserError('has no frame that a protocol evaluates; set data.window="start"')
    if target >= frames:
        raise UserError(
            f'{frames} frames are too few: the protocol predicts frame {target}; leave the clip '
            'out or set '
            'data.window="start"'
        )
    return target


class _Endless:
    """A source's records over and over, each epoch in an order of its own: position → (record,
    epoch).

    Not grain's shuffle, which takes ten milliseconds a record where there are few of them.
    """

    def __init__(self, ids, seed, number):
        self.ids, self.seed, self.number, self.orders = np.asarray(ids), seed, number, {}

    def __len__(self):
        return 1 << 48

    def __getitem__(self, position):
        epoch, place = divmod(int(position), len(self.ids))
        order = self.orders.get(epoch)
        if order is None:
            order = np.random.default_rng([self.seed, self.number, epoch]).permutation(self.ids)
            self.orders = {
                epoch - 1: self.orders.get(epoch - 1),
                epoch: order,
            }  # threads may still be in the one before
        return int(order[place]), epoch


def _iterate(dataset, workers):
    # Few batches are read ahead: grain's default of 500 would hold gigabytes of frames.
    threads = (
        1
        if workers
        else min(
            4,
            len(os.sched_getaffinity(0))
            if hasattr(os, 'sched_getaffinity')
            else os.cpu_count() or 1,
        )
    )
    iterable = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
    if workers:
        from absl import flags

        if (
            not flags.FLAGS.is_parsed()
        ):  # grain reads flags of its own, which outside of a command nobody has parsed
            flags.FLAGS.mark_as_parsed()
        iterable = iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    return iter(iterable)


def _settings(data, batch_size, training) -> dict:
    """The fields of `data` as plain values, checked."""
    get = data.get
    settings = {
        'sources': tuple(get('sources', ('world',))),
        'weights': tuple(get('weights', ()) or ()),
        'split': get('split', 'train'),
        'size': tuple(get('size', (64, 128))),
        'frames': get('frames', 8),
        'strides': tuple(get('strides', (3,))),
        'crop': tuple(get('crop', (1.0, 1.0))),
        'flip': get('flip', 0.0),
        'labels': get('labels', True),
        'label_size': tuple(get('label_size', ()) or ()),
        'time_flip': get('time_flip', 0.0),
        'clips': get('clips', 0),
        'window': get('window', 'start'),
        'start': get('start', 0),
        'unreadable': get('unreadable', 'stop'),
        'source_size': tuple(get('source_size', ()) or ()),
        'workers': get('workers', 0),
        'training': training,
    }
    settings['weights'] = settings['weights'] or (1.0,) * len(settings['sources'])
    low, high = settings['crop']
    for name, right, expected in (
        ('sources', settings['sources'], 'at least one source'),
        (
            'sources',
            len({name.startswith(_ENCODED) for name in settings['sources']}) <= 1,
            'all of them encoded, or none: a batch holds either features or frames',
        ),
        (
            'weights',
            len(settings['weights']) == len(settings['sources']) and min(settings['weights']) > 0,
            f'{len(settings["sources"])} positive numbers, one for each source',
        ),
        ('strides', settings['strides'] and min(settings['strides']) > 0, 'positive numbers'),
        ('crop', 0 < low <= high <= 1, '0 < lo <= hi <= 1'),
        ('flip', 0 <= settings['flip'] <= 1, 'a probability'),
        ('time_flip', 0 <= settings['time_flip'] <= 1, 'a probability'),
        (
            'window',
            settings['window'] in ('start', 'native', 'target'),
            '"start", "native" or "target"',
        ),
        ('unreadable', settings['unreadable'] in ('stop', 'skip'), '"stop" or "skip"'),
        (
            'label_size',
            len(settings['label_size']) in (0, 2) and min(settings['label_size'], default=1) > 0,
            '(height, width)',
        ),
        ('size', len(settings['size']) == 2 and min(settings['size']) > 0, '(height, width)'),
        ('frames', settings['frames'] > 0, 'at least 1'),
        ('start', settings['start'] >= 0, 'at least 0'),
        ('workers', settings['workers'] >= 0, 'at least 0'),
    ):
        if not right:
            raise UserError(f'data.{name} = {settings[name]}: expected {expected}')
    if training and settings['sources'][0].startswith(_ENCODED) and (low < 1 or settings['flip']):
        raise UserError(
            f'{settings["sources"][0]}: these frames were encoded whole and as they are; '
            'set data.crop=(1.0, 1.0) and data.flip=0'
        )
    if batch_size < 1:
        raise UserError(f'batch_size = {batch_size}: expected at least 1 clip')
    return settings


def _source_size(name, settings):
    if settings['source_size']:
        return settings['source_size']
    scale = (
        1.0 / settings['crop'][0] if name.startswith('videos:') and settings['training'] else 1.0
    )
    return tuple(int(np.ceil(side * scale)) for side in settings['size'])


def _usable(number, source, settings) -> list[int]:
    """The records of a source; in training those that are long enough, in evaluation all."""
    ids = range(len(source))
    if settings['training']:
        ids = [index for index in ids if _fits(source, index, settings)]
        if not ids:
            longest = max(range(len(source)), key=source.num_frames)
            try:
                _random_window(None, source, longest, settings)
            except UserError as error:
                what = (
                    'no clip can be used, not'
                    if settings['window'] == 'target'
                    else 'all clips are too short,'
                )
                raise UserError(
                    f'{settings["sources"][number]}: {what} even {source.name(longest)}: {error}'
                ) from error
        if short := len(source) - len(ids):
            before = (
                ' before the frame that their protocol predicts'
                if settings['window'] == 'target'
                else ''
            )
            print(
                f'{settings["sources"][number]}: {short} of {len(source)} clips are too short for '
                f'{settings["frames"]} frames at '
                f'stride {min(settings["strides"])}{before} and are left out',
                file=sys.stderr,
                flush=True,
            )
    return [number * _SOURCE + index for index in ids]


def _process() -> tuple[int, int]:
    import jax  # here: worker processes must not start an accelerator's runtime

    return jax.process_index(), jax.process_count()
