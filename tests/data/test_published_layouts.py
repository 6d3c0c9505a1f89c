"""The published datasets in their published layouts: which frames a clip has, what labels and depth
mean, and what is wrong.
"""

import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import records, video
from re2pix_jax.data.sources import kitti, nuscenes
from re2pix_jax.data.sources.cityscapes import Cityscapes
from re2pix_jax.data.sources.covla import CoVLA
from re2pix_jax.data.sources.kitti import Kitti
from re2pix_jax.data.sources.nuscenes import NuScenes
from re2pix_jax.errors import UserError
from tests.data import layouts

CLASSES = {
    7: 0,
    8: 1,
    11: 2,
    12: 3,
    13: 4,
    17: 5,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    31: 16,
    32: 17,
    33: 18,
}  # Cityscapes' ids → train ids
SEQUENCE = 'leftImg8bit_sequence'


@pytest.fixture(scope='module')
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


def told(source):
    return [
        (
            source.name(i),
            source.origin(i),
            source.num_frames(i),
            source.target(i),
            source.problem(i),
        )
        for i in range(len(source))
    ]


def message(action, *arguments):
    with pytest.raises(UserError) as error:
        action(*arguments)
    assert '\n' not in str(error.value)
    return str(error.value)


def test_cityscapes_snippets(raw):
    train, validation, test = (Cityscapes(raw['cityscapes'], split) for split in Cityscapes.SPLITS)
    assert told(train) == [
        (
            f'aachen_{k:06d}',
            f'{SEQUENCE}/train/aachen/aachen_{k:06d}_000000_leftImg8bit.png',
            30,
            19,
            None,
        )
        for k in range(10)
    ]
    assert told(validation) == [
        (
            f'frankfurt_000000_{first:06d}',
            f'{SEQUENCE}/val/frankfurt/frankfurt_000000_{first:06d}_leftImg8bit.png',
            30,
            19,
            None,
        )
        for first in (275, 315)
    ]
    assert [test.name(i) for i in range(len(test))] == ['berlin_000000_000000']
    assert train.fps(0) == 17.0
    clip = validation.read(1, [29, 0, 19])
    np.testing.assert_array_equal(clip['frames'], [layouts.frame(k, 11) for k in (29, 0, 19)])
    assert {name: (values.dtype.name, values.shape) for name, values in clip.items()} == {
        'frames': ('uint8', (3, 32, 64, 3)),
        'labels': ('uint8', (3, 32, 64)),
        'depth': ('float32', (3, 32, 64)),
    }
    assert set(validation.read(0, np.arange(2), labels=False)) == {'frames'}


def test_cityscapes_long_recordings_are_cut(tmp_path):
    for sequence, frames in [
        (0, range(100, 165)),
        (1, [*range(30), *range(40, 70)]),
        (2, [*range(12), *range(13, 50)]),
    ]:
        layouts.cityscapes_frames(tmp_path, 'val', 'frankfurt', sequence, frames)
    source = Cityscapes(tmp_path, 'validation')
    found = [(name, count, problem) for name, _, count, _, problem in told(source)]
    assert found == [
        ('frankfurt_000000_000100', 30, None),
        ('frankfurt_000000_000130', 30, None),
        ('frankfurt_000001_000000', 30, None),
        ('frankfurt_000001_000040', 30, None),
        (
            'frankfurt_000002_000000',
            12,
            '12 frames from frankfurt_000002_000000 on, expected 30 in a row',
        ),
        ('frankfurt_000002_000013', 30, None),
    ]
    assert source.target(4) == 19
    np.testing.assert_array_equal(source.read(1, [5], labels=False)['frames'][0], layouts.frame(35))


def test_a_short_sequence_with_a_lost_frame_is_a_problem(copied):
    folder = copied('cityscapes')
    (folder / SEQUENCE / 'train/aachen/aachen_000003_000011_leftImg8bit.png').unlink()
    problems = [problem for *_, problem in told(Cityscapes(folder, 'train'))]
    assert (
        problems[3] == '29 frames from aachen_000003_000000 on, expected 30 in a row'
        and problems.count(None) == 9
    )


def test_cityscapes_ids_become_train_ids(raw):
    source = Cityscapes(raw['cityscapes'], 'train')
    labels = source.read(4, [18, 19, 20])['labels']
    ids = layouts.label_ids(4)
    assert set(ids.flat) == set(range(34))
    np.testing.assert_array_equal(
        labels[1], [[CLASSES.get(value, 255) for value in row] for row in ids.tolist()]
    )
    assert (labels[[0, 2]] == 255).all() and set(labels[1].flat) == {*range(19), 255}
    assert (Cityscapes(raw['cityscapes'], 'test').read(0, [19])['labels'] == 255).all()


