"""Sources of clips: the procedural world, published datasets, folders of videos, prepared records,
encoded clips; one file each.

A source is anything that can say how many clips it has and give some frames of one of them
(`source.Source`). `writing` turns any source into ArrayRecord files in the layout of
tensorflow-datasets, `records` reads them.
"""

import importlib
from collections.abc import Callable

from re2pix_jax.data.sources.source import Source
from re2pix_jax.data.windows import BASE_FPS
from re2pix_jax.errors import UserError

PUBLISHED = {'cityscapes': 'Cityscapes', 'covla': 'CoVLA', 'kitti': 'Kitti', 'nuscenes': 'NuScenes'}
"""Name of a published dataset, and of its module here → its class, (folder, split) → `Source`."""


def open_source(
    name: str,
    split: str,
    size: tuple[int, int] | None,
    clips: int = 0,
    folder_fps: float = BASE_FPS,
) -> Source:
    """The source that a config names.

    Args:
        name: 'world', 'records:FOLDER' (prepared clips), 'videos:FOLDER' (video files and image
            folders), 'table:FILE' (segments of these), 'encoded:FOLDER' (components and latents
            instead of frames), or one of `PUBLISHED` with its raw folder, as 'cityscapes:FOLDER'
            (slow to train on).
        split: 'train', 'validation' or 'test'.
        size: (height, width) at which the world is rendered and videos are fitted; records come as
            they were prepared.
        clips: how many clips of the world; 0: its default for the split. Other sources give all
            they have.
        folder_fps: frames a second of image folders among videos.

    Raises:
        UserError: an unknown kind of source, a folder that is missing or holds no clips, or no such
            split.
    """
    kind, _, path = name.partition(':')
    if kind == 'world' and not path:
        from re2pix_jax.data.sources import world

        return world.World(split, clips=clips, size=size)
    if kind == 'records' and path:
        from re2pix_jax.data import records

        return records.Records(path, split)
    if kind == 'videos' and path:
        from re2pix_jax.data.sources import videos

        return videos.Videos(path, split, size=size, folder_fps=folder_fps, keep_unreadable=True)
    if kind == 'table' and path:
        from re2pix_jax.data.sources import table

        return table.Table(path, split, size=size, folder_fps=folder_fps, keep_unreadable=True)
    if kind == 'encoded' and path:
        from re2pix_jax.data.sources import encoded

        return encoded.Encoded(path, split, size)
    if kind in PUBLISHED and path:
        return published(kind)(path, split)
    raise UserError(
        f'source {name!r}: expected "world", or records, videos, table, encoded, '
        f'{", ".join(PUBLISHED)} and a folder, such as "records:FOLDER"'
    )


def published(name: str) -> Callable[..., Source]:
    """The class of one of `PUBLISHED`."""
    return getattr(importlib.import_module(f're2pix_jax.data.sources.{name}'), PUBLISHED[name])
