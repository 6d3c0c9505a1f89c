"""The loader: shards, mixes, epochs, and a state from which a run goes on byte for byte."""

import json
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
from ml_collections import ConfigDict

from re2pix_jax.data import ahead, frame_records, loader, video, windows
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import Interrupted, UserError
from tests.data.stubs import Numbered, assert_same, take


def test_a_batch_is_what_the_contract_says(data):
    batches = loader.create(data, 3)
    batch = next(batches)
    assert {name: (values.dtype.name, values.shape) for name, values in batch.items()} == {
        'frames': ('uint8', (3, 4, 16, 32, 3)),
        'labels': ('uint8', (3, 4, 16, 32)),
        'depth': ('float32', (3, 4, 16, 32)),
        'record': ('int64', (3,)),
    }
    assert (
        batches.record_name(batch['record'][0])
        == f'{data.sources[0]}/clip{batch["frames"][0, 0, 0, 0, 0]}'
    )
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
    flips = {
        bool(clip[0, 0, 0, 2] > clip[0, 0, -1, 2]) for batch in batches for clip in batch['frames']
    }
    assert flips == {False, True}


def test_every_epoch_has_every_record_once_in_another_order_and_another_window(data):
    batches = take(loader.create(data, 11, seed=3), 3)
    orders = [batch['record'].tolist() for batch in batches]
    assert (
        all(sorted(order) == list(range(11)) for order in orders)
        and orders[0] != orders[1] != orders[2]
    )
    windows = [
        {record: frames.tobytes() for record, frames in zip(b['record'].tolist(), b['frames'])}
        for b in batches
    ]
    assert sum(windows[0][record] != windows[1][record] for record in range(11)) >= 9
    assert_same(batches, take(loader.create(data, 11, seed=3), 3))
    assert take(loader.create(data, 11, seed=4), 1)[0]['record'].tolist() != orders[0]


def test_processes_share_the_very_batches_of_one(data, folder):
    data.sources, data.weights = (f'records:{folder}/a', f'records:{folder}/b'), (2.0, 1.0)
    complete = take(loader.create(data, 6, seed=5, share=((0,), 1)), 5)
    for count in (2, 3):
        shares = [
            take(loader.create(data, 6, seed=5, share=((index,), count)), 5)
            for index in range(count)
        ]
        joined = [
            {name: np.concatenate([batch[name] for batch in parts]) for name in parts[0]}
            for parts in zip(*shares)
        ]
        assert_same(joined, complete)


def test_processes_share_the_pass_of_an_evaluation(data):
    shares = [
        list(loader.create(data, 4, training=False, share=((index,), 2))) for index in range(2)
    ]
    assert [[batch['record'].tolist() for batch in share] for share in shares] == [
        [[0, 1], [4, 5], [8, 9]],
        [[2, 3], [6, 7], [10]],
    ]
    data.split = (
        'validation'  # of its last batch the second process has nothing, and still takes part
    )
    shares = [
        list(loader.create(data, 4, training=False, share=((index,), 2))) for index in range(2)
    ]
    assert [batch['record'].tolist() for batch in shares[1]] == [[2, 3], []] and shares[1][1][
        'frames'
    ].shape == (0, 4, 16, 32, 3)


def test_sources_are_mixed_by_weight_and_seen_whole(data, folder):
    data.sources, data.weights = (f'records:{folder}/a', f'records:{folder}/b'), (1.0, 3.0)
    data.labels = False
    batches = loader.create(data, 8)
    ids = np.concatenate([batch['record'] for batch in take(batches, 10)])
    assert (ids >> 40).mean() == pytest.approx(0.75, abs=0.02)
    assert sorted(set(ids)) == [*range(11), *((1 << 40) + k for k in range(4))], (
        'no part of a source is left out'
    )
    assert batches.record_name((1 << 40) + 2) == f'records:{folder}/b/clip2'
    data.weights = ()
    ids = np.concatenate([batch['record'] for batch in take(loader.create(data, 8), 10)])
    assert (ids >> 40).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.long
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
        assert_same(take(again, 5), expected[position : position + 5])
    again.close()


