"""What is prepared of what: the world, a raw dataset, a folder of videos, or encoded clips of any
source; and whether a prepared folder is as it was written.

Each function returns the clips of every split, as `writing.write`.
"""

import math
import os
import sys

import numpy as np

from re2pix_jax.data import frame_records, records, sources
from re2pix_jax.data.sources import encoded
from re2pix_jax.data.unfinished import Unfinished
from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.errors import UserError
from re2pix_jax.progress import counted

WORLD_SIZE = (64, 128)
EVALUATED = {
    'train': 'nothing can be trained on these clips',
    'validation': 'nothing that is trained on these clips can be evaluated on them',
}
RAW_SIZE = (512, 1024)
"""That raw frames just cover: a crop of half the side still is 256x512, the base size."""


def world(out, clips: dict[str, int], frames: int, size=None, **storing) -> dict:
    """Renders clips of the procedural world.

    Args:
        out: folder to write.
        clips: split → number of clips.
        frames: of a clip, at 17 Hz.
        size: (height, width); `WORLD_SIZE` without it.
        **storing: image_format (None: png here, jpeg of what is raw), quality, processes (0: one a
            core), strict and shard, as `frame_records.write_frames` takes them.
    """
    from re2pix_jax.data.sources.world import World

    size = size or WORLD_SIZE
    splits = {split: World(split, count, frames, size) for split, count in clips.items()}
    about = f'world, {frames} frames at {size[0]}x{size[1]}'
    return _write(out, splits, None, about, 'png', {}, **storing)


def raw(
    out,
    name: str,
    folder,
    splits=None,
    validation_file=None,
    size=None,
    folder_fps: float = BASE_FPS,
    **storing,
) -> dict:
    """Prepares a published dataset, or a folder of videos, as it lies on disk. Of videos stderr is
    told what each file gives.

    Args:
        out: folder to write.
        name: 'video_folder', 'table' (a file) or one of `sources.PUBLISHED`.
        folder: the raw data.
        splits: those that are prepared; None: those that the folder has.
        validation_file: names the validation videos, one a line (video_folder).
        size: (height, width) that frames are scaled down to cover; `RAW_SIZE` without it.
        folder_fps: frames a second of image folders (video_folder).
        **storing: as `world`.

    Raises:
        UserError: the folder has none of the splits, or not one that was asked for.
    """
    from re2pix_jax.data import footage
    from re2pix_jax.data.sources import table, videos

    size = size or RAW_SIZE
    Unfinished(out)  # a place that is taken is refused before the footage is looked through
    if name == 'video_folder':
        known = videos.SPLITS
        open_split = lambda split: videos.Videos(
            folder,
            split,
            None,
            validation=validation_file,
            keep_unreadable=True,
            cover=size,
            folder_fps=folder_fps,
        )
    elif name == 'table':
        known = videos.SPLITS
        open_split = lambda split: table.Table(
            folder, split, None, keep_unreadable=True, cover=size, folder_fps=folder_fps
        )
    else:
        source = sources.published(name)
        known = getattr(source, 'PREPARED', source.SPLITS)
        open_split = lambda split: source(folder, split)
    there, absent = {}, {}
    for split in splits or known:
        try:
            there[split] = open_split(split)
        except UserError as error:
            absent[split] = error
    if absent and (splits or not there):
        raise next(iter(absent.values()))
    for split, error in absent.items():
        if split != 'test' or name not in ('video_folder', 'table'):
            print(f'no split {split}: {error}', file=sys.stderr)
    settings = {'folder_fps': folder_fps}
    written = _write(out, there, size, name, 'jpeg', settings, **storing)
    if storing.get('shard'):  # the whole is told about by who makes the folder of the shards
        return written
    if name in ('video_folder', 'table'):
        for split, source in there.items():
            gone = {clip['name'] for clip in written.get(split, {}).get('left_out', ())}
            for line in footage.lines(source, size, gone):
                print(f'{split}: {line}', file=sys.stderr)
    for split in set(there) | set(absent):
        if split in EVALUATED and not written.get(split, {}).get('clips'):
            print(
                f'warning: split {split} is empty: {EVALUATED[split]}; add footage, or put some '
                f'into a subfolder {split}',
                file=sys.stderr,
            )
    return written


