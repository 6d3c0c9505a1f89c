"""Which frames a window has: at native strides, up to the frame of the protocol, and what is wrong
with clips too short for it.
"""

import numpy as np
import pytest
from ml_collections import ConfigDict

from re2pix_jax.data import frame_records, loader, records, selection, windows
from re2pix_jax.data.settings import Settings
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from tests.conftest import load_config
from tests.data import layouts
from tests.data.stubs import Numbered


class At12Hz(Numbered):
    def fps(self, index):
        return 12.0


class Uneven(Numbered):
    """The first clip ends before the frame of the protocol, the second has none, the third has few
    frames before it.
    """

    def num_frames(self, index):
        return 15 if index == 0 else 30

    def target(self, index):
        return {1: None, 2: 4}.get(index, 19)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('windows')
    frame_records.write_frames(path / 'nuscenes', {'train': At12Hz(12, target=28)})
    frame_records.write_frames(path / 'uneven', {'train': Uneven(6)})
    layouts.cityscapes(path / 'raw', train=10, validation=2)
    return path


def data(source, **changes):
    return ConfigDict(
        {'sources': (source,), 'size': (16, 32), 'frames': 4, 'strides': (2, 3, 4), **changes}
    )


def sampled(settings, batches=8, **options):
    """Frame numbers [clips, T], as the pixels of `Numbered` say them, and the records."""
    iterator = loader.create(settings, 4, **options)
    taken = [next(iterator) for _ in range(batches)]
    return np.concatenate(
        [batch['frames'][:, :, 0, 0, 1].astype(int) for batch in taken]
    ), np.concatenate([batch['record'] for batch in taken])


def strides(found) -> set:
    steps = np.diff(found, axis=1)
    assert (steps == steps[:, :1]).all()
    return set(steps[:, 0])


def test_strides_may_count_native_frames(folder):
    source = f'records:{folder}/nuscenes'
    assert strides(sampled(data(source))[0]) == {1, 2, 3}, '2, 3 and 4 at 17 Hz, at 12 Hz'
    found, _ = sampled(data(source, window='native'))
    assert strides(found) == {2, 3, 4} and len(set(found[:, 0])) > 8, 'anywhere in the clip'
    found, _ = sampled(data(source, window='native', strides=(3,), start=5), 1, training=False)
    assert found[0].tolist() == [5, 8, 11, 14]
    with pytest.raises(
        UserError, match='even clip0: 30 frames are too few: 4 frames at stride 10 need 31'
    ):
        loader.create(data(source, window='native', strides=(10,)), 2)
    assert windows.native_stride(3, None) == 3


def test_training_windows_may_end_at_the_frame_of_the_protocol(folder):
    found, _ = sampled(data(f'records:{folder}/nuscenes', window='target'), 12)
    assert (found[:, -1] == 28).all() and strides(found) == {2, 3, 4}
    found, _ = sampled(
        data(f'records:{folder}/nuscenes', window='target', time_flip=0.5, strides=(3,))
    )
    assert set(map(tuple, found.tolist())) == {(19, 22, 25, 28), (28, 25, 22, 19)}


def test_a_head_trains_on_the_frames_that_cityscapes_labels(folder):
    config = load_config('head', 'base')
    source = f'cityscapes:{folder}/raw'
    for fields, training in ((config.data, True), (config.eval_data, False)):
        fields.update(sources=(source,), size=(16, 32), label_size=(32, 64))
        batches = loader.create(fields, 2, training=training)
        assert fields.window == 'target' and (fields.flip == 0.5) == training
        for _ in range(15 if training else 1):
            batch = next(batches)
            assert ((batch['labels'] != 255).mean((1, 2, 3)) > 0.3).all(), 'every clip has labels'
            assert all(layouts.numbers(clip) == [19] for clip in batch['frames'])
    for size in ('tiny', 'small'):
        assert load_config('head', size).data.window == 'start'


def test_clips_without_such_a_window_are_left_out(folder, capsys):
    source = f'records:{folder}/uneven'
    found, ids = sampled(data(source, window='target'))
    assert set(ids) == {3, 4, 5} and (found[:, -1] == 19).all()
    assert (
        f'{source}: 3 of 6 clips are too short for 4 frames at stride 2 before the frame that '
        'their protocol predicts and are left '
        'out\n'
    ) in capsys.readouterr().err
    with pytest.raises(
        UserError,
        match=r'no clip can be used, not even clip1: has no frame that a protocol evaluates; set '
        r'data\.window',
    ):
        loader.create(data(source, window='target', frames=20), 2)
    settings = Settings.read(data('world', window='target', frames=28), training=True)
    for frames, words in [
        (22, 'would begin at -35'),
        (12, '12 frames are too few: the protocol predicts frame 19'),
    ]:
        with pytest.raises(UserError, match=words):
            selection.usable(World('train', 2, frames, (16, 32)), 'world', settings)


def test_a_clip_that_ends_before_its_frame_is_too_short(folder):
    words = (
        '15 frames are too few: the protocol predicts frame 19; leave the clip out or set '
        'data.window="start"',
        'has no frame that a protocol evaluates; set data.window="start"',
        '4 frames at stride 2 that end at frame 4 would begin at -2; ask for fewer',
    )
    settings = data(f'records:{folder}/uneven', window='target')
    with pytest.raises(UserError, match=f'uneven/clip0: {words[0]}'):
        loader.create(settings, 1, training=False)
    source = records.Records(folder / 'uneven')
    for index, expected in enumerate(words):
        with pytest.raises(UserError, match=expected):
            selection.window(
                source, index, Settings.read(settings, False), windows.generator(0, 0, 0)
            )


def test_labels_of_evaluation_do_not_depend_on_the_size_of_the_frames(tmp_path, folder):
    from re2pix_jax.data.sources.cityscapes import Cityscapes

    raw = Cityscapes(folder / 'raw', 'validation')
    frame_records.write_frames(tmp_path / 'small', {'validation': raw}, 'jpeg', size=(16, 32))
    assert records.Records(tmp_path / 'small', 'validation').clips[0]['size'] == [16, 32]
    settings = data(
        f'records:{tmp_path}/small',
        split='validation',
        window='target',
        strides=(3,),
        label_size=(32, 64),
    )
    batch = next(loader.create(settings, 2, training=False))
    assert batch['frames'].shape == (2, 4, 16, 32, 3)
    np.testing.assert_array_equal(
        batch['labels'], [raw.read(index, [10, 13, 16, 19])['labels'] for index in range(2)]
    )