def test_cityscapes_train_ids_are_taken_first_and_as_they_are(copied):
    folder = copied('cityscapes')
    values = np.random.default_rng(0).choice(np.array([*range(19), 255], np.uint8), layouts.SIZE)
    layouts.cityscapes_save(
        folder, 'gtFine', 'train', 'aachen', 2, 19, 'gtFine_labelTrainIds.png', values
    )
    np.testing.assert_array_equal(Cityscapes(folder, 'train').read(2, [19])['labels'][0], values)
    (folder / 'gtFine/train/aachen/aachen_000002_000019_gtFine_labelIds.png').unlink()
    assert Cityscapes(folder, 'train').problem(2) is None


def test_a_missing_label_is_a_problem_where_there_are_labels(copied):
    folder = copied('cityscapes')
    (folder / 'gtFine/train/aachen/aachen_000003_000019_gtFine_labelIds.png').unlink()
    source = Cityscapes(folder, 'train')
    assert (
        source.problem(3) == 'no label gtFine/train/aachen/aachen_000003_000019_gtFine_labelIds.png'
        and source.problem(2) is None
    )
    (folder / 'gtFine/test/berlin/berlin_000000_000019_gtFine_labelIds.png').unlink()
    assert Cityscapes(folder, 'test').problem(0) is None, 'those of test are not published'
    shutil.rmtree(folder / 'gtFine')
    source = Cityscapes(folder, 'train')
    assert source.problem(3) is None and (source.read(3, [19])['labels'] == 255).all()


def test_cityscapes_depth(raw, copied):
    source = Cityscapes(raw['cityscapes'], 'train')
    kind, factor = source.depth_coding(5)
    assert kind == 'inverse' and factor == pytest.approx(256 * 0.209313 * 2262.52)
    depth = source.read(5, [19, 0])['depth']
    counts = layouts.counts(5).astype(float)
    with np.errstate(divide='ignore'):
        metres = np.where(counts > 1, 0.209313 * 2262.52 / ((counts - 1) / 256), 0)
    np.testing.assert_allclose(depth[0], metres, rtol=1e-6)
    assert not depth[1].any() and (depth[0] == 0).sum() >= depth[0].size // 6
    folder = copied('cityscapes')
    layouts.cityscapes_save(
        folder, 'disparity_sequence', 'train', 'aachen', 5, 0, 'disparity.png', layouts.counts(1)
    )
    assert Cityscapes(folder, 'train').read(5, [0])['depth'].any(), (
        'of frames other than the labelled one too'
    )
    camera = folder / 'camera/train/aachen/aachen_000005_000019_camera.json'
    for text in (
        '{',
        '{"extrinsic": {"baseline": 0.2}}',
        '{"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 2262}}',
    ):
        camera.write_text(text)
        assert 'aachen_000005_000019_camera.json: ' in message(
            Cityscapes(folder, 'train').read, 5, [19]
        )
    camera.unlink()
    source = Cityscapes(folder, 'train')
    assert (
        source.problem(5)
        == 'a disparity but no camera/train/aachen/aachen_000005_000019_camera.json'
    )
    assert source.depth_coding(5) == ('linear', 0.01) and not source.read(5, [0])['depth'].any()


def test_every_16_bit_count_comes_back(tmp_path):
    size = (256, 256)
    counts = layouts.counts(0, size)
    assert len(np.unique(counts)) == 65536
    layouts.cityscapes(tmp_path / 'cityscapes', 0, 1, labels=None, disparity='disparity')
    layouts.kitti(tmp_path / 'kitti', ['2011_09_26_drive_0001'], frames=11)
    for source, k, coded in [
        (Cityscapes(tmp_path / 'cityscapes', 'validation'), 19, np.where(counts > 1, counts, 0)),
        (Kitti(tmp_path / 'kitti', 'train'), 5, counts),
    ]:
        layouts.save(source.path / source.clips[0].files[k], layouts.frame(k, size=size))
        layouts.save(source.path / source.clips[0].depth[k], counts)
        depth, (kind, factor) = source.read(0, [k])['depth'][0], source.depth_coding(0)
        known = depth > 0
        back = (
            np.rint(depth[known] / factor)
            if kind == 'linear'
            else np.rint(factor / depth[known]) + 1
        )
        np.testing.assert_array_equal(back, coded[known])
        np.testing.assert_array_equal(known, coded > 0)
        np.testing.assert_array_equal(records.counts_of(depth, (kind, factor)), coded)


