"""Sources to batches (grain): shuffle → repeat → mix → batch → this process's share → windows.

The order of the records depends on the seed alone, and a window on (seed, epoch, record) alone. So
neither the number of processes nor that of workers changes what a run reads, and its place in the
data is one number: the batches it has had.
"""

import sys
from collections.abc import Mapping, Sequence

import grain
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import ahead, selection, windows
from re2pix_jax.data.settings import ENCODED, Settings
from re2pix_jax.data.sources import keyframes, open_source
from re2pix_jax.data.sources.source import Source
from re2pix_jax.errors import UserError

_SOURCE = 1 << 40  # record = source * _SOURCE + clip
FAILURES = 8
"""Clips of a source that may turn out to be bad, whatever data.least_share says of so few."""
NAMED = 8  # of the clips left out on opening; the others are counted


def create(
    data: ConfigDict | Mapping,
    batch_size: int,
    seed: int = 0,
    training: bool = True,
    share: tuple[Sequence[int], int] | None = None,
) -> 'Loader':
    """An iterator of this process's shares of the batches.

    Training: batches without end, random windows, other ones in every epoch. Otherwise: one pass in
    order of the records, a fixed window at the first of `strides`, centre crop, no flip; the last
    batch may be smaller.

    Args:
        data: a ConfigDict (or anything with `get`) of the fields of `Settings`.
        batch_size: clips in a batch, all processes together.
        seed: of order and windows.
        share: (which, of how many) equal blocks of a batch this process reads, in order, as
            `training.mesh.share` gives it; default: all, where there is one process.

    Raises:
        UserError: a source that can't be opened, settings that contradict each other, clips too
            short for the window, fewer usable ones than data.least_share, crops that enlarge more
            than data.most_enlarged, depth of two kinds, a batch that cannot be shared evenly.
    """
    settings = Settings.read(data, training)
    blocks, count = share or _alone()
    if batch_size < 1:
        raise UserError(f'batch_size = {batch_size}: expected at least 1 clip')
    if batch_size % count:
        raise UserError(
            f'batch_size is {batch_size} but {count} devices share it: choose a multiple of {count}'
        )
    rows = np.arange(batch_size).reshape(count, -1)[list(blocks)].ravel()
    sources = [
        open_source(
            name,
            settings.split,
            settings.size_of_source(name),
            settings.clips,
            settings.folder_fps,
        )
        for name in settings.sources
    ]
    if settings.window == 'keyframes':  # of native frames, as their strides count
        span = windows.span(settings.frames, settings.strides[0], None)
        named = zip(sources, settings.sources, strict=True)
        sources = [keyframes.FromKeyframes(source, name, span) for source, name in named]
    records, left_out, enlarged = [], [], {}
    for number, (name, source) in enumerate(zip(settings.sources, sources, strict=True)):
        clips, problems = selection.usable(source, name, settings)
        records.append([number * _SOURCE + clip for clip in clips])
        left_out += problems
        enlarged[name] = selection.enlarged(source, name, clips, settings)
    if training:
        # Epochs are counted before mixing: every source has its own.
        endless = [
            grain.MapDataset.source(_Endless(ids, seed, number))
            for number, ids in enumerate(records)
        ]
        dataset = endless[0]
        if len(endless) > 1:
            dataset = grain.MapDataset.mix(endless, weights=settings.weights)
    else:
        dataset = grain.MapDataset.source([(record, 0) for ids in records for record in ids])
    # Batched before anything is read: a share is then a function of its number, whoever reads it.
    dataset = dataset.batch(batch_size, drop_remainder=training, batch_fn=list)
    sample = _Sample(sources, records, settings, seed)
    shares = dataset.map(_Share(sample, rows))
    return Loader(shares, sample, batch_size, rows, left_out, enlarged)