def kill_a_worker(number=signal.SIGKILL):
    reading = multiprocessing.active_children()[0]
    os.kill(reading.pid, number)
    reading.join()


# More batches than are read ahead.
@pytest.mark.long
@pytest.mark.parametrize(('training', 'workers', 'count'), [(True, 2, 24), (False, 1, 11)])
def test_a_killed_worker_is_replaced_and_what_is_read_stays_the_same(
    data, training, workers, count, capsys
):
    given = data, 1, 1, training
    expected = take(loader.create(*given), count)
    data.workers = workers
    batches = loader.create(*given)
    assert_same(take(batches, 2), expected[:2])
    kill_a_worker()
    assert_same(take(batches, count - 2), expected[2:])
    batches.close()
    assert capsys.readouterr().err == (
        'a process that reads was ended by SIGKILL (where memory has run out, lower data.workers): '
        'all are started again, 1 of 8 times\n'
    )


def test_workers_that_are_always_killed_end_the_run_in_a_line(data, monkeypatch):
    monkeypatch.setattr(ahead, 'LOST', 0)
    data.workers = 1
    batches = loader.create(data, 1)
    next(batches)
    kill_a_worker()
    with pytest.raises(Interrupted, match='a process that reads was ended by SIGKILL .*0 before'):
        take(batches, 24)
    batches.close()


def test_full_shared_memory_is_a_line(data):
    data.workers = 1
    batches = loader.create(data, 1)
    next(batches)
    kill_a_worker(signal.SIGBUS)  # what the system does to one that writes there
    with pytest.raises(UserError, match='/dev/shm, .* is likely full; enlarge it'):
        take(batches, 24)
    batches.close()


def test_a_run_goes_on_with_other_processes_and_workers(data):
    expected = take(loader.create(data, 4, seed=1), 6)
    first = loader.create(data, 4, seed=1, share=((1,), 2))
    take(first, 3)
    data.workers = 1
    again = loader.create(data, 4, seed=1)
    again.set_state(json.loads(json.dumps(first.get_state())))
    assert_same(take(again, 3), expected[3:])
    again.close()


def test_the_state_of_other_data_is_refused(data):
    state = loader.create(data, 2).get_state()
    for words, change, batch_size in [
        ('batch size was 2, now 3', {}, 3),
        ('records was 11, now 5', {'split': 'validation'}, 2),
    ]:
        other = data.copy_and_resolve_references()
        other.update(change)
        with pytest.raises(UserError, match=words):
            loader.create(other, batch_size).set_state(state)


def test_the_state_of_clips_that_were_prepared_anew_is_refused(tmp_path, data):
    def prepare(**options):
        shutil.rmtree(tmp_path / 'again', ignore_errors=True)
        frame_records.write_frames(tmp_path / 'again', {'train': Numbered(11)}, **options)
        return loader.create(data, 2)

    data.sources = (f'records:{tmp_path}/again',)
    state = json.loads(json.dumps(prepare().get_state()))
    prepare().set_state(state)  # the same clips
    with pytest.raises(
        UserError,
        match='again holds other clips than when it was saved; put the former ones back or start',
    ):
        prepare(image_format='jpeg').set_state(state)
    prepare().set_state(
        {name: state[name] for name in ('batch_size', 'records', 'batches')}
    )  # saved by an earlier version


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


