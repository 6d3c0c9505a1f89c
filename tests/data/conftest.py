"""Prepared clips that say which clip and frame they are; published layouts."""

import pathlib
import shutil

import pytest
from ml_collections import ConfigDict

from re2pix_jax.data import frame_records
from tests.data import layouts
from tests.data.stubs import Numbered, Stub


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('loader')
    frame_records.write_frames(
        path / 'a', {'train': Numbered(11), 'validation': Numbered(5, split='validation')}
    )
    frame_records.write_frames(path / 'b', {'train': Numbered(4, offset=100)})
    frame_records.write_frames(path / 'short', {'train': Numbered(2, frames=10)})
    return path


@pytest.fixture
def data(folder):
    return ConfigDict(
        {
            'sources': (f'records:{folder}/a',),
            'weights': (1.0,),
            'split': 'train',
            'size': (16, 32),
            'frames': 4,
            'strides': (2, 3, 4),
            'crop': (0.5, 1.0),
            'flip': 0.5,
            'workers': 0,
            'clips': 0,
        }
    )


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records') / 'deep' / 'stub'
    frame_records.write_frames(
        folder, {'train': Stub(), 'validation': Stub(2, split='validation')}, source='stub'
    )
    return folder


@pytest.fixture(scope='session')
def raw(tmp_path_factory):
    """name → a folder of the dataset; tests copy what they change."""
    folder = tmp_path_factory.mktemp('raw')
    return {
        'cityscapes': layouts.cityscapes(
            folder / 'cityscapes', train=10, validation=2, test=1, disparity='disparity'
        ),
        'nuscenes': layouts.nuscenes(
            folder / 'nuscenes', ('scene-0001', 'scene-0003', 'scene-0010', 'scene-0077')
        ),
        'covla': layouts.covla(folder / 'covla'),
        'covla_videos': layouts.covla(folder / 'covla_videos', videos=True),
        'kitti': layouts.kitti(folder / 'kitti'),
    }


@pytest.fixture
def copied(raw, tmp_path):
    return lambda name: pathlib.Path(shutil.copytree(raw[name], tmp_path / name))