def test_nuscenes_scenes(raw):
    train, validation = (NuScenes(raw['nuscenes'], split) for split in ('train', 'validation'))
    assert [train.name(i) for i in range(len(train))] == ['scene-0001', 'scene-0010']
    assert [validation.name(i) for i in range(len(validation))] == ['scene-0003']
    assert (
        validation.target(0) == 28
        and validation.num_frames(0) == 30
        and validation.problem(0) is None
    )
    clip = validation.read(0, range(30))
    assert layouts.numbers(clip['frames']) == list(range(30)), (
        'in the order of next, key frames and sweeps'
    )
    assert (
        (clip['labels'] == 255).all()
        and not clip['depth'].any()
        and validation.depth_coding(0) == ('linear', 0.01)
    )
    first = 1532402927612460 + 3 * 10**9
    assert (
        validation.origin(0)
        == f'samples/CAM_FRONT/n015-2018-07-24-11-22-45+0800__CAM_FRONT__{first}.jpg'
    )
    files = validation.clips[0].files
    assert [k for k, file in enumerate(files) if file.startswith('samples/')] == [0, 6, 12, 18, 24]
    times = [int(file.split('__')[-1][:-4]) for file in files]
    assert (
        validation.fps(0) == pytest.approx(29e6 / (times[-1] - times[0]))
        and 11.5 < validation.fps(0) < 12.5
    )
    with Image.open(raw['nuscenes'] / files[7]) as image:
        np.testing.assert_array_equal(clip['frames'][7], np.asarray(image))


def test_the_official_scenes():
    train, validation = (
        nuscenes.scenes('v1.0-trainval', split) for split in ('train', 'validation')
    )
    test = nuscenes.scenes('v1.0-test', 'test')
    assert (len(train), len(validation), len(test), len(train | validation | test)) == (
        700,
        150,
        150,
        1000,
    )
    assert (
        {'scene-0003', 'scene-1073'} <= validation
        and {'scene-0001', 'scene-1110'} <= train
        and 'scene-0077' in test
    )
    mini_train, mini_validation = (
        nuscenes.scenes('v1.0-mini', split) for split in ('train', 'validation')
    )
    assert (
        len(mini_train) == 8
        and mini_validation == {'scene-0103', 'scene-0916'}
        and not mini_train & mini_validation
    )
    assert mini_train | mini_validation <= train | validation


def test_nuscenes_mini_and_test(tmp_path):
    layouts.nuscenes(tmp_path, ('scene-0061', 'scene-0103', 'scene-0553'), 'v1.0-mini', frames=7)
    assert [NuScenes(tmp_path, 'train').name(i) for i in range(2)] == ['scene-0061', 'scene-0553']
    source = NuScenes(tmp_path, 'validation')
    assert source.name(0) == 'scene-0103' and source.num_frames(0) == 7 and source.target(0) == 28
    assert "no clips of split 'test', there are some of train, validation" in message(
        NuScenes, tmp_path, 'test'
    )
    layouts.nuscenes(tmp_path, ('scene-0077',), 'v1.0-test', frames=7)
    assert NuScenes(tmp_path, 'test').name(0) == 'scene-0077'
    layouts.nuscenes(tmp_path, ('scene-0001',), 'v1.0-trainval', frames=7)
    assert [clip.name for clip in NuScenes(tmp_path, 'train').clips] == ['scene-0001'], (
        'rather than those of mini'
    )


