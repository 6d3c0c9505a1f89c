"""From sources to batches (grain): shuffle → repeat → mix → batch → this process's share → sample
windows.

The order of the records depends on the seed alone, and a window on (seed, epoch, record) alone. So
neither the number of
processes nor that of workers changes what a run sees, and its place in the data is one number: the
    batches it has had.
"""

import gc
import os
import sys

import grain
import numpy as np

from re2pix_jax.data import samples
from re2pix_jax.data import settings as fields
from re2pix_jax.data.sources import open_source
from re2pix_jax.errors import UserError


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
    settings = fields.read(data, batch_size, training)
    process = process or _process()
    if batch_size % process[1]:
        raise UserError(
            f'batch_size is {batch_size} but there are {process[1]} processes: choose a multiple '
            f'of {process[1]}'
        )
    sources = [
        open_source(name, settings['split'], fields.source_size(name, settings), settings['clips'])
        for name in settings['sources']
    ]
    usable = [samples.usable(number, source, settings) for number, source in enumerate(sources)]
    records, left_out = [ids for ids, _ in usable], [line for _, lines in usable for line in lines]
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
    sample = samples.Sample(sources, records, settings, seed)
    return Loader(
        dataset.map(samples.Share(sample, batch_size // process[1], process[0])),
        settings['workers'],
        {
            'batch_size': batch_size,
            'records': sum(map(len, records)),
            'contents': [getattr(source, 'contents', lambda: '')() for source in sources],
        },
        sample,
        left_out,
    )


class Loader:
    """Iterator of batches, dicts of numpy arrays.

    'frames' uint8 [B, T, H, W, 3], 'labels' uint8 [B, T, H, W], 'depth' float32 [B, T, H, W],
    'record' int64 [B]; in evaluation 'known' bool [B], False for a clip that could not be read
    (data.unreadable = 'skip'): its row counts for nothing. Labels and depth are left out with
    `data.labels = False`. From encoded sources 'components' float16 [B, T, h, w, P] and 'latents'
    float16 [B, T, H/f, W/f, c] come instead of these three.

    Attributes:
        skipped: clips that could not be used: in training others took their place, in
            evaluation they are left out.
        clips: how many there are, of all sources together.
    """

    def __init__(self, shares, workers: int, kept: dict, sample, left_out=()):
        self._shares, self._workers, self._kept, self._sample = shares, workers, kept, sample
        self.skipped, self.clips = 0, kept['records']
        self._skip(left_out)
        self._go_to(0)

    def __iter__(self):
        return self

    def __next__(self):
        try:
            batch = next(self._iterator)
        except UserError as error:  # grain appends a paragraph of its own about tracebacks
            raise UserError(str(error).partition('\n')[0]) from error
        self._batches += 1
        self._skip(batch.pop('skipped'))
        return batch

    def _skip(self, messages):
        for message in messages:
            self.skipped += 1
            print(f'skipped, {self.skipped} so far: {message}', file=sys.stderr, flush=True)

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
        if settings['sources'][0].startswith(fields.ENCODED):
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
            if name.startswith(fields.ENCODED)
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


def _process() -> tuple[int, int]:
    import jax  # here: worker processes must not start an accelerator's runtime

    return jax.process_index(), jax.process_count()
