"""What the numbers of depth are: metres, or the ordinal classes that DINO-Foresight published for
Cityscapes.
"""

import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from re2pix_jax.data import frame_records, loader, records
from re2pix_jax.data.sources.cityscapes import TEACHER, Cityscapes
from re2pix_jax.data.sources.kitti import Kitti
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from tests.data import layouts


def classes(clip) -> np.ndarray:
    """uint8 [H, W] with every class."""
    return (
        ((np.arange(layouts.SIZE[0] * layouts.SIZE[1]) + clip) % 256)
        .astype(np.uint8)
        .reshape(layouts.SIZE)
    )


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    """Cityscapes with a disparity for every clip and the teacher's classes for those of train and
    val.
    """
    folder = layouts.cityscapes(
        tmp_path_factory.mktemp('raw') / 'cityscapes',
        train=10,
        validation=2,
        test=1,
        disparity='disparity',
    )
    for clip in range(10):
        layouts.cityscapes_save(
            folder, TEACHER, 'train', 'aachen', clip, 19, 'leftImg8bit_depth.png', classes(clip)
        )
    for clip in range(2):
        layouts.cityscapes_save(
            folder,
            TEACHER,
            'val',
            'frankfurt',
            0,
            275 + 40 * clip + 19,
            'leftImg8bit_depth.png',
            classes(10 + clip),
        )
    return folder


def test_the_classes_of_the_teacher_come_before_disparity(raw):
    for split, first in (('train', 0), ('validation', 10)):
        source = Cityscapes(raw, split)
        for index in range(2):
            depth = source.read(index, [19, 3])['depth']
            np.testing.assert_array_equal(depth[0], classes(first + index).astype(np.float32))
            assert depth.dtype == np.float32 and not depth[1].any()
            assert source.depth_coding(index) == records.CLASSES == ('linear', 1.0)
            assert source.depth_kind(index) == 'classes' and source.problem(index) is None
    test = Cityscapes(raw, 'test')
    assert test.depth_kind(0) == 'metres' and test.depth_coding(0)[0] == 'inverse', (
        'a split without the folder has its disparity'
    )


def test_a_lost_file_of_classes_is_a_problem(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / 'cityscapes')
    file = f'{TEACHER}/train/aachen/aachen_000003_000019_leftImg8bit_depth.png'
    (folder / file).unlink()
    source = Cityscapes(folder, 'train')
    assert source.problem(3) == f'no depth {file}' and source.problem(2) is None
    assert not source.read(3, [19])['depth'].any() and source.depth_kind(3) is None, (
        'rather than metres among classes'
    )
    layouts.save(folder / file, layouts.frame(0))
    with pytest.raises(UserError, match=r'_depth.png: \[32, 64, 3\] pixels and channels'):
        Cityscapes(folder, 'train').read(3, [19])


def test_classes_come_back_from_records_as_they_are(raw, tmp_path):
    frame_records.write_frames(
        tmp_path / 'out',
        {split: Cityscapes(raw, split) for split in ('train', 'validation')},
        'jpeg',
        size=(16, 32),
    )
    clips = records.Records(tmp_path / 'out', 'validation')
    for index in range(2):
        np.testing.assert_array_equal(clips.read(index, [19])['depth'][0], classes(10 + index))
        assert clips.depth_kind(index) == 'classes'


def test_a_loader_says_what_its_depth_is_and_refuses_two_kinds(raw, tmp_path, monkeypatch):
    layouts.kitti(tmp_path / 'kitti', ['2011_09_26_drive_0001', '2011_09_26_drive_0005'])
    layouts.kitti(tmp_path / 'kitti', ['2011_09_26_drive_0011'], depth=None)
    layouts.covla(tmp_path / 'covla', clips=5)
    frame_records.write_frames(tmp_path / 'classes', {'train': Cityscapes(raw, 'train')})
    frame_records.write_frames(tmp_path / 'metres', {'train': World('train', 2, 4, (32, 64))})
    expected = {
        'world': {'metres'},
        f'records:{tmp_path}/classes': {'classes'},
        f'records:{tmp_path}/metres': {'metres'},
        f'cityscapes:{raw}': {'classes'},
        f'kitti:{tmp_path}/kitti': {'metres'},
        f'covla:{tmp_path}/covla': set(),
    }
    data = ConfigDict({'sources': tuple(expected), 'size': (16, 32), 'frames': 1, 'clips': 3})
    with pytest.raises(
        UserError,
        match='data.sources: depth is metres in kitti:.* but classes in cityscapes:.*; take sources'
        ' of one kind, or set data.labels=False',
    ):
        loader.create(data, 2)
    data.labels = False
    monkeypatch.setattr(Image, 'open', None)  # said without opening a clip
    assert loader.create(data, 2).depth_kinds() == expected
    assert [Kitti(tmp_path / 'kitti', 'train').depth_kind(index) for index in range(3)] == [
        'metres',
        'metres',
        None,
    ]
