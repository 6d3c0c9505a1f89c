"""nuScenes in its published layout: scenes, chains of frames, and what is wrong."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data.sources import nuscenes
from re2pix_jax.data.sources.nuscenes import NuScenes
from tests.data import layouts


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
    assert "no clips of split 'test', there are some of train, validation" in layouts.message(
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
    assert layouts.message(source.read, 0, [7, 8]).startswith(f'{folder / file}: no such file')
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
    assert 'v1.0-trainval/sample_data.json: tells of no frames of CAM_FRONT' in layouts.message(
        NuScenes, folder, 'train'
    )
    without_next = json.dumps(
        [{key: value for key, value in row.items() if key != 'next'} for row in rows]
    )
    for name, texts in {'sample_data': ('', without_next), 'scene': ('[', '[{}]', '7')}.items():
        table = folder / 'v1.0-trainval' / f'{name}.json'
        complete = table.read_text()
        for text in texts:
            table.write_text(text)
            assert f'{name}.json: not a nuScenes table with token, ' in layouts.message(
                NuScenes, folder, 'train'
            )
        table.unlink()
        assert f'{name}.json: no such table' in layouts.message(NuScenes, folder, 'train')
        table.write_text(complete)
    for kind in ('samples', 'sweeps'):
        shutil.rmtree(folder / kind)
    assert 'no images in samples/CAM_FRONT and sweeps/CAM_FRONT' in layouts.message(
        NuScenes, folder, 'train'
    )
