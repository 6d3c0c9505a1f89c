"""CoVLA and KITTI in their published layouts, and what all datasets say of a wrong folder."""

import pathlib
import pickle
import shutil
import sys
import types

import numpy as np
import pytest
from PIL import Image

from re2pix_jax import data
from re2pix_jax.data import loader, sources, video
from re2pix_jax.data.sources import kitti
from re2pix_jax.data.sources.cityscapes import Cityscapes
from re2pix_jax.data.sources.covla import CoVLA
from re2pix_jax.data.sources.kitti import Kitti
from re2pix_jax.data.sources.nuscenes import NuScenes
from re2pix_jax.errors import UserError
from tests.data import index_coded, layouts


@pytest.mark.parametrize('name', ['covla', 'covla_videos'])
def test_covla_clips(raw, name):
    train, validation = (CoVLA(raw[name], split) for split in CoVLA.SPLITS)
    assert (len(train), len(validation)) == (4, 1)
    clips = [*map(train.name, range(4)), validation.name(0)]
    assert (
        clips == sorted(clips) and len(set(clips)) == 5 and all(len(clip) == 16 for clip in clips)
    )
    assert (
        train.fps(0) == 20.0
        and train.num_frames(0) == 30
        and train.target(0) == 28
        and train.problem(0) is None
    )
    origin = f'videos/{clips[2]}.mp4' if name == 'covla_videos' else f'images/{clips[2]}/0000.jpg'
    assert train.origin(2) == origin and (raw[name] / origin).is_file()
    clip = train.read(2, [7, 3, 12])
    assert layouts.numbers(clip['frames']) == [7, 3, 12] and clip['frames'].shape == (3, 32, 64, 3)
    assert (
        (clip['labels'] == 255).all()
        and not clip['depth'].any()
        and train.depth_coding(0) == ('linear', 0.01)
    )
    assert layouts.numbers(train.read(1, range(16, 30), labels=False)['frames']) == list(
        range(16, 30)
    )


def test_covla_decodes_only_a_block_of_a_video(raw, monkeypatch):
    asked, take = [], video.take
    monkeypatch.setattr(
        video, 'take', lambda path, indices: asked.append(list(indices)) or take(path, indices)
    )
    source = pickle.loads(pickle.dumps(CoVLA(raw['covla_videos'], 'train')))
    source.read(0, [20, 16, 18], labels=False)
    assert asked == [[20, 16, 18]]


def test_where_covla_may_lie(tmp_path):
    layouts.covla(tmp_path / 'plain', clips=2, frames=2, below='.')
    (tmp_path / 'plain' / 'captions').mkdir()
    layouts.covla(tmp_path / 'videos', clips=2, frames=2, videos=True, below='.')
    layouts.covla(tmp_path / 'both', clips=2, frames=2, videos=True)
    layouts.covla(tmp_path / 'both', clips=3, frames=2)
    found = {
        name: [CoVLA(tmp_path / name, split).origin(0) for split in CoVLA.SPLITS]
        for name in ('plain', 'videos', 'both')
    }
    first, second = sorted(
        path.name for path in (tmp_path / 'plain').iterdir() if path.name != 'captions'
    )
    assert found['plain'] == [f'{first}/0000.jpg', f'{second}/0000.jpg']
    assert found['videos'] == [f'{first}.mp4', f'{second}.mp4']
    assert all(origin.startswith('images/') for origin in found['both'])


def test_a_covla_video_that_pauses_is_not_read_through_the_pause(copied):
    folder = copied('covla_videos')
    file, source = folder / CoVLA(folder, 'train').origin(1), CoVLA(folder, 'train')
    index_coded.write(file, range(8), np.r_[0:4, 30:34] / 20)
    assert layouts.message(source.read, 1, [0, 5]) == (
        f'{file}: the recording pauses after 0.15 s, expected an unbroken clip; take it from the '
        'dataset again'
    )
    index_coded.write(file, range(8), np.arange(8) / 20)  # taken again
    assert source.num_frames(1) == 8


def test_what_is_wrong_with_covla_is_said(copied, monkeypatch):
    folder = copied('covla')
    clip = CoVLA(folder, 'train').name(1)
    for file in (folder / 'images' / clip).iterdir():
        file.unlink()
    source = CoVLA(folder, 'train')
    assert (
        len(source) == 4
        and source.problem(1) == f'no images in images/{clip}'
        and source.num_frames(1) == 0
    ), 'the split stays'
    other = source.name(2)
    (folder / 'images' / other / '0012.jpg').unlink()
    missing = f'frames are missing between 0000.jpg and 0029.jpg in images/{other}'
    assert source.problem(2) == missing and source.problem(3) is None
    folder = copied('covla_videos')
    file = folder / CoVLA(folder, 'train').origin(1)
    complete = file.read_bytes()
    file.write_bytes(b'no video')
    source = CoVLA(folder, 'train')
    assert source.problem(1) is None, 'opening and listing decode nothing'
    assert layouts.message(source.num_frames, 1).startswith(f'{file}: not a readable video')
    file.write_bytes(complete)
    video.write(file, np.stack([layouts.frame(k) for k in range(9)]), 20)
    assert source.num_frames(1) == 9 and source.target(1) == 28
    video.write(file, np.stack([layouts.frame(k) for k in range(4)]), 20)
    assert f'{file}: 4 frames' in layouts.message(source.read, 1, range(9))
    one = layouts.covla(folder / 'one', clips=1, frames=2)
    assert f"{one}: no clips of split 'train', there are some of validation" in layouts.message(
        CoVLA, one, 'train'
    )


