"""A clip's frames, labels and depth as the images that a prepared folder holds."""

import io
import os

import numpy as np
from PIL import Image

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import records, windows, writing
from re2pix_jax.data.sources.source import Source
from re2pix_jax.errors import UserError

BLOCK = 16  # frames in memory at their original size


def write_frames(
    out: str | os.PathLike,
    splits: dict[str, Source],
    image_format: str = 'png',
    quality: int = 95,
    size: tuple[int, int] | None = None,
    processes: int = 1,
    strict: bool = False,
    source: str = '',
    settings: dict | None = None,
    shard: tuple[int, int] | None = None,
) -> dict[str, dict]:
    """Writes clips of frames, labels and depth.

    Args:
        out, splits, processes, strict, settings, shard: as `writing.write` takes them.
        image_format, quality, size: as `Frames` takes them.
        source: what the manifest says about where the clips come from.

    Returns, raises:
        As `writing.write`.
    """
    about = {
        'source': source,
        'image_format': image_format,
        'quality': quality if image_format == 'jpeg' else None,
        'frames_cover': list(size) if size else None,
    }
    return writing.write(
        out,
        splits,
        Frames(image_format, quality, size),
        records.FIELDS,
        about,
        settings=settings,
        processes=processes,
        strict=strict,
        shard=shard,
    )


class Frames:
    """Encodes a clip's frames as images at the wanted size, its labels and depth without loss as
    they are.

    Args:
        image_format: 'png' (lossless) or 'jpeg' of `quality`.
        size: (height, width); frames are scaled down, keeping their aspect, until they just cover
            it. None: never.
    """

    def __init__(self, image_format: str, quality: int = 95, size=None):
        if image_format not in ('png', 'jpeg'):
            raise UserError(f'image format {image_format!r}: expected png or jpeg')
        self.image_format, self.size = image_format, size
        # Colour at half the resolution [O]: as video has it, a third smaller and a third faster to
        # read.
        jpeg = {'quality': quality, 'subsampling': '4:2:0'}
        self.options = jpeg if image_format == 'jpeg' else {}

    def __call__(self, source: Source, index: int) -> tuple[list[dict[str, bytes]], dict]:
        """The records of a clip, and what the manifest says of it."""
        coding = getattr(source, 'depth_coding', lambda _: records.CENTIMETRES)(index)
        rows, count = [], source.num_frames(index)
        about = {'size': None, 'labelled': 0, 'label_size': None, 'depth': None, 'depth_size': None}
        for start in range(0, count, BLOCK):
            clip = source.read(index, range(start, min(start + BLOCK, count)))
            for frame, labels, depth in zip(
                clip['frames'], clip['labels'], clip['depth'], strict=True
            ):
                frame = windows.cover(frame, self.size) if self.size else frame
                row = {
                    'frames': _image(frame, self.image_format, **self.options),
                    'labels': b'',
                    'depth': b'',
                }
                if about['size'] not in (None, list(frame.shape[:2])):
                    raise UserError(
                        f'{source.name(index)}: frame {len(rows)} has {list(frame.shape[:2])} '
                        f'pixels, those before {about["size"]}; expected one size in a clip'
                    )
                about['size'] = list(frame.shape[:2])
                if (labels != IGNORE).any():
                    row['labels'] = _image(labels, 'png')
                    about |= {'labelled': about['labelled'] + 1, 'label_size': list(labels.shape)}
                if depth.any():
                    row['depth'] = _image(records.counts_of(depth, coding), 'png')
                    about |= {'depth': list(coding), 'depth_size': list(depth.shape)}
                rows.append(row)
        return rows, about


def _image(array, image_format, **options) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(encoded, image_format, **options)
    return encoded.getvalue()
