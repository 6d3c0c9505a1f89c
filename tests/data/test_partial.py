"""Datasets of which a part is missing or bad: they train and are evaluated, with a true count."""

import numpy as np
import pytest

from re2pix_jax.data import frame_records, loader, selection
from re2pix_jax.data.settings import Settings
from re2pix_jax.errors import UserError
from tests.data import layouts
from tests.data.stubs import Numbered, take

SCENES = [f'scene-{number:04d}' for number in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)]


class Scratched(Numbered):
    """Of which some clips cannot be read."""

    def __init__(self, count, bad=(), **options):
        super().__init__(count, **options)
        self.bad = bad

    def read(self, index, indices, labels=True):
        if index in self.bad:
            raise UserError(f'{self.name(index)}: scratched')
        return super().read(index, indices, labels)


@pytest.fixture
def drawn(monkeypatch, data):
    """(source, number of batches of 20, options) → (records, first frames) of training windows."""

    def draw(source, batches, **options):
        monkeypatch.setattr(loader, 'open_source', lambda *_: source)
        with data.ignore_type():
            data.update(unreadable='skip', labels=False, **options)
        found = take(loader.create(data, 20), batches)
        records = np.concatenate([batch['record'] for batch in found])
        return records, np.concatenate([batch['frames'][:, 0, 0, 0, 1] for batch in found])

    return draw


def test_batches_without_the_bad_clips_are_distributed_as_with_them(drawn):
    bad = (2, 3, 4)
    records, first = drawn(Scratched(10, bad), 100)
    assert len(records) == 2000 and not set(records) & set(bad)
    counts = np.bincount(records, minlength=10)[[0, 1, 5, 6, 7, 8, 9]]
    assert abs(counts - 2000 / 7).max() < 60, 'the next clip in order would have 800'
    whole, begins = drawn(Scratched(10), 100)
    kept = ~np.isin(whole, bad)
    assert abs(first.mean() - begins[kept].mean()) < 0.5, 'windows too'
    # A clip that stands in is another window than the one that the clip gives in that epoch itself.
    epoch = list(zip(records[:10], first[:10]))
    assert len(set(epoch)) > 7


def test_the_same_clips_come_whoever_failed_before(drawn):
    records, _ = drawn(Scratched(10, (2, 3)), 10)
    again, _ = drawn(Scratched(10, (2, 3)), 10)
    np.testing.assert_array_equal(records, again)


def test_a_run_stops_where_too_many_clips_turn_out_to_be_bad(drawn):
    with pytest.raises(UserError, match=r'clip\d+: scratched; 15 of 30 clips of records.* mend'):
        drawn(Scratched(30, range(15)), 20)
    drawn(Scratched(30, range(15)), 3, least_share=0.2)


def test_two_of_ten_blobs_of_nuscenes_train(tmp_path, data, capsys):
    layouts.nuscenes(tmp_path, SCENES)
    for file in tmp_path.glob('s*/CAM_FRONT/*.jpg'):
        if int(file.stem.split('__')[-1]) // 10**9 - 1532402 not in (1, 4):  # a number of a scene
            file.unlink()
    with data.ignore_type():
        data.update(sources=(f'nuscenes:{tmp_path}',), labels=False, strides=(3,))
    batches = loader.create(data, 2)
    assert batches.clips == 2 and set(take(batches, 1)[0]['record']) == {0, 1}
    said = capsys.readouterr().err
    assert '8 of 10 scenes of split train have no file here and are left out' in said