def _write(
    out, splits, size, source, usual, settings, image_format, quality, processes, strict, shard=None
):
    processes = processes or os.cpu_count()
    image_format = image_format or usual
    return frame_records.write_frames(
        out, splits, image_format, quality, size, processes, strict, source, settings, shard
    )


def encode(
    out,
    source: str,
    parts: dict,
    digests: dict[str, str],
    splits=None,
    size=None,
    folder_fps: float = BASE_FPS,
    device: str | None = None,
    shard: tuple[int, int] | None = None,
) -> dict:
    """Computes components, and latents where there is a VAE, of every frame of a source.

    Args:
        out: folder to write.
        source: name of a source, as in a config.
        parts: {'encoder', 'principal' and perhaps 'vae': the part}.
        digests: {name of a part: what training knows it by}.
        splits: those that are encoded; None: train and validation.
        size: (height, width) that frames are fitted to; without it that of the source's frames,
            down to the next multiple that the networks take.
        folder_fps: frames a second of image folders among videos.
        device: what computes: another one does not give the same bits.
        shard: as `writing.write` takes it.

    Raises:
        UserError: the networks do not take frames of that size, or what `encoded.write` raises.
    """
    splits = splits or ('train', 'validation')
    multiple = _multiple(parts)
    size = size or _size_of(source, splits[0], multiple)
    if any(side % multiple for side in size):
        raise UserError(
            f'frames of {size[0]}x{size[1]}: patches of the encoder and of the VAE go into '
            f'multiples of {multiple} pixels; give such a size as --size'
        )

    def compute(frames):
        values = {
            'components': parts['principal'].project(parts['encoder'].encode(frames[None]))[0]
        }
        return values | (
            {'latents': parts['vae'].encode(frames[None])[0]} if 'vae' in parts else {}
        )

    opened = {
        split: sources.open_source(source, split, size, folder_fps=folder_fps) for split in splits
    }
    empty = np.zeros((encoded.BLOCK, *size, 3), np.uint8)
    shapes = {name: values.shape[1:] for name, values in compute(empty).items()}
    settings = {'folder_fps': folder_fps, 'device': device}
    return encoded.write(out, opened, compute, size, shapes, digests, source, settings, shard)


def _multiple(parts) -> int:
    """What height and width of the frames must be multiples of."""
    encoder = parts['encoder']
    patch = encoder.net.patch_size if encoder.image_size is None else 1
    return math.lcm(patch, parts['vae'].net.factor if 'vae' in parts else 1)


def _size_of(source, split, multiple) -> tuple[int, int]:
    if source == 'world':
        return WORLD_SIZE
    clips = sources.open_source(source, split, None)
    frame = clips.read(0, [0], labels=False)['frames'][0]
    size = tuple(side // multiple * multiple for side in frame.shape[:2])
    if not all(size):
        raise UserError(
            f'{source}: frames of {frame.shape[0]}x{frame.shape[1]} are smaller than the '
            f'{multiple} pixels that the networks take at least; give a larger --size'
        )
    return size


def check(folder) -> str:
    """Compares every clip of a prepared folder with its checksum; says how many there are.

    Raises:
        UserError: a clip is not as the manifest says.
    """
    splits = records.read_manifest(folder)['splits']
    counts = {split: len(about['clips']) for split, about in splits.items()}
    found = [what for split in counts for what in records.damaged(folder, split) if what]
    if found:
        raise UserError(
            f'{folder}: {len(found)} of {sum(counts.values())} clips are not as the manifest says; '
            f'{"; ".join(found[:3])}; prepare the folder again'
        )
    listed = ', '.join(counted(count, f'{split} clip') for split, count in counts.items())
    return f'{folder}: {listed}, all as the manifest says'
