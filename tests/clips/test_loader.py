"""The loader: shards, mixes, epochs, and a state from which a run goes on byte for byte."""

import json
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from re2pix_jax.clips import loader, sampling, video
from re2pix_jax.clips.datasets import records
from re2pix_jax.clips.datasets.world import World
from re2pix_jax.errors import UserError


class Numbered:
    """Clips whose pixels say which clip and which frame they are."""

    def __init__(self, count, frames=30, offset=0):
        self.count, self.frames, self.offset = count, frames, offset

    def __len__(self):
        return self.count

    def num_frames(self, index):
        return self.frames

    def fps(self, index):
        return 17.0

    def name(self, index):
        return f'clip{index}'

    def read(self, index, indices, labels=True):
        shape = (len(indices), 16, 32)
        frames = np.zeros((*shape, 3), np.uint8)
        frames[..., 0], frames[..., 2] = self.offset + index, np.arange(32)
        frames[..., 1] = np.asarray(indices)[:, None, None]
        return {'frames': frames, 'labels': frames[..., 1] % 19, 'depth': frames[..., 2].astype(np.float32) + 1}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('loader')
    records.write(path / 'a', {'train': Numbered(11), 'validation': Numbered(5)}, processes=1)
    records.write(path / 'b', {'train': Numbered(4, offset=100)}, processes=1)
    records.write(path / 'short', {'train': Numbered(2, frames=10)}, processes=1)
    return path


@pytest.fixture
def data(folder):
    return ConfigDict({'sources': (f'records:{folder}/a',), 'weights': (1.0,), 'split': 'train', 'size': (16, 32),
                       'frames': 4, 'strides': (2, 3, 4), 'crop': (0.5, 1.0), 'flip': 0.5, 'workers': 0, 'clips': 0})


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys()
        for name in batch:
            assert batch[name].dtype == other[name].dtype
            np.testing.assert_array_equal(batch[name], other[name])


def test_a_batch_is_what_the_contract_says(data):
    batches = loader.create(data, 3)
    batch = next(batches)
    assert {name: (values.dtype.name, values.shape) for name, values in batch.items()} == {
        'frames': ('uint8', (3, 4, 16, 32, 3)), 'labels': ('uint8', (3, 4, 16, 32)),
        'depth': ('float32', (3, 4, 16, 32)), 'record': ('int64', (3,))}
    assert batches.record_name(batch['record'][0]) == f'{data.sources[0]}/clip{batch["frames"][0, 0, 0, 0, 0]}'
    steps = np.diff(batch['frames'][:, :, 0, 0, 1].astype(int), axis=1)
    assert ((steps >= 2) & (steps <= 4)).all() and (steps == steps[:, :1]).all()
    data.labels = False
    bare = next(loader.create(data, 3))
    assert set(bare) == {'frames', 'record'}
    np.testing.assert_array_equal(bare['frames'], batch['frames'])


def test_frames_labels_and_depth_stay_aligned(data):
    data.crop = (1.0, 1.0)  # no resampling: exact
    for batch in take(loader.create(data, 5), 6):
        np.testing.assert_array_equal(batch['labels'], batch['frames'][..., 1] % 19)
        np.testing.assert_array_equal(batch['depth'], batch['frames'][..., 2] + 1.0)
    batches = take(loader.create(data, 5), 6)
    flips = {bool(clip[0, 0, 0, 2] > clip[0, 0, -1, 2]) for batch in batches for clip in batch['frames']}
    assert flips == {False, True}


def test_every_epoch_has_every_record_once_in_another_order_and_another_window(data):
    batches = take(loader.create(data, 11, seed=3), 3)
    orders = [batch['record'].tolist() for batch in batches]
    assert all(sorted(order) == list(range(11)) for order in orders) and orders[0] != orders[1] != orders[2]
    windows = [{record: frames.tobytes() for record, frames in zip(b['record'].tolist(), b['frames'])} for b in batches]
    assert sum(windows[0][record] != windows[1][record] for record in range(11)) >= 9
    assert_same(batches, take(loader.create(data, 11, seed=3), 3))
    assert take(loader.create(data, 11, seed=4), 1)[0]['record'].tolist() != orders[0]


