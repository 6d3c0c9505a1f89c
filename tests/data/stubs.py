"""Clips for tests that are no driving: numbered ones, and noise."""

import hashlib
import pathlib

import numpy as np

from re2pix_jax.data import records
from re2pix_jax.errors import UserError


class Numbered:
    """Clips whose pixels say which clip and which frame they are."""

    def __init__(self, count, frames=30, offset=0, split='', target=None):
        self.count, self.frames, self.offset, self.split, self.target_frame = (
            count,
            frames,
            offset,
            split,
            target,
        )

    def __len__(self):
        return self.count

    def num_frames(self, index):
        return self.frames

    def fps(self, index):
        return 17.0

    def name(self, index):
        return f'{self.split}clip{index}'

    def target(self, index):
        return self.target_frame

    def read(self, index, indices, labels=True):
        shape = (len(indices), 16, 32)
        frames = np.zeros((*shape, 3), np.uint8)
        frames[..., 0], frames[..., 2] = self.offset + index, np.arange(32)
        frames[..., 1] = np.asarray(indices)[:, None, None]
        return {
            'frames': frames,
            'labels': frames[..., 1] % 19,
            'depth': frames[..., 2].astype(np.float32) + 1,
        }


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys()
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])


class Stub:
    """Clips of noise; labels on one frame only and larger than the frames, depth on none but the
    first two.
    """

    def __init__(self, count=5, frames=12, size=(16, 32), wrong=(), split='train'):
        self.count, self.frames, self.size, self.wrong, self.split, self.reads = (
            count,
            frames,
            size,
            wrong,
            split,
            [],
        )

    def __len__(self):
        return self.count

    def num_frames(self, index):
        return self.frames + index

    def fps(self, index):
        return 17.0 + index

    def name(self, index):
        return f'{self.split}/{index}'

    def target(self, index):
        return 7

    def depth_coding(self, index):
        return 'inverse', 1000.0

    def read(self, index, indices, labels=True):
        self.reads.append(index)
        if index in self.wrong:
            raise UserError(f'{self.name(index)}: the disc is scratched')
        shape = (self.num_frames(index), *self.size)
        rng = np.random.default_rng(index)
        labels = np.full((shape[0], 2 * shape[1], 2 * shape[2]), 255, np.uint8)
        clip = {
            'frames': rng.integers(0, 256, (*shape, 3), np.uint8),
            'labels': labels,
            'depth': np.zeros(shape, np.float32),
        }
        clip['labels'][5] = rng.integers(0, 19, labels.shape[1:])
        clip['depth'][:2] = records.depth_of(
            rng.integers(0, 65536, (2, *self.size)), self.depth_coding(index)
        )
        return {name: values[np.asarray(indices)] for name, values in clip.items()}


def manifest_of(folder) -> dict:
    """What the manifest says, having compared the records with its checksums."""
    manifest = records.read_manifest(folder)
    assert not [
        what for split in manifest['splits'] for what in records.damaged(folder, split) if what
    ]
    return manifest


def hashes(folder) -> dict[str, str]:
    """{name: sha256} of the files of a folder."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(pathlib.Path(folder).iterdir())
    }


def damage(folder):
    file = next(folder.glob('*.array_record*'))
    data = bytearray(file.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    file.chmod(0o644)
    file.write_bytes(data)
