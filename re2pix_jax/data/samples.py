"""From a record's number and an epoch to the arrays of one sampled clip, and of a batch's share.

Everything here travels to the worker processes, so it is picklable and knows no jax.
"""

import bisect
import sys

import numpy as np

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError

SOURCE = 1 << 40  # record = source * SOURCE + clip
_REPLACEMENTS = (
    8  # clips in a row that cannot be read, at which even data.unreadable = 'skip' stops
)


class Share:
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


class Sample:
    """(record, epoch) → one sampled clip."""

    def __init__(self, sources, records, settings, seed):
        self.sources, self.records, self.settings, self.seed = sources, records, settings, seed

    def name(self, record):
        number, index = divmod(record, SOURCE)
        return f'{self.settings["sources"][number]}/{self.sources[number].name(index)}'

    def __call__(self, asked):
        record, epoch = asked
        known = self.records[record // SOURCE]
        place, skipped = bisect.bisect_left(known, record), []
        while True:
            number, index = divmod(record, SOURCE)
            source, rng = self.sources[number], windows.generator(self.seed, epoch, record)
            window = self._window(record, source, index, rng)
            try:
                # Prepared frames come as images: what the crop cuts away is then never copied.
                read = getattr(source, 'read_images', source.read)
                clip = read(index, window, labels=self.settings['labels'])
                break
            except UserError as error:
                skipped.append(str(error))
                if self.settings['unreadable'] == 'stop':
                    raise
                if not self.settings['training']:  # another one would be scored twice
                    return self._blank(source) | {
                        'record': np.int64(record),
                        'known': np.bool_(False),
                        'skipped': skipped,
                    }
                if len(skipped) == min(_REPLACEMENTS, len(known)):
                    raise
                record = known[(place + len(skipped)) % len(known)]
        if 'frames' in clip:  # encoded clips have nothing to cut
            clip = self._cut(clip, rng)
        there = {} if self.settings['training'] else {'known': np.bool_(True)}
        return {**clip, **there, 'record': np.int64(record), 'skipped': skipped}

    def _blank(self, source) -> dict:
        """A clip of which nothing is known, in the shapes of the others."""
        settings = self.settings
        frames, size = settings['frames'], settings['size']
        if shapes := getattr(source, 'manifest', {}).get('shapes'):  # encoded clips
            return {name: np.zeros((frames, *shape), '<f2') for name, shape in shapes.items()}
        clip = {'frames': np.zeros((frames, *size, 3), np.uint8)}
        if settings['labels']:
            labels = frames, *(settings['label_size'] or size)
            clip |= {
                'labels': np.full(labels, IGNORE, np.uint8),
                'depth': np.zeros(labels, np.float32),
            }
        return clip

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
            return _evaluation_window(source, index, settings)
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


def _evaluation_window(source, index, settings):
    if settings['window'] == 'target':
        target = _target(source, index)
        return windows.target_window(target, settings['frames'], settings['strides'][0])
    return windows.evaluation_window(
        source.num_frames(index),
        _fps(source, index, settings),
        settings['frames'],
        settings['strides'][0],
        settings['start'],
    )


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
            'out or set data.window="start"'
        )
    return target


def usable(number: int, source, settings: dict) -> tuple[list[int], list[str]]:
    """(the records of a source that are long enough, a line for each clip that is left out).

    Raises:
        UserError: none is, or in evaluation one is not and data.unreadable is 'stop'.
    """
    name, ids = settings['sources'][number], list(range(len(source)))
    if not settings['training']:
        problems = {index: problem for index in ids if (problem := _short(source, index, settings))}
        lines = [f'{name}/{source.name(index)}: {problem}' for index, problem in problems.items()]
        if lines and (settings['unreadable'] == 'stop' or len(lines) == len(ids)):
            raise UserError(lines[0])
        return [number * SOURCE + index for index in ids if index not in problems], lines
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
            raise UserError(f'{name}: {what} even {source.name(longest)}: {error}') from error
    if short := len(source) - len(ids):
        before = (
            ' before the frame that their protocol predicts'
            if settings['window'] == 'target'
            else ''
        )
        print(
            f'{name}: {short} of {len(source)} clips are too short for {settings["frames"]} frames '
            f'at stride {min(settings["strides"])}{before} and are left out',
            file=sys.stderr,
            flush=True,
        )
    return [number * SOURCE + index for index in ids], []


def _short(source, index, settings) -> str | None:
    """Why a clip has no evaluation window, as far as its length tells; None where it has one."""
    try:
        _evaluation_window(source, index, settings)
    except UserError as error:
        return str(error)
    return None