def test_evaluation_windows_end_at_the_frame_of_the_protocol(tmp_path, data, folder):
    for name, target in (('cityscapes', 19), ('nuscenes', 28)):
        frame_records.write_frames(tmp_path / name, {'train': Numbered(1, target=target)})
    for name, frames, expected in [
        ('cityscapes', 5, [7, 10, 13, 16, 19]),
        ('cityscapes', 7, [1, 4, 7, 10, 13, 16, 19]),
        ('nuscenes', 5, [16, 19, 22, 25, 28]),
        ('nuscenes', 10, [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]),
    ]:
        with data.ignore_type():
            data.update(
                sources=(f'records:{tmp_path}/{name}',),
                window='target',
                frames=frames,
                strides=(3,),
            )
        assert (
            next(loader.create(data, 1, training=False))['frames'][0, :, 0, 0, 1].tolist()
            == expected
        )
    data.sources, data.frames = (f'records:{tmp_path}/cityscapes',), 10
    for source, words in (
        (
            f'{tmp_path}/cityscapes',
            'clip0: 10 frames at stride 3 that end at frame 19 would begin at -8; ask for fewer',
        ),
        (f'{folder}/b', 'clip0: has no frame that a protocol evaluates; set data.window="start"'),
    ):
        data.sources = (f'records:{source}',)
        with pytest.raises(UserError, match=words):
            next(loader.create(data, 1, training=False))


def test_windows_may_run_backwards(data):
    with data.ignore_type():
        data.update(time_flip=0.5, labels=False)
    steps = [
        np.diff(clip[:2, 0, 0, 1].astype(int))[0]
        for batch in take(loader.create(data, 11), 3)
        for clip in batch['frames']
    ]
    assert 5 < sum(step < 0 for step in steps) < 28


def test_labels_keep_their_own_size(tmp_path, data):
    class Finer(Numbered):
        def read(self, index, indices, labels=True):
            clip = super().read(index, indices)
            rows, columns = np.mgrid[:64, :128]
            finer = (rows // 2 % 19 * 10 + columns // 16).astype(np.uint8)
            return {**clip, 'labels': np.broadcast_to(finer, (len(indices), 64, 128))}

    frame_records.write_frames(tmp_path / 'finer', {'train': Finer(2)})
    data.update(sources=(f'records:{tmp_path}/finer',), crop=(0.5, 0.5), flip=0.0)
    truth = Finer(1).read(0, [0])['labels'][0]
    with data.ignore_type():
        for size in ((), (32, 64)):
            data.label_size = size
            batch = next(loader.create(data, 1))
            labels, left = batch['labels'][0, 0], int(batch['frames'][0, 0, 0, 0, 2])
            assert labels.shape == (size or (16, 32)) and batch['depth'].shape == (
                1,
                4,
                *(size or (16, 32)),
            )
            rows = [
                top
                for top in range(33)
                if (
                    truth[top : top + 32, 4 * left : 4 * left + 64][
                        :: 32 // len(labels), :: 64 // labels.shape[1]
                    ]
                    == labels
                ).mean()
                > 0.8
            ]
            assert rows, 'a crop of half the side of the labels, where the frames were cut'


def test_videos_are_fitted_so_that_crops_are_not_blown_up(tmp_path, data):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 64, 128, 3), np.uint8).repeat(2, axis=2)
    video.write(tmp_path / 'a.mp4', noise, 17)
    data.update(
        {'sources': (f'videos:{tmp_path}',), 'crop': (0.25, 0.25), 'flip': 0.0, 'strides': (1,)}
    )
    sample = loader.create(data, 1)._sample
    assert sample.sources[0].size == (64, 128)
    assert loader.create(data, 1, training=False)._sample.sources[0].size == (16, 32)
    data.source_size = (32, 64)
    assert loader.create(data, 1)._sample.sources[0].size == (32, 64)
    batch = next(loader.create(data, 1))
    assert (
        batch['frames'].shape == (1, 4, 16, 32, 3)
        and (batch['labels'] == 255).all()
        and not batch['depth'].any()
    )


def test_the_world_is_read_directly():
    data = ConfigDict(
        {'sources': ('world',), 'size': (32, 64), 'frames': 2, 'strides': (3,), 'clips': 3}
    )
    batch = next(loader.create(data, 3, seed=0))
    assert sorted(batch['record']) == [0, 1, 2] and batch['depth'].max() > 0
    record = int(batch['record'][0])
    rng = windows.generator(0, 0, record)
    window = windows.window(rng, 30, 17, 2, (3,))
    np.testing.assert_array_equal(
        World('train', size=(32, 64)).read(record, window)['frames'], batch['frames'][0]
    )