def test_what_is_wrong_with_nuscenes_is_said(copied):
    folder = copied('nuscenes')
    file = NuScenes(folder, 'validation').clips[0].files[8]
    (folder / file).unlink()
    source = NuScenes(folder, 'validation')
    assert source.problem(0) == f'no file {file}'
    assert message(source.read, 0, [7, 8]).startswith(f'{folder / file}: no such file')
    rows = layouts.nuscenes_table(folder, 'sample_data')
    lost = next(row for row in rows if row['filename'] == file)
    layouts.nuscenes_table(folder, 'sample_data', [row for row in rows if row is not lost])
    assert (
        NuScenes(folder, 'validation').problem(0)
        == 'its 29 frames of CAM_FRONT are not one chain in sample_data.json'
    )
    layouts.nuscenes_table(folder, 'sample_data', [row | {'timestamp': 7} for row in rows])
    assert (
        NuScenes(folder, 'train').problem(0) == 'its timestamps in sample_data.json do not increase'
    )
    layouts.nuscenes_table(
        folder, 'sample_data', [row for row in rows if 'CAM_FRONT/' not in row['filename']]
    )
    assert 'v1.0-trainval: the tables tell of no frames of CAM_FRONT' in message(
        NuScenes, folder, 'train'
    )
    without_next = json.dumps(
        [{key: value for key, value in row.items() if key != 'next'} for row in rows]
    )
    for name, texts in {'sample_data': ('', without_next), 'scene': ('[', '[{}]', '7')}.items():
        table = folder / 'v1.0-trainval' / f'{name}.json'
        whole = table.read_text()
        for text in texts:
            table.write_text(text)
            assert f'{name}.json: not a nuScenes table with token, ' in message(
                NuScenes, folder, 'train'
            )
        table.unlink()
        assert f'{name}.json: no such table' in message(NuScenes, folder, 'train')
        table.write_text(whole)
    for kind in ('samples', 'sweeps'):
        shutil.rmtree(folder / kind)
    assert 'no images in samples/CAM_FRONT and sweeps/CAM_FRONT' in message(
        NuScenes, folder, 'train'
    )


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
    asked, read = [], video.read
    monkeypatch.setattr(
        video, 'read', lambda path, **options: asked.append(options) or read(path, **options)
    )
    source = pickle.loads(pickle.dumps(CoVLA(raw['covla_videos'], 'train')))
    source.read(0, [20, 16, 18], labels=False)
    assert asked == [{'start': 0.8, 'max_frames': 5, 'min_frames': 5}]


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
    folder = copied('covla_videos')
    file = folder / CoVLA(folder, 'train').origin(1)
    whole = file.read_bytes()
    file.write_bytes(b'no video')
    source = CoVLA(folder, 'train')
    assert source.problem(1) is None, 'opening and listing decode nothing'
    assert message(source.num_frames, 1).startswith(f'{file}: not a readable video')
    file.write_bytes(whole)
    video.write(file, np.stack([layouts.frame(k) for k in range(9)]), 20)
    assert source.num_frames(1) == 9 and source.target(1) == 28
    video.write(file, np.stack([layouts.frame(k) for k in range(4)]), 20)
    assert f'{file}: 4 frames' in message(source.read, 1, range(9))
    probe = video.probe(file)
    monkeypatch.setattr(video, 'probe', lambda path: probe._replace(frames=0))
    assert message(CoVLA(folder, 'train').num_frames, 1).startswith(
        f'{file}: the video holds no frames; '
    )
    one = layouts.covla(folder / 'one', clips=1, frames=2)
    assert f"{one}: no clips of split 'train', there are some of validation" in message(
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
    assert told(train) == [('2011_09_26_drive_0001', f'{folder}/0000000000.png', 29, 28, None)], (
        'a drive without images is no clip'
    )
    assert [validation.name(i) for i in range(3)] == [drives[1], drives[2], drives[4]] and told(
        test
    ) == told(validation)
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
        message(dataset, none, 'train')
        == f'{none}: no such folder, expected {name} as published, with {expected} in it'
    )
    assert message(dataset, tmp_path, 'train') == (
        f'{tmp_path}: not {name} as published, expected {expected} in it; give the folder that '
        'holds it'
    )
    assert (
        message(dataset, tmp_path, 'val') == f"split 'val': {name} has {', '.join(dataset.SPLITS)}"
    )
    if write:
        write(tmp_path)
        assert (
            message(dataset, tmp_path, 'validation')
            == f"{tmp_path}: no clips of split 'validation', there are some of train"
        )


def test_a_damaged_file_is_named(copied):
    folder = copied('cityscapes')
    file = folder / SEQUENCE / 'train/aachen/aachen_000001_000017_leftImg8bit.png'
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    source = Cityscapes(folder, 'train')
    for damage in (whole[: len(whole) // 2], b'', b'text', bytes(flipped)):
        file.write_bytes(damage)
        assert message(source.read, 1, range(30)).startswith(f'{file}: not a readable image (')
    assert len(source.read(1, range(17))['frames']) == 17 and source.problem(1) is None
    file.unlink()
    assert message(source.read, 1, [17]) == f'{file}: no such file; take it from the dataset again'
    layouts.save(file, layouts.frame(17)[..., 0])
    assert (source.read(1, [17])['frames'][0] == layouts.frame(17)[..., :1]).all(), (
        'grey becomes RGB'
    )
    layouts.save(file, layouts.frame(17, size=(16, 64)))
    assert message(source.read, 1, [0, 17]).startswith(
        f'{file}: [16, 64, 3] pixels and channels, its clip has frames of [32, 64]'
    )
    label = folder / 'gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png'
    layouts.save(label, layouts.frame(0))
    assert message(source.read, 1, [19]).startswith(f'{label}: [32, 64, 3] pixels and channels')
    label.write_bytes(b'')
    assert message(source.read, 1, [19]).startswith(f'{label}: not a readable image')
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
        assert told(other) == told(source) and len(told(source)) > 0
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
