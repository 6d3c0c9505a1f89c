"""Prepares driving clips once, so that training reads them fast: frames, labels and depth in ArrayRecord files.

    python -m re2pix_jax.prepare world --out data/world --clips 1000 --validation_clips 64 --size 64x128
    python -m re2pix_jax.prepare videos --raw my_videos --out data/videos --size 128x256 --image_format jpeg
    python -m re2pix_jax.prepare encode --source records:data/world --out data/world_encoded --size 64x128 \
        --encoder runs/bundles/encoder --principal runs/bundles/principal --vae runs/bundles/autoencoder

world: the procedural driving world, with labels and depth. videos: a folder of mp4 files or image folders; a subfolder
`validation` is that split, else about a tenth of the files is. Train on the result with
--config.data.sources="('records:data/world',)".

encode: components and latents of every frame of a source, for the forecaster and the generator to train on without computing
them at each step: --config.data.sources="('encoded:data/world_encoded',)" --config.data.flip=0.
"""

import os

import numpy as np
from absl import flags

from re2pix_jax import cli
from re2pix_jax.clips.datasets import records
from re2pix_jax.errors import UserError

flags.DEFINE_string('raw', None, 'Folder with the raw data (videos).')
flags.DEFINE_string('source', None, 'Source of the clips to encode: world, records:FOLDER or videos:FOLDER (encode).')
flags.DEFINE_string('encoder', None, 'Bundle of the encoder (encode).')
flags.DEFINE_string('encoder_size', None, 'HEIGHTxWIDTH that frames are resized to for the encoder (encode); none: --size.')
flags.DEFINE_string('principal', None, 'Bundle of the principal components (encode).')
flags.DEFINE_string('vae', None, 'Bundle of the VAE (encode); none: components alone, enough for the forecaster.')
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
    if len(argv) != 2 or argv[1] not in DATASETS:
        raise UserError(f'prepare {" ".join(argv[1:])}: expected one dataset: {", ".join(DATASETS)}')
    if not FLAGS.out:
        raise UserError('prepare: --out is missing; give the folder to write')
    splits = DATASETS[argv[1]](FLAGS, _size(FLAGS, 'size'))
    print(f'{FLAGS.out}: ' + ', '.join(f'{len(clips)} {split} clips' for split, clips in splits.items()))


def _world(FLAGS, size):
    from re2pix_jax.clips.datasets.world import World
    counts = {'train': FLAGS.clips, 'validation': FLAGS.validation_clips}
    return _write(FLAGS, {split: World(split, clips, FLAGS.frames, size) for split, clips in counts.items()}, 'world')


def _videos(FLAGS, size):
    from re2pix_jax.clips.datasets.videos import Videos
    if not FLAGS.raw:
        raise UserError('prepare videos: --raw is missing; give the folder that holds the videos')
    return _write(FLAGS, {split: Videos(FLAGS.raw, split, size) for split in ('train', 'validation')}, 'videos')


def _write(FLAGS, splits, source):
    records.write(FLAGS.out, splits, image_format=FLAGS.image_format, quality=FLAGS.quality,
                  processes=FLAGS.processes or os.cpu_count(), source=source)
    return splits


def _encode(FLAGS, size):
    from re2pix_jax import weights
    from re2pix_jax.clips.datasets import encoded, open_source
    for flag in ('source', 'encoder', 'principal'):
        if not FLAGS[flag].value:
            raise UserError(f'prepare encode: --{flag} is missing; see --help')
    bundles = {kind: FLAGS[kind].value for kind in ('encoder', 'principal', 'vae') if FLAGS[kind].value}
    parts = {kind: weights.load(path, kind) for kind, path in bundles.items()}
    if FLAGS.encoder_size:
        parts['encoder'] = parts['encoder'].replace(image_size=_size(FLAGS, 'encoder_size'))
    splits = {split: open_source(FLAGS.source, split, size) for split in ('train', 'validation')}

    def encode(frames):
        values = {'components': parts['principal'].project(parts['encoder'].encode(frames[None]))[0]}
        return values | ({'latents': parts['vae'].encode(frames[None])[0]} if 'vae' in parts else {})

    shapes = {name: values.shape[1:] for name, values in encode(np.zeros((1, *size, 3), np.uint8)).items()}
    encoded.write(FLAGS.out, splits, encode, shapes, {kind: weights.digest(path) for kind, path in bundles.items()},
                  FLAGS.source)
    return splits


def _size(FLAGS, flag):
    text = FLAGS[flag].value
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f'--{flag} {text}: expected HEIGHTxWIDTH in pixels, for instance 64x128')
    return int(sides[0]), int(sides[1])


DATASETS = {'world': _world, 'videos': _videos, 'encode': _encode}

if __name__ == '__main__':
    cli.run(main)
