r"""Prepares driving clips once, so that training reads them fast.

    re2pix prepare cityscapes --raw=cityscapes --out=data/cityscapes
    re2pix prepare video_folder --raw=my_videos --out=data/videos --size=256x512
    re2pix prepare table --raw=my_videos/segments.csv --out=data/segments
    re2pix prepare world --out=data/world --clips=1000 --validation_clips=64
    re2pix prepare encode --source=records:data/world --out=data/world_encoded \
        --encoder=runs/bundles/encoder --principal=runs/bundles/principal \
        --vae=runs/bundles/vae
    re2pix prepare --check=data/videos
    re2pix prepare --look=data/videos

Frames, labels and depth go to ArrayRecord files; train on them with
--config.data.sources="('records:data/videos',)".

cityscapes, nuscenes, covla, kitti: the folder as it was downloaded and unpacked. video_folder:
videos of any common kind, or folders of images, taken at --folder_fps; the subfolders `train` and
`validation` are the splits, or --validation_file lists the second, else about a tenth of the
minutes is. Each file is named with the windows it gives, and with what stands against it: too
slow, too short, a shape of which a centre crop keeps less than half. table: a CSV file, or JSON
lines, of segments of videos, see re2pix_jax/data/README.md. world: the procedural driving world.

encode: components and latents of every frame of a source, for the forecaster and the generator to
train on without computing them at each step:
--config.data.sources="('encoded:data/world_encoded',)" --config.data.flip=0.

--check compares every clip with its checksum; --look writes look.html into the folder, a page of
random windows.

A clip that cannot be read is left out and named, so is a split that has no other, and the exit
status is 1; --strict stops at the first such clip instead (status 2). The same command, given again
after an interruption, goes on.

Over several machines that share a disk, or to a bucket: the same command on each, with --shard=1/8
to --shard=8/8, and then once without it, which makes the folder of what they wrote, byte by byte
that of one machine:

    re2pix prepare cityscapes --raw=cityscapes --out=data/cityscapes --shard=3/8
    re2pix prepare cityscapes --raw=cityscapes --out=data/cityscapes

Each goes on as a single one does. A shard's status is 0 when its files are there; what it left out
the last command names. See launch/prepare.sbatch for Slurm, launch/prepare.yaml for GKE.
"""

import difflib

from absl import flags

from re2pix_jax.commands import cli
from re2pix_jax.data import prepare, sources, windows
from re2pix_jax.errors import UserError
from re2pix_jax.progress import counted

RAW = flags.DEFINE_string('raw', None, 'Folder with the raw data.')
OUT = flags.DEFINE_string('out', None, 'Folder to write; must not exist yet.')
SPLITS = flags.DEFINE_list('splits', None, 'Splits to prepare; none: those that the raw data has.')
VALIDATION_FILE = flags.DEFINE_string(
    'validation_file', None, 'File that names the validation videos, one a line (video_folder).'
)
FOLDER_FPS = flags.DEFINE_float(
    'folder_fps',
    windows.BASE_FPS,
    'Frames per second of image folders (video_folder, encode).',
    lower_bound=0.01,
)
SIZE = cli.size_flag(
    'size',
    'Of raw frames, what they are scaled down to cover, keeping their aspect; none: 512x1024. '
    'world: 64x128 without it. encode: what frames are fitted to; none: their own size, down to '
    'what the networks take.',
)
IMAGE_FORMAT = flags.DEFINE_enum(
    'image_format',
    None,
    ['png', 'jpeg'],
    'How frames are stored: png is lossless (world), jpeg much smaller (others).',
)
QUALITY = flags.DEFINE_integer('quality', 95, 'Quality of jpeg.', lower_bound=1, upper_bound=100)
PROCESSES = flags.DEFINE_integer(
    'processes', 0, 'Processes that read and encode; 0: one per core.', lower_bound=0
)
SHARD = cli.shard_flag('shard', 'Write this shard of several alone, the third of eight with 3/8.')
STRICT = flags.DEFINE_bool('strict', False, 'Stop at the first clip that cannot be read.')
CLIPS = flags.DEFINE_integer('clips', 1000, 'Training clips of the world.', lower_bound=1)
VALIDATION_CLIPS = flags.DEFINE_integer(
    'validation_clips', 64, 'Validation clips of the world.', lower_bound=1
)
FRAMES = flags.DEFINE_integer(
    'frames', 30, 'Frames in a clip of the world, at 17 Hz.', lower_bound=1
)
SOURCE = flags.DEFINE_string(
    'source', None, 'Source of the clips to encode, such as world or records:FOLDER (encode).'
)
ENCODER = flags.DEFINE_string('encoder', None, 'Bundle of the encoder (encode).')
ENCODER_SIZE = cli.size_flag(
    'encoder_size', 'What frames are resized to for the encoder (encode); none: not at all.'
)
PRINCIPAL = flags.DEFINE_string('principal', None, 'Bundle of the principal components (encode).')
VAE = flags.DEFINE_string(
    'vae', None, 'Bundle of the VAE (encode); none: components alone, enough for the forecaster.'
)
CHECK = flags.DEFINE_string(
    'check', None, 'Prepared folder to compare with its checksums, instead of preparing one.'
)
LOOK = flags.DEFINE_string(
    'look', None, 'Prepared folder to show windows of, instead of preparing one.'
)

