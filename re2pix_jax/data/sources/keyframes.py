"""Windows from every key frame on: many of a clip, where other evaluations look at one."""

from re2pix_jax.errors import UserError


class FromKeyframes:
    """The clips of a source, each from one of its key frames on, as clips of their own; those that
    have `span` native frames from there. A `Source`.

    Raises:
        UserError: the source does not tell its key frames.
    """

    def __init__(self, source, name: str, span: int):
        if not hasattr(source, 'keyframes'):
            raise UserError(
                f'{name}: does not tell key frames, from which on data.window="keyframes" looks; '
                'give the folder as published, such as nuscenes:FOLDER'
            )
        self.source = source
        self.places = [
            (clip, first)
            for clip in range(len(source))
            for first in source.keyframes(clip)
            if first + span <= source.num_frames(clip)
        ]

    def __len__(self):
        return len(self.places)

    def num_frames(self, index):
        clip, first = self.places[index]
        return self.source.num_frames(clip) - first

    def fps(self, index):
        return self.source.fps(self.places[index][0])

    def name(self, index):
        clip, first = self.places[index]
        return f'{self.source.name(clip)}/{first:04d}'

    def problem(self, index):
        """As `Source` says."""
        return getattr(self.source, 'problem', lambda _: None)(self.places[index][0])

    def depth_kind(self, index):
        """As `Source` says."""
        of = getattr(self.source, 'depth_kind', lambda _: None)
        return of(self.places[index][0])

    def read(self, index, indices, labels=True):
        """As `Source.read`."""
        clip, first = self.places[index]
        return self.source.read(clip, [first + int(k) for k in indices], labels=labels)
