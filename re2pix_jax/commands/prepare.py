"""Prepares driving clips once, so that training reads them fast: frames, labels and depth in
ArrayRecord files.

    python -m re2pix_jax prepare cityscapes --raw cityscapes --out data/cityscapes
    python -m re2pix_jax prepare video_folder --raw my_videos --out data/videos --size 256x512
    python -m re2pix_jax prepare world --out data/world --clips 1000 --validation_clips 64
    python -m re2pix_jax prepare encode --source records:data/world --out data/world_encoded --size
    64x128 \
        --encoder runs/bundles/encoder --principal runs/bundles/principal --vae \
            runs/bundles/autoencoder
    python -m re2pix_jax prepare --check data/videos
    python -m re2pix_jax prepare --look data/videos

cityscapes, nuscenes, covla, kitti: the folder as it was downloaded and unpacked. video_folder: mp4
    files or image folders; the
subfolders `train` and `validation` are the splits, or --validation_file lists the second, else
about a tenth of the files is.
world: the procedural driving world. Train on the result with
    --config.data.sources="('records:data/videos',)".

encode: components and latents of every frame of a source, for the forecaster and the generator to
    train on without computing
them at each step: --config.data.sources="('encoded:data/world_encoded',)" --config.data.flip=0.

--check compares every clip with its checksum; --look writes OUT/look.html, a page of random
windows.

A clip that cannot be read is left out and named, so is a split that has no other, and the exit
status is 1; --strict stops at the first such clip instead (status 2). The same command, given again
after an interruption, goes on.
"""

import os
import sys

import numpy as np
from absl import flags

from re2pix_jax.data import records, sources, writing
from re2pix_jax.errors import UserError

flags.DEFINE_string('raw', None, 'Folder with the raw data.')
flags.DEFINE_string('out', None, 'Folder to write; must not exist yet.')
flags.DEFINE_list('splits', None, 'Splits to prepare; none: those that the raw folder has.')
flags.DEFINE_string(
    'validation_file', None, 'File that names the validation videos, one a line (video_folder).'
)
flags.DEFINE_string(
    'size',
    None,
    'HEIGHTxWIDTH in pixels that frames are scaled down to cover, keeping their aspect; none: '
    '512x1024, '
    'of which a crop of half the side still is 256x512, the base size. world, encode: of the '
    'frames; none: 64x128.',
)
flags.DEFINE_enum(
    'image_format',
    None,
    ['png', 'jpeg'],
    'How frames are stored: png is lossless (world), jpeg much smaller (others).',
)
flags.DEFINE_integer('quality', 95, 'Quality of jpeg.', lower_bound=1, upper_bound=100)
flags.DEFINE_integer(
    'processes', 0, 'Processes that read and encode; 0: one per core.', lower_bound=0
)
flags.DEFINE_bool('strict', False, 'Stop at the first clip that cannot be read.')
flags.DEFINE_integer('clips', 1000, 'Training clips of the world.', lower_bound=1)
flags.DEFINE_integer('validation_clips', 64, 'Validation clips of the world.', lower_bound=1)
flags.DEFINE_integer('frames', 30, 'Frames in a clip of the world, at 17 Hz.', lower_bound=1)
flags.DEFINE_string(
    'source', None, 'Source of the clips to encode, such as world or records:FOLDER (encode).'
)
flags.DEFINE_string('encoder', None, 'Bundle of the encoder (encode).')
flags.DEFINE_string(
    'encoder_size',
    None,
    'HEIGHTxWIDTH that frames are resized to for the encoder (encode); none: --size.',
)
flags.DEFINE_string('principal', None, 'Bundle of the principal components (encode).')
flags.DEFINE_string(
    'vae', None, 'Bundle of the VAE (encode); none: components alone, enough for the forecaster.'
)
flags.DEFINE_string(
    'check', None, 'Prepared folder to compare with its checksums, instead of preparing one.'
)
flags.DEFINE_string('look', None, 'Prepared folder to show windows of, instead of preparing one.')


def main(argv):
    FLAGS = flags.FLAGS
    if len(argv) == 1 and FLAGS.check:
        return _check(FLAGS.check)
    if len(argv) == 1 and FLAGS.look:
        from re2pix_jax.report import windows

        print(windows.write(FLAGS.look))
        return 0
    if len(argv) != 2 or argv[1] not in DATASETS:
        raise UserError(
            f'prepare {" ".join(argv[1:])}: expected one dataset: {", ".join(DATASETS)}; or '
            '--check or --look'
        )
    if not FLAGS.out:
        raise UserError('prepare: --out is missing; give the folder to write')
    splits = DATASETS[argv[1]](FLAGS, argv[1])
    print(
        f'{FLAGS.out}: '
        + ', '.join(f'{len(split["clips"])} {name} clips' for name, split in splits.items())
    )
    empty = [name for name, split in splits.items() if not split['clips']]
    left_out = [clip for split in splits.values() for clip in split['left_out']]
    for name in empty:
        print(f'split {name} is left out: none of its clips can be used')
    for clip in left_out:
        print(f'left out {clip["name"]}: {clip["reason"]}')
    return 1 if empty or left_out else 0


