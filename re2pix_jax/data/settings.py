"""What a config says about its clips, as plain values, checked."""

import dataclasses
import math
from collections.abc import Mapping

from ml_collections import ConfigDict

from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.errors import UserError

ENCODED = 'encoded:'


@dataclasses.dataclass(frozen=True)
class Settings:
    """The fields of `config.data` and `config.eval_data`.

    Attributes:
        sources: 'world' | 'records:FOLDER' | 'videos:FOLDER' | a dataset's raw folder, see
            `open_source`, or all of them 'encoded:FOLDER'.
        weights: shares of the sources in training, positive; empty: equal. An epoch is counted for
            each source by itself.
        split: 'train' | 'validation' | 'test'.
        size: (height, width) of the batch.
        frames: frames in a clip, T.
        strides: in frames at 17 Hz; drawn uniformly in training, the first one in evaluation.
        crop: (lo, hi), scale of the random crop; (1, 1): none.
        flip: probability of a horizontal flip.
        time_flip: probability that a training window runs backwards.
        labels: whether to decode labels and depth.
        label_size: (height, width) of labels and depth; empty: `size`.
        clips: how many clips of the world; 0: its default.
        window: 'start' (anywhere in training; evaluation windows begin at the native frame
            `start`), 'native' (so too, but `strides` count native frames, as the published training
            on nuScenes and CoVLA does), 'target' (in training too they end at the frame that the
            dataset's protocol predicts, the one with labels in Cityscapes; `strides` count native
            frames), or in evaluation 'keyframes' (one from each key frame of a clip on; `strides`
            count native frames).
        start: native frame at which evaluation windows begin.
        unreadable: 'stop' at a clip that cannot be read, or in evaluation is too short, or 'skip':
            in training another one, drawn at random, takes its place, in evaluation it counts for
            nothing; each is named on stderr and counted (`Loader.skipped`). What a source knows to
            be bad is left out so in any case.
        least_share: of its clips that a source must be able to give; with fewer nothing begins.
        most_enlarged: share of the training windows whose crop may have fewer pixels than `size`.
        source_size: (height, width) at which the world is rendered and videos are fitted before the
            crop; empty: `size` for evaluation, `size` / lo in training, so that no crop is blown
            up.
        folder_fps: frames a second of image folders among videos.
        workers: processes that read; 0: threads of this one.
        training: batches without end, random windows; otherwise one pass.
    """

    sources: tuple[str, ...] = ('world',)
    weights: tuple[float, ...] = ()
    split: str = 'train'
    size: tuple[int, int] = (64, 128)
    frames: int = 8
    strides: tuple[int, ...] = (3,)
    crop: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    time_flip: float = 0.0
    labels: bool = True
    label_size: tuple[int, ...] = ()
    clips: int = 0
    window: str = 'start'
    start: int = 0
    unreadable: str = 'stop'
    least_share: float = 0.5
    most_enlarged: float = 1.0
    source_size: tuple[int, ...] = ()
    folder_fps: float = BASE_FPS
    workers: int = 0
    training: bool = True

    @classmethod
    def read(cls, data: ConfigDict | Mapping, training: bool) -> 'Settings':
        """The settings that `data` holds.

        Raises:
            UserError: a value that its field can't have, or fields that contradict each other.
        """
        values = {'training': training}
        for field in dataclasses.fields(cls)[:-1]:
            value = data.get(field.name, field.default)
            if isinstance(field.default, tuple):
                if not isinstance(value, tuple | list | None):
                    raise UserError(f'data.{field.name} = {value!r}: expected a tuple')
                value = tuple(value or ())
            values[field.name] = value
        values['weights'] = values['weights'] or (1.0,) * len(values['sources'])
        settings = cls(**values)
        settings._check()
        return settings

    @property
    def encoded(self) -> bool:
        """Whether the clips are components and latents rather than frames."""
        return self.sources[0].startswith(ENCODED)

    def size_of_source(self, name: str) -> tuple[int, int]:
        """(height, width) at which a source gives its frames, where it has a choice."""
        if self.source_size:
            return self.source_size
        chosen = self.training and name.partition(':')[0] in ('world', 'videos', 'table')
        scale = 1.0 / self.crop[0] if chosen else 1.0
        return tuple(math.ceil(side * scale) for side in self.size)

    def _check(self):
        low, high = self.crop if len(self.crop) == 2 else (0, 0)
        places = ('start', 'native', 'target', *(() if self.training else ('keyframes',)))
        pair = lambda sides: len(sides) == 2 and min(sides) > 0
        one_kind = len({name.startswith(ENCODED) for name in self.sources}) <= 1
        positive = len(self.weights) == len(self.sources) and min(self.weights, default=1) > 0
        for name, right, expected in (
            ('sources', self.sources, 'at least one source'),
            ('sources', one_kind, 'all of them encoded, or none'),
            ('weights', positive, f'{len(self.sources)} positive numbers, one for each source'),
            ('strides', self.strides and min(self.strides) > 0, 'positive numbers'),
            ('crop', 0 < low <= high <= 1, '0 < lo <= hi <= 1'),
            ('flip', 0 <= self.flip <= 1, 'a probability'),
            ('time_flip', 0 <= self.time_flip <= 1, 'a probability'),
            ('window', self.window in places, ', '.join(f'"{place}"' for place in places)),
            ('unreadable', self.unreadable in ('stop', 'skip'), '"stop" or "skip"'),
            ('least_share', 0 <= self.least_share <= 1, 'a share from 0 to 1'),
            ('most_enlarged', 0 <= self.most_enlarged <= 1, 'a share from 0 to 1'),
            ('label_size', not self.label_size or pair(self.label_size), '(height, width)'),
            ('source_size', not self.source_size or pair(self.source_size), '(height, width)'),
            ('size', pair(self.size), '(height, width)'),
            ('frames', self.frames > 0, 'at least 1'),
            ('start', self.start >= 0, 'at least 0'),
            ('folder_fps', self.folder_fps > 0, 'frames per second'),
            ('workers', self.workers >= 0, 'at least 0'),
        ):
            if not right:
                raise UserError(f'data.{name} = {getattr(self, name)}: expected {expected}')
        if self.training and self.encoded and (low < 1 or self.flip):
            raise UserError(
                f'{self.sources[0]}: these frames were encoded whole and as they are; set '
                'data.crop=(1.0, 1.0) and data.flip=0'
            )