def test_kitti_drives(tmp_path):
    drives = [
        '2011_09_26_drive_0001',
        '2011_09_26_drive_0002',
        '2011_09_28_drive_0002',
        '2011_09_29_drive_0004',
        '2011_10_03_drive_0047',
    ]
    layouts.kitti(tmp_path, drives, frames=29, depth=None)
    layouts.kitti(tmp_path, drives[1:2], frames=29, depth='data_depth_annotated/val')
    layouts.kitti(tmp_path, drives[2:3], frames=29, depth='train')
    shutil.rmtree(tmp_path / '2011_09_29' / f'{drives[3]}_sync' / 'image_02')
    train, validation, test = (Kitti(tmp_path, split) for split in Kitti.SPLITS)
    folder = '2011_09_26/2011_09_26_drive_0001_sync/image_02/data'
    assert layouts.told(train) == [
        ('2011_09_26_drive_0001', f'{folder}/0000000000.png', 29, 28, None)
    ], 'a drive without images is no clip'
    assert [validation.name(i) for i in range(3)] == [
        drives[1],
        drives[2],
        drives[4],
    ] and layouts.told(test) == layouts.told(validation)
    assert train.fps(0) == 10.0 and [validation.depth_coding(i)[1] for i in range(3)] == [
        1 / 256,
        1 / 256,
        0.01,
    ]
    clip = validation.read(1, [4, 5])
    np.testing.assert_array_equal(clip['frames'][1], layouts.frame(5, 0))
    np.testing.assert_array_equal(clip['depth'][1], layouts.counts(0).astype(np.float32) / 256)
    assert (
        not clip['depth'][0].any()
        and (clip['labels'] == 255).all()
        and not train.read(0, [9])['depth'].any()
    )
    (tmp_path / folder / '0000000012.png').unlink()
    assert (
        Kitti(tmp_path, 'train').problem(0)
        == f'frames are missing between 0000000000.png and 0000000028.png in {folder}'
    )


def test_eigens_drives(tmp_path):
    assert (sum(map(len, kitti.TRAIN.values())), sum(map(len, kitti.TEST.values()))) == (33, 28)
    assert not any(set(kitti.TRAIN[date]) & set(kitti.TEST[date]) for date in kitti.TRAIN)
    # Of these, 0003 of the first and 0012 of the third day are in neither list.
    drives = [f'2011_09_26_drive_{number:04d}' for number in (1, 2, 3, 113)] + [
        '2011_09_29_drive_0026',
        '2011_10_03_drive_0012',
    ]
    layouts.kitti(tmp_path, drives, frames=1, depth=None)
    train, validation = Kitti(tmp_path, 'train'), Kitti(tmp_path, 'validation')
    assert [clip.name for clip in train.clips] == [drives[0], drives[3], drives[4]]
    assert [clip.name for clip in validation.clips] == [drives[1]]


@pytest.mark.parametrize(
    'dataset, name, expected, write',
    [
        (
            Cityscapes,
            'Cityscapes',
            'leftImg8bit_sequence/{train,val,test}/CITY/CITY_000000_000000_leftImg8bit.png',
            lambda folder: layouts.cityscapes(folder, 1, 0),
        ),
        (
            NuScenes,
            'nuScenes',
            'v1.0-{trainval,test,mini}/sample_data.json',
            lambda folder: layouts.nuscenes(folder, ('scene-0001',), frames=2),
        ),
        (
            CoVLA,
            'CoVLA',
            'images/CLIP/0000.jpg or videos/CLIP.mp4',
            None,
        ),  # of one clip or more, some are for validation
        (
            Kitti,
            'KITTI',
            '2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png',
            lambda folder: layouts.kitti(folder, ('2011_09_26_drive_0001',), frames=2),
        ),
    ],
)
def test_a_wrong_folder_or_split_is_said(tmp_path, dataset, name, expected, write):
    none = tmp_path / 'none'
    assert (
        layouts.message(dataset, none, 'train')
        == f'{none}: no such folder, expected {name} as published, with {expected} in it'
    )
    assert layouts.message(dataset, tmp_path, 'train') == (
        f'{tmp_path}: not {name} as published, expected {expected} in it; give the folder that '
        'holds it'
    )
    assert (
        layouts.message(dataset, tmp_path, 'val')
        == f"split 'val': {name} has {', '.join(dataset.SPLITS)}"
    )
    if write:
        write(tmp_path)
        assert (
            layouts.message(dataset, tmp_path, 'validation')
            == f"{tmp_path}: no clips of split 'validation', there are some of train"
        )