@pytest.mark.parametrize('name', ['nuscenes', 'cityscapes', 'kitti', 'covla'])
def test_missing_frames_and_a_macs_files_leave_the_rest(tmp_path, data, capsys, name):
    if name == 'nuscenes':
        layouts.nuscenes(tmp_path, SCENES[:3])
        pattern, lost = 'sweeps/CAM_FRONT/*.jpg', 1
    elif name == 'cityscapes':
        layouts.cityscapes(tmp_path, train=10, validation=0)
        pattern, lost = 'leftImg8bit_sequence/train/*/*.png', 1
    elif name == 'kitti':
        drives = [f'2011_09_26_drive_{number:04d}' for number in (1, 5, 11)]
        layouts.kitti(tmp_path, drives)
        pattern, lost = '2011*/*/image_02/data/*.png', 1
    else:
        layouts.covla(tmp_path, clips=5)
        pattern, lost = 'images/*/*.jpg', 0  # its images have no numbers that all copies share
    files = sorted(tmp_path.glob(pattern))
    whole = len(sourced(name, tmp_path))
    files[len(files) // 2].unlink() if lost else None
    for file in files[:3]:
        (file.parent / f'._{file.name}').write_bytes(b'\0\5\26\7')
    (tmp_path / '__MACOSX').mkdir()
    (files[0].parent / '.DS_Store').write_bytes(b'?')
    with data.ignore_type():
        data.update(sources=(f'{name}:{tmp_path}',), labels=False, strides=(3,))
    for training in (True, False):
        capsys.readouterr()
        batches = loader.create(data, 1, training=training)
        assert (batches.clips, batches.skipped) == (whole - lost, lost)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == lost and all('skipped, 1 so far: ' in line for line in lines)
    scored = [int(batch['record'][0]) for batch in batches if batch['known'].all()]
    assert len(scored) == len(set(scored)) == whole - lost


def sourced(name, path):
    from re2pix_jax.data import sources

    return sources.published(name)(path, 'train')


def test_a_source_that_can_give_too_few_of_its_clips_stops(tmp_path, data):
    class Short(Numbered):
        def num_frames(self, index):
            return 30 if index < 2 else 5

    frame_records.write_frames(tmp_path / 'short', {'train': Short(5)})
    data.update(sources=(f'records:{tmp_path}/short',), strides=(3,))
    with pytest.raises(
        UserError, match=r'2 of 5 clips of split train can be used, data.least_share = 0.5 asks'
    ):
        loader.create(data, 1)
    with data.unlocked():
        data.least_share = 0.4
    assert loader.create(data, 1).clips == 2


def test_many_bad_clips_are_counted_and_some_named(tmp_path, data, capsys, monkeypatch):
    class Known(Numbered):
        def problem(self, index):
            return 'lost' if index % 2 else None

    monkeypatch.setattr(loader, 'open_source', lambda *_: Known(40))
    batches = loader.create(data, 1)
    lines = capsys.readouterr().err.splitlines()
    assert batches.skipped == 20 and batches.clips == 20 and len(lines) == loader.NAMED + 1
    assert lines[-1] == 'skipped, 20 so far: and 12 more clips of the same sources'


@pytest.mark.parametrize(
    ('size', 'crop', 'share'),
    [
        ((32, 64), (0.5, 1.0), 0.0),
        ((16, 32), (0.5, 1.0), 1.0),
        ((24, 48), (0.5, 1.0), 1 / 3),
        ((28, 80), (0.5, 1.0), (16 / 28 - 0.5) / 0.5),
        ((16, 32), (1.0, 1.0), 0.0),
        ((15, 32), (1.0, 1.0), 1.0),
    ],
)
def test_crops_that_enlarge_are_counted_and_refused(size, crop, share):
    class Sized(Numbered):
        def size_of(self, index):
            return size

    def settings(most):
        return Settings.read({'size': (16, 32), 'crop': crop, 'most_enlarged': most}, True)

    found = selection.enlarged(Sized(3), 'x', [0, 1, 2], settings(1.0))
    assert found == pytest.approx(share, abs=0.07)
    # By drawing crops: what is counted is what happens.
    from re2pix_jax.data import windows

    rng = np.random.default_rng(0)
    boxes = [windows.crop(rng, *size, (16, 32), crop) for _ in range(500)]
    assert np.mean([box.height < 16 or box.width < 32 for box in boxes]) == pytest.approx(
        share, abs=0.15
    )
    if share > 0.25:
        with pytest.raises(UserError, match=r'x: data.crop = .* enlarges .* take frames of'):
            selection.enlarged(Sized(3), 'x', [0, 1, 2], settings(0.25))


def test_the_world_is_rendered_larger_than_its_crops():
    data = {'sources': ('world',), 'size': (16, 32), 'crop': (0.5, 1.0), 'most_enlarged': 0.0}
    batches = loader.create(data | {'clips': 2, 'frames': 1, 'labels': False}, 1)
    assert batches.enlarged == {'world': 0.0} and batches.sources[0].size == (32, 64)
    assert next(batches)['frames'].shape == (1, 1, 16, 32, 3)
