"""The size at which frames are encoded: the source's own, as far as the networks take it, and that
of training on it afterwards.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from re2pix_jax.data import frame_records, prepare
from re2pix_jax.data.sources import open_source
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError

STORED = (40, 72)


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    """A source of records of STORED pixels."""
    folder = tmp_path_factory.mktemp('prepare') / 'frames'
    frame_records.write_frames(folder, {split: World(split, 1, 3, STORED) for split in SPLITS})
    return f'records:{folder}'


SPLITS = ('train', 'validation')


def parts(patch, factor, image_size=None):
    """Networks that average patches; a VAE where there is a factor."""

    def pooled(side):
        def encode(frames):
            rows, columns = frames.shape[2] // side, frames.shape[3] // side
            assert frames.shape[2:4] == (rows * side, columns * side)
            return frames.reshape(*frames.shape[:2], rows, side, columns, side, 3).mean((3, 5))

        return encode

    def features(frames):
        return pooled(patch)(frames if image_size is None else np.resize(frames, GIVEN))

    GIVEN = (1, 15, *(image_size or ()), 3)
    found = {
        'encoder': SimpleNamespace(
            net=SimpleNamespace(patch_size=patch), image_size=image_size, encode=features
        ),
        'principal': SimpleNamespace(project=lambda features: features),
    }
    if factor:
        net = SimpleNamespace(factor=factor)
        found['vae'] = SimpleNamespace(net=net, encode=pooled(factor))
    return found


@pytest.mark.parametrize(
    ('networks', 'size', 'grid'),
    [
        (parts(8, 4), (40, 72), (5, 9)),
        (parts(14, 0), (28, 70), (2, 5)),  # as far as patches cover
        (parts(14, 8, image_size=(28, 56)), (40, 72), (2, 4)),  # the encoder resizes by itself
        (parts(6, 4), (36, 72), (6, 12)),
    ],
)
def test_without_a_size_it_is_that_of_the_source(networks, size, grid, frames, tmp_path):
    prepare.encode(tmp_path / 'out', frames, networks, {})
    clips = open_source(f'encoded:{tmp_path}/out', 'train', size)  # refuses another size
    assert clips.read(0, [0, 1])['components'].shape == (2, *grid, 3)


def test_a_size_that_is_given_is_taken_or_refused(frames, tmp_path):
    prepare.encode(tmp_path / 'out', frames, parts(8, 4), {}, ['train'], (16, 32))
    assert open_source(f'encoded:{tmp_path}/out', 'train', (16, 32)).read(0, [0])
    for size in ((16, 30), (12, 32)):
        with pytest.raises(UserError, match=f'frames of {size[0]}x{size[1]}: .* multiples of 8 '):
            prepare.encode(tmp_path / 'x', frames, parts(8, 4), {}, size=size)
    with pytest.raises(UserError, match='frames of 40x72 are smaller than the 56 pixels'):
        prepare.encode(tmp_path / 'x', frames, parts(14, 8), {})
    assert not (tmp_path / 'x').exists()