def test_a_damaged_file_is_named(copied):
    folder = copied('cityscapes')
    file = folder / 'leftImg8bit_sequence' / 'train/aachen/aachen_000001_000017_leftImg8bit.png'
    complete = file.read_bytes()
    flipped = bytearray(complete)
    flipped[len(complete) // 2] ^= 255
    source = Cityscapes(folder, 'train')
    for damage in (complete[: len(complete) // 2], b'', b'text', bytes(flipped)):
        file.write_bytes(damage)
        assert layouts.message(source.read, 1, range(30)).startswith(
            f'{file}: not a readable image ('
        )
    assert len(source.read(1, range(17))['frames']) == 17 and source.problem(1) is None
    file.unlink()
    assert (
        layouts.message(source.read, 1, [17])
        == f'{file}: no such file; take it from the dataset again'
    )
    layouts.save(file, layouts.frame(17)[..., 0])
    assert (source.read(1, [17])['frames'][0] == layouts.frame(17)[..., :1]).all(), (
        'grey becomes RGB'
    )
    layouts.save(file, layouts.frame(17, size=(16, 64)))
    assert layouts.message(source.read, 1, [0, 17]).startswith(
        f'{file}: [16, 64, 3] pixels and channels, its clip has frames of [32, 64]'
    )
    label = folder / 'gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png'
    layouts.save(label, layouts.frame(0))
    assert layouts.message(source.read, 1, [19]).startswith(
        f'{label}: [32, 64, 3] pixels and channels'
    )
    layouts.save(label, np.full(layouts.SIZE, 263, np.uint16))
    assert layouts.message(source.read, 1, [19]) == (
        f'{label}: uint16 values from 263 to 263, expected whole numbers from 0 to 255, as '
        'Cityscapes has them; take it from the dataset again'
    )
    label.write_bytes(b'')
    assert layouts.message(source.read, 1, [19]).startswith(f'{label}: not a readable image')
    assert set(source.read(1, [19], labels=False)) == {'frames'}


def test_opening_reads_no_images_and_sources_travel(raw, monkeypatch):
    sources = {
        name: dataset(raw[name], 'train')
        for name, dataset in [
            ('cityscapes', Cityscapes),
            ('nuscenes', NuScenes),
            ('covla', CoVLA),
            ('covla_videos', CoVLA),
            ('kitti', Kitti),
        ]
    }
    for name, source in sources.items():
        other = pickle.loads(pickle.dumps(source))
        assert layouts.told(other) == layouts.told(source) and len(layouts.told(source)) > 0
        np.testing.assert_array_equal(other.read(0, [1])['frames'], source.read(0, [1])['frames'])
        assert len({source.name(i) for i in range(len(source))}) == len(source), name

    def forbidden(*_, **__):
        raise AssertionError('opened')

    monkeypatch.setattr(Image, 'open', forbidden)
    monkeypatch.setattr(video, 'probe', forbidden)
    for name, source in sources.items():
        again = type(source)(raw[name], 'train')
        assert len(again) == len(source) and [again.problem(i) for i in range(len(again))] == [
            None
        ] * len(again)


def test_a_dataset_is_one_file_and_one_line(tmp_path, monkeypatch):
    """The example of the room's README, as it stands there."""
    readme = pathlib.Path(data.__file__).with_name('README.md').read_text()
    module = types.ModuleType('re2pix_jax.data.sources.dashcam')
    exec(readme.partition('```python\n')[2].partition('```')[0], module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sources.PUBLISHED, 'dashcam', 'Dashcam')
    for split, drive in [('train', 'a'), ('train', 'b'), ('validation', 'c')]:
        for k in range(9):
            layouts.save(tmp_path / split / drive / f'{k:04d}.png', layouts.frame(k))
    config = {'sources': (f'dashcam:{tmp_path}',), 'size': (16, 32), 'frames': 2, 'strides': (3,)}
    batches = loader.create(config, 2)
    assert batches.clips == 2 and next(batches)['frames'].shape == (2, 2, 16, 32, 3)
    assert batches.depth_kinds() == {config['sources'][0]: set()}
    with pytest.raises(UserError, match='no clips of split|has train, validation'):
        sources.open_source(config['sources'][0], 'test', (16, 32))
    with pytest.raises(UserError, match='kitti, nuscenes, dashcam and a folder'):
        sources.open_source('moon:x', 'train', (16, 32))