class Loader:
    """Iterator of batches, dicts of numpy arrays.

    'frames' uint8 [B, T, H, W, 3], 'labels' uint8 [B, T, H, W], 'depth' float32 [B, T, H, W],
    'record' int64 [B]. Labels and depth are left out with `data.labels = False`. From encoded
    sources 'components' float16 [B, T, h, w, P] and 'latents' float16 [B, T, H/f, W/f, c] come
    instead of these three. In evaluation also 'known' bool [B]: False for a clip that could not be
    read and counts for nothing (data.unreadable = 'skip'), so that the shares of all processes keep
    their sizes.

    Attributes:
        rows: places in a full batch of what is read here.
        skipped: clips that could not be read, or in evaluation were too short: replaced in
            training, left out in evaluation.
        clips: how many there are, of all sources together, without those that were left out on
            opening.
        enlarged: {source: share of the training windows whose crop is resized to more pixels}.
    """

    def __init__(self, shares, sample: '_Sample', batch_size: int, rows, left_out, enlarged):
        self._shares, self._sample, self.rows, self.enlarged = shares, sample, rows, enlarged
        self.skipped, self.clips = len(left_out), sum(map(len, sample.records))
        self._kept = {
            'batch_size': batch_size,
            'records': self.clips,
            'contents': [getattr(source, 'contents', lambda: '')() for source in self.sources],
        }
        if sample.settings.labels:
            self._check_depth()
        for number, message in enumerate(left_out[:NAMED], 1):
            _tell(number, message)
        if more := len(left_out[NAMED:]):
            _tell(len(left_out), f'and {more} more clips of the same sources')
        self._bad = set()
        self._go_to(0)

    def __iter__(self):
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            batch = next(self._iterator)
        except UserError as error:  # grain appends a paragraph of its own about tracebacks
            raise UserError(str(error).partition('\n')[0]) from error
        self._batches += 1
        for record, message in batch.pop('skipped'):
            if record not in self._bad:
                self._bad.add(record)
                self.skipped += 1
                _tell(self.skipped, message)
                self._sample.check_share(self._bad, record // _SOURCE, message)
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
                    f'{self._kept[name]}; resume with the former number or start a new run'
                )
        # States of earlier versions do not say what the clips held.
        now = self._kept['contents']
        for name, then, holds in zip(self._sample.settings.sources, state.get('contents', ()), now):
            if then != holds:
                raise UserError(
                    f'data state: {name} holds other clips than when it was saved; put the former '
                    'ones back or start a new run'
                )
        self.close()
        self._go_to(state['batches'])

    @property
    def sources(self) -> list[Source]:
        """The opened sources, as data.sources names them."""
        return self._sample.sources

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what a batch holds."""
        return *self._sample.blank(self.sources[0]), 'record'

    def record_name(self, record: int | np.integer) -> str:
        """What a number in 'record' stands for: 'source/clip'."""
        number, index = divmod(int(record), _SOURCE)
        return f'{self._sample.settings.sources[number]}/{self.sources[number].name(index)}'

    def encoded_by(self) -> dict[str, dict[str, str]]:
        """{source: {name of a frozen network: its identity}} of the sources that come encoded."""
        return {
            name: source.parts
            for name, source in zip(self._sample.settings.sources, self.sources, strict=True)
            if name.startswith(ENCODED)
        }

    def depth_kinds(self) -> dict[str, set[str]]:
        """{source: what the depth of its usable clips is, {'metres'} or {'classes'}, or {} where
        none has any}, see `Source`; no clip is opened for it.
        """
        kinds = {}
        for name, source, ids in zip(
            self._sample.settings.sources, self.sources, self._sample.records, strict=True
        ):
            of = getattr(source, 'depth_kind', lambda _: None)
            kinds[name] = {of(record % _SOURCE) for record in ids} - {None}
        return kinds

    def rates(self) -> list[float]:
        """Frames a second of the windows at the first stride, of each clip: those of a video of
        another rate than 17 Hz are not quite as far apart as asked.
        """
        settings = self._sample.settings
        native = settings.window in ('native', 'keyframes', 'target')
        found = []
        for source, ids in zip(self.sources, self._sample.records, strict=True):
            for fps in (source.fps(record % _SOURCE) for record in ids):
                step = windows.native_stride(settings.strides[0], None if native else fps)
                found.append(fps / step)
        return found

    def close(self) -> None:
        """Ends the worker processes."""
        self._iterator.close()

    def _check_depth(self):
        of = {kind: name for name, kinds in self.depth_kinds().items() for kind in kinds}
        if len(of) > 1:
            raise UserError(
                f'data.sources: depth is metres in {of["metres"]} but classes in {of["classes"]}; '
                'take sources of one kind, or set data.labels=False'
            )

    def _go_to(self, batches):
        self._batches = batches
        self._iterator = ahead.Ahead(self._shares[batches:], self._sample.settings.workers)


class _Share:
    """A batch of (record, epoch) → the arrays of one process's rows. Travels to the workers."""

    def __init__(self, sample, rows):
        self.sample, self.rows = sample, rows.tolist()

    def __call__(self, asked):
        rows = [asked[row] for row in self.rows if row < len(asked)]
        clips, messages = [], []
        for row in rows:
            clip, failed = self.sample(row)
            clips.append(clip)
            messages += failed
        clips = clips or [self.sample.missing(asked[0][0])]  # of a last batch it may have none
        batch = {name: np.stack([clip[name] for clip in clips])[: len(rows)] for name in clips[0]}
        return {**batch, 'skipped': messages}


