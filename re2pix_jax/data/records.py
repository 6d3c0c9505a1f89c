"""Prepared clips: ArrayRecord files in the layout of tensorflow-datasets, read without TensorFlow.

A record is one frame, so that a window costs its own bytes and no others:

    frames  PNG (lossless) or JPEG
    labels  8-bit PNG of train ids; empty where no pixel has a class
    depth   16-bit PNG of counts, see `depth_of`; empty where no pixel is known

The clips follow each other. Beside the records lies `manifest.json`: which clip begins where, and
per clip its source, frames, rate, sizes, labels, depth and checksum. `tfds.data_source` and
`tfds.builder_from_directory` open the folder too.
"""

import hashlib
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NotRequired, TypedDict

import numpy as np
from jaxtyping import Float32, Integer, UInt16
from PIL import Image

from re2pix_jax import remote, schema
from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.errors import UserError

FORMAT = 2
MANIFEST = 'manifest.json'
FIELDS = ['frames', 'labels', 'depth']
# Pillow then reuses the memory of its pictures: a third of the time to decode one went into new
# pages.
Image.core.set_blocks_max(16)
CENTIMETRES = ('linear', 0.01)
"""The coding of depth that comes as metres: up to 655.35 m [O]."""
CLASSES = ('linear', 1.0)
"""The coding of ordinal classes, which come back as they are; metres are never stored so coarse."""


class Clip(TypedDict):
    """What a manifest says of a clip; of encoded ones nothing about labels and depth."""

    name: str
    frames: schema.Positive
    fps: schema.PositiveNumber
    target: schema.Count | None
    size: schema.Size
    label_size: NotRequired[schema.Size | None]
    depth: NotRequired[tuple[Literal['linear', 'inverse'], schema.PositiveNumber] | None]
    depth_size: NotRequired[schema.Size | None]
    sha256: str


class LeftOut(TypedDict):
    """A clip that could not be used."""

    name: str
    reason: str


class Split(TypedDict):
    """A split of a manifest."""

    clips: list[Clip]
    left_out: list[LeftOut]


class Manifest(TypedDict):
    """manifest.json; `parts` and `shapes` where the clips are encoded."""

    format: int
    source: str
    fields: list[str]
    splits: dict[str, Split]
    empty: NotRequired[dict[str, list[LeftOut]]]
    parts: NotRequired[dict[str, str]]
    shapes: NotRequired[dict[str, list[schema.Positive]]]


class Prepared:
    """The clips of one split of a prepared folder: what their manifest says, and their records.

    Raises:
        UserError: no prepared folder, another format version, or no such split.
    """

    def __init__(self, path, split: str):
        self.path = remote.address(path) if remote.is_remote(path) else pathlib.Path(path)
        self.manifest = read_manifest(self.path)
        if split not in self.manifest['splits']:
            why = (
                ', for none of its clips could be used'
                if split in self.manifest.get('empty', ())
                else ''
            )
            raise UserError(
                f'{path}: no split {split!r}{why}, there is {", ".join(self.manifest["splits"])}'
            )
        self.clips = self.manifest['splits'][split]['clips']
        # Of a bucket, the shards of this split are copied on first use: a window is a few records
        # of any shard, and every epoch reads them all again.
        others = re.compile(rf'.*(?<!-{re.escape(split)})\.array_record-.*')
        self._reader = _open(remote.local(path, lambda name: not others.fullmatch(name)), split)
        total = sum(clip['frames'] for clip in self.clips)
        if total != len(self._reader):
            raise UserError(
                f'{path}: holds {len(self._reader)} records of {split} and its {MANIFEST} says '
                f'{total}; prepare the folder again'
            )
        self._starts = np.cumsum([0, *(clip['frames'] for clip in self.clips)])

    def __len__(self):
        return len(self.clips)

    def num_frames(self, index):
        return self.clips[index]['frames']

    def fps(self, index):
        return self.clips[index]['fps']

    def name(self, index):
        return self.clips[index]['name']

    def size_of(self, index):
        """As `Source` says."""
        return tuple(self.clips[index]['size'])

    def target(self, index):
        """The native frame that the dataset's evaluation protocol predicts, None where it has
        none.
        """
        return self.clips[index]['target']

    def depth_kind(self, index):
        """As `Source` says."""
        coding = self.clips[index].get('depth')
        return kind_of(coding) if coding else None

    def contents(self) -> str:
        """sha256 over the checksums of all clips: whether two preparations of a split hold the
        same.
        """
        return hashlib.sha256(' '.join(clip['sha256'] for clip in self.clips).encode()).hexdigest()

    def rows(self, index, indices) -> list[dict[str, bytes]]:
        """The records of the native frames `indices` of a clip."""
        if min(indices) < 0 or max(indices) >= self.num_frames(index):
            raise ValueError(f'frames {min(indices)} to {max(indices)} of {self.num_frames(index)}')
        return self._reader.__getitems__([int(self._starts[index] + k) for k in indices])

    def unreadable(self, index, error) -> UserError:
        return UserError(
            f"{self.path}: record {index} ({self.name(index)}) can't be read ({reason(error)}); "
            'prepare the folder again'
        )