ARGUMENTS = ('[dataset]',)
REMOTE = ('out', 'source', 'encoder', 'principal', 'vae', 'check', 'look')


GOES_ON = True


def main(argv):
    _check_alone(argv)
    if CHECK.value:
        print(prepare.check(CHECK.value))
        return 0
    if LOOK.value:
        from re2pix_jax.report import windows as pages

        print(pages.write(LOOK.value))
        return 0
    if len(argv) == 1 or argv[1] not in DATASETS:
        near = difflib.get_close_matches(' '.join(argv[1:]), DATASETS, n=1)
        hint = f'did you mean {near[0]}? There are' if near else 'expected one dataset:'
        raise UserError(
            f'{" ".join(["prepare", *argv[1:]])}: {hint} {", ".join(DATASETS)}; or --check or '
            '--look'
        )
    _need(argv[1], OUT)
    splits = DATASETS[argv[1]](argv[1])
    counts = ', '.join(
        counted(len(split['clips']), f'{name} clip') for name, split in splits.items()
    )
    left_out = [clip for split in splits.values() for clip in split['left_out']]
    if SHARD.value:  # the last command says which, and why
        also = f', {len(left_out)} left out' if left_out else ''
        print('{}, shard {} of {}: {}{}'.format(OUT.value, *SHARD.value, counts, also))
        return 0
    print(f'{OUT.value}: {counts}')
    empty = [name for name, split in splits.items() if not split['clips']]
    for name in empty:
        print(f'split {name} is left out: none of its clips can be used')
    for clip in left_out:
        print(f'left out {clip["name"]}: {clip["reason"].removeprefix(clip["name"] + ": ")}')
    return 1 if empty or left_out else 0


def _check_alone(argv):
    """Refuses what stands beside --check or --look, which are about a folder as it is."""
    for own in (CHECK, LOOK):
        if own.value:
            given = flags.FLAGS.get_key_flags_for_module(__name__)
            odd = [f'--{flag.name}' for flag in given if flag.present and flag.name != own.name]
            if odd := argv[1:] + odd:
                raise UserError(f'--{own.name}: looks at a folder as it is; leave out {odd[0]}')


def _need(name, *wanted):
    for flag in wanted:
        if not flag.value:
            raise UserError(f'prepare {name}: --{flag.name} is missing; see --help')


def _storing():
    return {flag.name: flag.value for flag in (IMAGE_FORMAT, QUALITY, PROCESSES, STRICT, SHARD)}


def _world(_):
    clips = {'train': CLIPS.value, 'validation': VALIDATION_CLIPS.value}
    return prepare.world(OUT.value, clips, FRAMES.value, SIZE.value, **_storing())


def _raw(name):
    _need(name, RAW)
    given = SPLITS.value, VALIDATION_FILE.value, SIZE.value, FOLDER_FPS.value
    return prepare.raw(OUT.value, name, RAW.value, *given, **_storing())


def _encode(name):
    import jax

    from re2pix_jax import bundles

    _need(name, SOURCE, ENCODER, PRINCIPAL)
    paths = {flag.name: flag.value for flag in (ENCODER, PRINCIPAL, VAE) if flag.value}
    parts = {kind: bundles.load(path, kind) for kind, path in paths.items()}
    digests = {kind: bundles.digest(path, kind) for kind, path in paths.items()}
    if ENCODER_SIZE.value:
        parts['encoder'] = parts['encoder'].replace(image_size=ENCODER_SIZE.value)
    given = SPLITS.value, SIZE.value, FOLDER_FPS.value
    device = jax.devices()[0].device_kind
    return prepare.encode(OUT.value, SOURCE.value, parts, digests, *given, device, SHARD.value)


DATASETS = {
    'world': _world,
    **dict.fromkeys(sources.PUBLISHED, _raw),
    'video_folder': _raw,
    'table': _raw,
    'encode': _encode,
}