def test_windows_depend_on_seed_epoch_and_record_alone(data):
    alone, half = (loader.create(data, 1, seed=5, process=(0, count)) for count in (1, 2))
    alone = {int(b['record'][0]): b['frames'].tobytes() for b in take(alone, 11)}
    half = {int(b['record'][0]): b['frames'].tobytes() for b in take(half, 6)}
    assert sorted(half) == [0, 2, 4, 6, 8, 10] and all(alone[record] == frames for record, frames in half.items())


@pytest.mark.parametrize('training', [True, False])
def test_processes_share_the_records(data, training):
    data.split = 'train'
    seen = [[int(r) for b in take(loader.create(data, 1, training=training, process=(i, 3)), n) for r in b['record']]
            for i, n in enumerate((4, 4, 3))]
    assert sorted(sum(seen, [])) == list(range(11))


def test_sources_are_mixed_by_weight_and_seen_whole(data, folder):
    data.sources, data.weights = (f'records:{folder}/a', f'records:{folder}/b'), (1.0, 3.0)
    data.labels = False
    batches = loader.create(data, 8)
    ids = np.concatenate([batch['record'] for batch in take(batches, 10)])
    assert (ids >> 40).mean() == pytest.approx(0.75, abs=0.02)
    assert sorted(set(ids)) == [*range(11), *((1 << 40) + k for k in range(4))], 'no part of a source is left out'
    assert batches.record_name((1 << 40) + 2) == f'records:{folder}/b/clip2'
    data.weights = ()
    ids = np.concatenate([batch['record'] for batch in take(loader.create(data, 8), 10)])
    assert (ids >> 40).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize('workers', [0, 2])
def test_resuming_is_exact(data, folder, workers):
    data.sources, data.weights = (f'records:{folder}/a', f'records:{folder}/b'), (2.0, 1.0)
    expected = take(loader.create(data, 3, seed=1), 14)  # 42 clips: several epochs of both sources
    data.workers = workers
    first = loader.create(data, 3, seed=1)
    states = [first.get_state()]
    for batch in expected[:9]:
        assert_same([next(first)], [batch])  # the number of workers changes nothing
        states.append(first.get_state())
    time.sleep(0.2)  # what is read ahead must not count
    assert first.get_state() == states[-1]
    first.close()
    again = loader.create(data, 3, seed=1)
    for position in (9,) if workers else (9, 4, 0):  # workers take seconds to start
        again.set_state(json.loads(json.dumps(states[position])))
        assert_same(take(again, 5), expected[position:position + 5])
    again.close()


def test_the_state_of_another_set_up_is_refused(data):
    state = loader.create(data, 2, process=(0, 1)).get_state()
    loader.create(data, 2, process=(0, 1)).set_state(state)
    for words, change, batch_size, process in [
            ('workers was 0, now 2', {'workers': 2}, 2, (0, 1)), ('processes was 1, now 2', {}, 2, (0, 2)),
            ('batch size was 2, now 3', {}, 3, (0, 1)), ('records was 11, now 5', {'split': 'validation'}, 2, (0, 1))]:
        other = data.copy_and_resolve_references()
        other.update(change)
        with pytest.raises(UserError, match=words):
            loader.create(other, batch_size, process=process).set_state(state)


