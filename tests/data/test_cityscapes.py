"""Cityscapes in its published layout: which frames a snippet has, what labels and depth mean."""

import shutil

import numpy as np
import pytest

from re2pix_jax.data import records
from re2pix_jax.data.sources.cityscapes import Cityscapes
from re2pix_jax.data.sources.kitti import Kitti
from tests.data import layouts

IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CLASSES = {number: index for index, number in enumerate(IDS)}  # the dataset's ids → train ids
SEQUENCE = 'leftImg8bit_sequence'


def test_cityscapes_snippets(raw):
    train, validation, test = (Cityscapes(raw['cityscapes'], split) for split in Cityscapes.SPLITS)
    assert layouts.told(train) == [
        (
            f'aachen_{k:06d}',
            f'{SEQUENCE}/train/aachen/aachen_{k:06d}_000000_leftImg8bit.png',
            30,
            19,
            None,
        )
        for k in range(10)
    ]
    assert layouts.told(validation) == [
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
    found = [(name, count, problem) for name, _, count, _, problem in layouts.told(source)]
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
    problems = [problem for *_, problem in layouts.told(Cityscapes(folder, 'train'))]
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
        assert 'aachen_000005_000019_camera.json: ' in layouts.message(
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
