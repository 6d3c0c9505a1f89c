"""Prepares driving clips once, so that training reads them fast: frames, labels and depth in ArrayRecord files.

    python -m re2pix_jax.prepare world --out data/world --clips 1000 --validation_clips 64 --size 64x128
    python -m re2pix_jax.prepare videos --raw my_videos --out data/videos --size 128x256 --image_format jpeg

world: the procedural driving world, with labels and depth. videos: a folder of mp4 files or image folders; a subfolder
`validation` is that split, else about a tenth of the files is. Train on the result with
--config.data.sources="('records:data/world',)".
"""

import os

from absl import flags

from re2pix_jax import cli
from re2pix_jax.clips.datasets import records
from re2pix_jax.errors import UserError

flags.DEFINE_string('raw', None, 'Folder with the raw data (videos).')
flags.DEFINE_string('out', None, 'Folder to write; must not exist yet.')
flags.DEFINE_string('size', '64x128', 'HEIGHTxWIDTH of the frames in pixels.')
flags.DEFINE_integer('clips', 1000, 'Training clips of the world.', lower_bound=1)
flags.DEFINE_integer('validation_clips', 64, 'Validation clips of the world.', lower_bound=1)
flags.DEFINE_integer('frames', 30, 'Frames in a clip of the world, at 17 Hz.', lower_bound=1)
flags.DEFINE_enum('image_format', 'png', ['png', 'jpeg'], 'How frames are stored: png is lossless, jpeg much smaller.')
flags.DEFINE_integer('quality', 95, 'Quality of jpeg.', lower_bound=1, upper_bound=100)
flags.DEFINE_integer('processes', 0, 'Processes that render or decode; 0: one per core.', lower_bound=0)


def main(argv):
    FLAGS = flags.FLAGS
    if len(argv) != 2 or argv[1] not in SOURCES:
        raise UserError(f'prepare {" ".join(argv[1:])}: expected one dataset: {" or ".join(SOURCES)}')
    if not FLAGS.out:
        raise UserError('prepare: --out is missing; give the folder to write')
    splits, told = SOURCES[argv[1]](FLAGS, _size(FLAGS.size))
    records.write(FLAGS.out, splits, image_format=FLAGS.image_format, quality=FLAGS.quality,
                  processes=FLAGS.processes or os.cpu_count(), source=told)
    print(f'{FLAGS.out}: ' + ', '.join(f'{len(clips)} {split} clips' for split, clips in splits.items()))


def _world(FLAGS, size):
    from re2pix_jax.clips.datasets.world import World
    counts = {'train': FLAGS.clips, 'validation': FLAGS.validation_clips}
    return {split: World(split, clips, FLAGS.frames, size) for split, clips in counts.items()}, 'world'


def _videos(FLAGS, size):
    from re2pix_jax.clips.datasets.videos import Videos
    if not FLAGS.raw:
        raise UserError('prepare videos: --raw is missing; give the folder that holds the videos')
    return {split: Videos(FLAGS.raw, split, size) for split in ('train', 'validation')}, 'videos'


def _size(text):
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f'--size {text}: expected HEIGHTxWIDTH in pixels, for instance 64x128')
    return int(sides[0]), int(sides[1])


SOURCES = {'world': _world, 'videos': _videos}

if __name__ == '__main__':
    cli.run(main)