def _world(FLAGS, _):
    from re2pix_jax.data.sources.world import World

    counts, size = (
        {'train': FLAGS.clips, 'validation': FLAGS.validation_clips},
        _size(FLAGS, 'size', (64, 128)),
    )
    splits = {split: World(split, clips, FLAGS.frames, size) for split, clips in counts.items()}
    return _write(
        FLAGS, splits, None, 'png', f'world, {FLAGS.frames} frames at {size[0]}x{size[1]}'
    )


def _raw(FLAGS, name):
    from re2pix_jax.data.sources import videos

    if not FLAGS.raw:
        raise UserError(
            f'prepare {name}: --raw is missing; give the folder that holds the raw data'
        )
    if name == 'video_folder':
        known = videos.SPLITS
        open_split = lambda split: videos.Videos(
            FLAGS.raw, split, None, validation=FLAGS.validation_file, keep_unreadable=True
        )
    else:
        known = getattr(sources.published(name), 'PREPARED', sources.published(name).SPLITS)
        open_split = lambda split: sources.published(name)(FLAGS.raw, split)
    splits, absent = {}, {}
    for split in FLAGS.splits or known:
        try:
            splits[split] = open_split(split)
        except UserError as error:
            absent[split] = error
    if absent and (FLAGS.splits or not splits):
        raise next(iter(absent.values()))
    for split, error in absent.items():
        print(f'no split {split}: {error}', file=sys.stderr)
    return _write(FLAGS, splits, _size(FLAGS, 'size', (512, 1024)), 'jpeg', name)


def _write(FLAGS, splits, size, image_format, source):
    return writing.write_frames(
        FLAGS.out,
        splits,
        FLAGS.image_format or image_format,
        FLAGS.quality,
        size,
        FLAGS.processes or os.cpu_count(),
        FLAGS.strict,
        source,
    )


def _encode(FLAGS, _):
    from re2pix_jax import bundles
    from re2pix_jax.data.sources import encoded

    for flag in ('source', 'encoder', 'principal'):
        if not FLAGS[flag].value:
            raise UserError(f'prepare encode: --{flag} is missing; see --help')
    size = _size(FLAGS, 'size', (64, 128))
    paths = {
        kind: FLAGS[kind].value for kind in ('encoder', 'principal', 'vae') if FLAGS[kind].value
    }
    parts = {kind: bundles.load(path, kind) for kind, path in paths.items()}
    if FLAGS.encoder_size:
        parts['encoder'] = parts['encoder'].replace(image_size=_size(FLAGS, 'encoder_size', None))
    splits = {
        split: sources.open_source(FLAGS.source, split, size)
        for split in FLAGS.splits or ('train', 'validation')
    }

    def encode(frames):
        values = {
            'components': parts['principal'].project(parts['encoder'].encode(frames[None]))[0]
        }
        return values | (
            {'latents': parts['vae'].encode(frames[None])[0]} if 'vae' in parts else {}
        )

    shapes = {
        name: values.shape[1:]
        for name, values in encode(np.zeros((encoded.BLOCK, *size, 3), np.uint8)).items()
    }
    return encoded.write(
        FLAGS.out,
        splits,
        encode,
        size,
        shapes,
        {kind: bundles.digest(path) for kind, path in paths.items()},
        FLAGS.source,
    )


def _check(path):
    counts = {
        split: len(about['clips']) for split, about in records.read_manifest(path)['splits'].items()
    }
    found = [what for split in counts for what in records.damaged(path, split) if what]
    if found:
        raise UserError(
            f'{path}: {len(found)} of {sum(counts.values())} clips are not as the manifest says; '
            f'{"; ".join(found[:3])}; '
            'prepare the folder again'
        )
    print(
        f'{path}: {", ".join(f"{count} {split} clips" for split, count in counts.items())}, all '
        'as the manifest says'
    )
    return 0


def _size(FLAGS, flag, default):
    text = FLAGS[flag].value
    if text is None:
        return default
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise UserError(f'--{flag} {text}: expected HEIGHTxWIDTH in pixels, for instance 64x128')
    return int(sides[0]), int(sides[1])


DATASETS = {
    'world': _world,
    **dict.fromkeys(sources.PUBLISHED, _raw),
    'video_folder': _raw,
    'encode': _encode,
}


ARGUMENTS = ('[dataset]',)