class _Sample:
    """(record, epoch) → one sampled clip, and (record, message) of every one that could not be
    read.
    """

    def __init__(self, sources, records, settings, seed):
        self.sources, self.records, self.settings, self.seed = sources, records, settings, seed
        self._bad = set()  # counted, but read again: other frames of them may be good

    def __call__(self, asked):
        (record, epoch), failed, settings = asked, [], self.settings
        number, usable = record // _SOURCE, self.records[record // _SOURCE]
        rng = windows.generator(self.seed, epoch, record)
        others = np.random.default_rng([self.seed, epoch, record, 1])
        while True:
            try:
                clip = self._read(record, rng)
                return (clip if settings.training else {**clip, 'known': np.True_}), failed
            except UserError as error:
                if settings.unreadable == 'stop':
                    raise
                self._bad.add(record)
                failed.append((record, str(error)))
                if not settings.training:
                    return self.missing(record), failed
                self.check_share(self._bad, number, str(error))
                # Any other, not the next one, which would be seen twice as often as the rest.
                record = usable[others.integers(len(usable))]
                rng = np.random.default_rng(others.integers(1 << 62))  # as much of `others` always

    def check_share(self, bad, number, message):
        """Stops where too many of a source's clips turned out to be unreadable.

        Raises:
            UserError: fewer than data.least_share are left, and `FAILURES` or all are bad.
        """
        count, failed = len(self.records[number]), sum(x // _SOURCE == number for x in [*bad])
        most = (1 - self.settings.least_share) * count
        if failed >= max(min(FAILURES, count), most):
            raise UserError(
                f'{message}; {failed} of {count} clips of {self.settings.sources[number]} cannot '
                'be read: mend them, or set data.least_share'
            )

    def missing(self, record):
        """Stands where evaluation has no clip."""
        blank = self.blank(self.sources[record // _SOURCE])
        return {**blank, 'record': np.int64(record), 'known': np.False_}

    def blank(self, source):
        """A clip of which nothing is known."""
        settings, frames = self.settings, self.settings.frames
        if settings.encoded:
            return source.blank(frames)
        blank = {'frames': np.zeros((frames, *settings.size, 3), np.uint8)}
        if settings.labels:
            shape = frames, *(settings.label_size or settings.size)
            blank |= {'labels': np.full(shape, IGNORE, np.uint8), 'depth': np.zeros(shape, 'f4')}
        return blank

    def _read(self, record, rng):
        number, index = divmod(record, _SOURCE)
        source, settings = self.sources[number], self.settings
        window = selection.window(source, index, settings, rng)
        if settings.training and settings.time_flip and rng.random() < settings.time_flip:
            window = window[::-1]
        # Prepared frames come as images: what the crop cuts away is then never copied.
        read = getattr(source, 'read_images', source.read)
        clip = read(index, window, labels=settings.labels)
        if 'frames' in clip:  # encoded clips have nothing to cut
            clip = self._cut(clip, rng)
        return {**clip, 'record': np.int64(record)}

    def _cut(self, clip, rng):
        settings, size = self.settings, self.settings.size
        height, width = windows.sides(clip['frames'])
        box, flip = windows.centre_box(height, width, size), False
        if settings.training:
            box = windows.crop(rng, height, width, size, settings.crop)
            flip = rng.random() < settings.flip
        return windows.apply(clip, box, size, flip, settings.label_size or None)


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
            # Threads may still be in the one before.
            self.orders = {epoch - 1: self.orders.get(epoch - 1), epoch: order}
        return int(order[place]), epoch


def _tell(count, message):
    print(f'skipped, {count} so far: {message}', file=sys.stderr, flush=True)


def _alone():
    import jax  # here: worker processes must not start an accelerator's runtime

    assert jax.process_count() == 1, 'which process reads what has to be said'
    return (0,), 1
