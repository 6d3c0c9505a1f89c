"""The procedural world as a source: clips of 30 frames at 17 Hz, rendered when they are asked for,
with true labels and depth.
"""

from re2pix_jax import world
from re2pix_jax.data import windows
from re2pix_jax.errors import UserError

TARGET = 19  # the frame that evaluation predicts
CLIPS = {
    'train': 1000,
    'validation': 64,
    'test': 64,
}  # [O] the world is endless; so many unless told otherwise


class World:
    """`clips` clips of `frames` frames of a split of the world, at `size` (height, width)."""

    def __init__(self, split: str, clips: int = 0, frames: int = 30, size=(64, 128)):
        if split not in CLIPS:
            raise UserError(f'split {split!r}: the world has {", ".join(CLIPS)}')
        if clips < 0 or frames < 1 or min(size) < 1:
            raise UserError(
                f'world: clips={clips}, frames={frames}, size={tuple(size)}: expected positive '
                'numbers'
            )
        self.split, self.clips, self.frames = split, clips or CLIPS[split], frames
        self.size = int(size[0]), int(size[1])

    def __len__(self):
        return self.clips

    def num_frames(self, index):
        return self.frames

    def fps(self, index):
        return windows.BASE_FPS

    def name(self, index):
        return f'{self.split}/{index:06d}'

    def size_of(self, index):
        return self.size

    def target(self, index):
        """As in Cityscapes' snippets [O], which are as long."""
        return TARGET

    def depth_kind(self, index):
        return 'metres'

    def read(self, index, indices, labels=True):
        clip = world.render(self.split, int(index), [int(k) for k in indices], self.size)
        truth = {'labels': clip.labels, 'depth': clip.depth} if labels else {}
        return {'frames': clip.frames, **truth}
