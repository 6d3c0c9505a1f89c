"""A page of random windows of a prepared folder, for people to see what they are about to train
on.
"""

import pathlib

import numpy as np

from re2pix_jax import remote
from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import records, sources, windows
from re2pix_jax.progress import counted
from re2pix_jax.report import colours, page, panels

WIDTH = 256  # pixels of a picture


def write(path, windows: int = 6, frames: int = 5, seed: int = 0) -> str:
    """Writes `path`/look.html: of each split, `windows` windows of `frames` frames at stride 3,
    with what there is of labels and depth.

    Raises:
        UserError: `path` is no prepared folder, or a clip in it cannot be read.
    """
    manifest = records.read_manifest(path)
    kind, rng, sections = (
        'encoded' if 'parts' in manifest else 'records',
        np.random.default_rng(seed),
        [],
    )
    for split, about in manifest['splits'].items():
        source = sources.open_source(f'{kind}:{path}', split, about['clips'][0]['size'])
        for index in sorted(rng.permutation(len(source))[:windows]):
            sections.append(_section(source, split, int(index), frames, rng))
    counts = ', '.join(
        f'{counted(len(about["clips"]), f"{split} clip")}, {len(about["left_out"])} left out'
        for split, about in manifest['splits'].items()
    )
    place = remote.join(path, 'look.html')
    return page.write(
        place, pathlib.PurePath(path).name, f'{manifest["source"]}: {counts}', sections
    )


def _section(source, split, index, frames, rng):
    count, fps = source.num_frames(index), source.fps(index)
    stride = min(
        windows.native_stride(windows.STRIDE, fps), max(1, (count - 1) // max(frames - 1, 1))
    )
    frames = min(frames, 1 + (count - 1) // stride)
    window = int(rng.integers(count - stride * (frames - 1))) + stride * np.arange(frames)
    clip = source.read(index, window)
    rows = (
        [
            panels.Panel(
                'components',
                list(colours.principal_colours(clip['components'], clip['components'])),
            )
        ]
        if 'components' in clip
        else _rows(clip)
    )
    shown = ', '.join(map(str, window))
    caption = f'{split}: {source.name(index)}, frames {shown} of {count} at {fps:.3g} per second'
    return caption, panels.sheet(rows, (window - window[0]) / fps)


def _rows(clip) -> list[panels.Panel]:
    height, width = clip['frames'].shape[1:3]
    small = windows.Box(0, 0, height, width), (max(1, round(height * WIDTH / width)), WIDTH)
    clip = windows.apply(clip, *small)
    known = (clip['labels'] != IGNORE).any((1, 2)), clip['depth'].any((1, 2))
    pictures = colours.label_colours(clip['labels']), colours.depth_colours(clip['depth'])
    rows = [panels.Panel('frames', list(clip['frames']))]
    for title, absent, there, shown in zip(
        ('labels', 'depth'), ('no labels', 'no depth'), known, pictures
    ):
        if there.any():
            rows.append(
                panels.Panel(
                    title, [frame if some else None for frame, some in zip(shown, there)], absent
                )
            )
    return rows