def test_evaluation_is_one_pass_in_order(data):
    data.split, data.start, data.frames, data.strides = 'validation', 7, 5, (3,)
    batches = list(loader.create(data, 2, training=False))
    assert [batch['record'].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    for batch in batches:
        assert (batch['frames'][:, :, 3, 3, 1] == [7, 10, 13, 16, 19]).all()
        assert (batch['frames'][..., 2] == np.arange(32)).all(), 'no crop, no flip'
    state_of = loader.create(data, 2, training=False)
    next(state_of)
    again = loader.create(data, 2, training=False)
    again.set_state(state_of.get_state())
    assert_same(list(again), batches[1:])


def test_videos_are_fitted_so_that_crops_are_not_blown_up(tmp_path, data):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 64, 128, 3), np.uint8).repeat(2, axis=2)
    video.write(tmp_path / 'a.mp4', noise, 17)
    data.update({'sources': (f'videos:{tmp_path}',), 'crop': (0.25, 0.25), 'flip': 0.0, 'strides': (1,)})
    sample = loader.create(data, 1)._sample
    assert sample.sources[0].size == (64, 128)
    assert loader.create(data, 1, training=False)._sample.sources[0].size == (16, 32)
    data.source_size = (32, 64)
    assert loader.create(data, 1)._sample.sources[0].size == (32, 64)
    batch = next(loader.create(data, 1))
    assert batch['frames'].shape == (1, 4, 16, 32, 3) and (batch['labels'] == 255).all() and not batch['depth'].any()


def test_the_world_is_read_directly():
    data = ConfigDict({'sources': ('world',), 'size': (32, 64), 'frames': 2, 'strides': (3,), 'clips': 3})
    batch = next(loader.create(data, 3, seed=0))
    assert sorted(batch['record']) == [0, 1, 2] and batch['depth'].max() > 0
    record = int(batch['record'][0])
    rng = sampling.generator(0, 0, record)
    window = sampling.window(rng, 30, 17, 2, (3,))
    np.testing.assert_array_equal(World('train', size=(32, 64)).read(record, window)['frames'], batch['frames'][0])


@pytest.mark.parametrize('workers', [0, 2])
def test_an_unreadable_record_is_named(tmp_path, data, workers):
    records.write(tmp_path / 'bad', {'train': Numbered(3)}, processes=1)
    file = next((tmp_path / 'bad').glob('*.array_record*'))
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    written = np.flatnonzero(content)
    content[written[len(written) // 4:len(written) // 2]] = 0  # neither the head nor the index at the end
    file.write_bytes(content)
    data.sources, data.workers = (f'records:{tmp_path}/bad',), workers
    batches = loader.create(data, 1)
    with pytest.raises(UserError, match=r'bad: record \d \(clip\d\) can\'t be read') as error:
        take(batches, 3)
    assert '\n' not in str(error.value)
    batches.close()


def test_wrong_settings_are_named(data, folder):
    for change, words in [
            ({'sources': ()}, 'data.sources'), ({'weights': (1.0, 2.0)}, 'data.weights'),
            ({'weights': (0.0,)}, 'data.weights'),
            ({'strides': ()}, 'data.strides'), ({'crop': (0.0, 1.0)}, 'data.crop'), ({'crop': (0.8, 0.5)}, 'data.crop'),
            ({'flip': 2.0}, 'data.flip'), ({'size': (0, 5)}, 'data.size'), ({'frames': 0}, 'data.frames'),
            ({'workers': -1}, 'data.workers'), ({'sources': ('moon',)}, 'expected "world"'),
            ({'sources': (f'records:{folder}/short',), 'frames': 8}, 'all clips are too short, even clip0: 10 frames'),
            ({'sources': (f'records:{folder}/none',)}, 'no prepared clips there'),
            ({'split': 'test'}, "no split 'test'")]:
        other = data.copy_and_resolve_references()
        with other.ignore_type():
            other.update(change)
        with pytest.raises(UserError, match=words.replace('.', r'\.')):
            loader.create(other, 2)
    with pytest.raises(UserError, match='batch_size = 0'):
        loader.create(data, 0)
    with pytest.raises(UserError, match='fewer clips than the 12 processes'):
        loader.create(data, 1, process=(0, 12))
    data.strides = (9,)
    with pytest.raises(UserError, match='clip0: 30 frames at .* too few: 5 frames at stride 9 need 37') as error:
        data.frames = 5
        list(loader.create(data, 1, training=False))
    assert '\n' not in str(error.value)