class Records(Prepared):
    """Prepared frames; decodes only those it is asked for."""

    def __init__(self, path, split: str = 'train'):
        super().__init__(path, split)
        if self.manifest['fields'] != FIELDS:
            raise UserError(
                f'{path}: holds {", ".join(self.manifest["fields"])} rather than frames; expected '
                f'as source: "encoded:{path}"'
            )

    def read(self, index, indices, labels=True):
        """As `Source.read`. Labels and depth have the size of the original, which may be larger
        than that of the frames.
        """
        clip = self.read_images(index, indices, labels)
        return {**clip, 'frames': np.stack([np.asarray(image) for image in clip['frames']])}

    def read_images(self, index, indices, labels=True):
        """As `read`, but 'frames' is a list of Pillow's images."""
        try:
            rows = self.rows(index, indices)
            clip = {'frames': [_decode(row['frames']) for row in rows]}
            if labels:
                about, shape = self.clips[index], clip['frames'][0].size[::-1]
                clip['labels'] = _stacked(
                    [row['labels'] for row in rows], about['label_size'] or shape, IGNORE, np.uint8
                )
                depth = _stacked(
                    [row['depth'] for row in rows], about['depth_size'] or shape, 0, np.uint16
                )
                clip['depth'] = depth_of(depth, about['depth'] or CENTIMETRES)
            return clip
        # damaged data shows in many ways: the reader's, the parser's, the image decoder's
        except Exception as error:
            raise self.unreadable(index, error) from error


def depth_of(counts: Integer[np.ndarray, '...'], coding: Sequence) -> Float32[np.ndarray, '...']:
    """16-bit counts as metres or classes, 0 where unknown.

    Args:
        counts: uint16 of any shape.
        coding: ('linear', metres in a count), or `CLASSES`, or ('inverse', F) for a disparity:
            depth is F / (count - 1), and counts 0 and 1 are unknown (Cityscapes).
    """
    kind, factor = coding
    if kind == 'linear':
        return counts.astype(np.float32) * np.float32(factor)
    known = counts > 1
    return np.where(
        known, np.float32(factor) / np.maximum(counts.astype(np.float32) - 1, 1), 0
    ).astype(np.float32)


def kind_of(coding: Sequence) -> str:
    """What the numbers of `depth_of` are: 'classes' or 'metres'."""
    return 'classes' if tuple(coding) == CLASSES else 'metres'


def counts_of(depth: Float32[np.ndarray, '...'], coding: Sequence) -> UInt16[np.ndarray, '...']:
    """The inverse of `depth_of`: exact for what came from there, else rounded to the nearest count
    from 1 on.
    """
    kind, factor = coding
    known = depth > 0
    if kind == 'linear':
        counts = np.clip(np.rint(depth / np.float32(factor)), 1, 65535)
    else:
        counts = np.clip(
            np.rint(factor / np.where(known, depth, 1).astype(np.float64)) + 1, 2, 65535
        )
    return np.where(known, counts, 0).astype(np.uint16)


def checksum(rows: Iterable[dict[str, bytes]]) -> str:
    """sha256 over the records of a clip."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row):
            digest.update(f'{name} {len(row[name])} '.encode() + row[name])
    return digest.hexdigest()


def damaged(path: str | os.PathLike, split: str) -> Iterator[str | None]:
    """Yields, for every clip of a split, None, or what differs between its records and its checksum
    in the manifest.
    """
    clips = Prepared(path, split)
    for index, about in enumerate(clips.clips):
        try:
            found = checksum(clips.rows(index, range(about['frames'])))
            yield (
                None
                if found == about['sha256']
                else f'record {index} of {split} ({about["name"]}) has another checksum'
            )
        except Exception as error:  # damaged data shows in many ways, see Records
            yield f"record {index} of {split} ({about['name']}) can't be read ({reason(error)})"


def read_manifest(path: str | os.PathLike) -> Manifest:
    """The manifest of a prepared folder, which may lie in a bucket.

    Raises:
        UserError: there is none, or it is damaged or of another format.
    """
    file, again = remote.local(remote.join(path, MANIFEST)), 'prepare the folder again'
    if not file.is_file():
        raise UserError(
            f'{path}: no prepared clips there (no {MANIFEST}); make them with python -m re2pix_jax '
            'prepare'
        )
    manifest = schema.read_json(file, dict, again)
    if manifest.get('format') != FORMAT:
        raise UserError(
            f'{file}: format {manifest.get("format")!r:.40}, this version reads format {FORMAT}; '
            f'{again}'
        )
    return schema.check(manifest, Manifest, file, again)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return ' '.join(str(error).split())[:200] or type(error).__name__


def _open(path, split):
    import tensorflow_datasets as tfds  # here: half a second that other sources need not wait for

    try:
        return tfds.builder_from_directory(path).as_data_source(split)
    except Exception as error:
        raise UserError(
            f"{path}: the records can't be opened ({reason(error)}); prepare the folder again"
        ) from error


def _decode(encoded) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    image.load()  # here, where damage is told from which record it comes
    return image


def _stacked(encoded, shape, unknown, dtype) -> np.ndarray:
    return np.stack(
        [
            np.asarray(_decode(image)).astype(dtype, copy=False)
            if image
            else np.full(shape, unknown, dtype)
            for image in encoded
        ]
    )
