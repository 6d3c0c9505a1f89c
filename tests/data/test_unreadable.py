"""Clips that cannot be read or are too short: named, counted, replaced or left out."""

import shutil

import numpy as np
import pytest

from re2pix_jax.data import frame_records, loader
from re2pix_jax.errors import UserError
from re2pix_jax.training import loop, writer
from tests.data import layouts
from tests.data.stubs import Numbered, assert_same, take
from tests.training import toy


@pytest.fixture(scope='module')
def bad(tmp_path_factory):
    """Prepared clips of which some cannot be read."""
    path = tmp_path_factory.mktemp('damaged') / 'bad'
    frame_records.write_frames(path, {'train': Numbered(3)})
    file = next(path.glob('*.array_record*'))
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    written = np.flatnonzero(content)
    content[written[len(written) // 4] : written[len(written) // 2]] = (
        0  # neither the head nor the index at the end
    )
    file.write_bytes(content)
    return path


@pytest.mark.long
@pytest.mark.parametrize('workers', [0, 2])
def test_an_unreadable_record_is_named(bad, data, workers):
    data.sources, data.workers = (f'records:{bad}',), workers
    batches = loader.create(data, 1)
    with pytest.raises(UserError, match=r'bad: record \d \(clip\d\) can\'t be read') as error:
        take(batches, 12)
    assert '\n' not in str(error.value)
    batches.close()


def test_unreadable_records_are_skipped_and_counted_where_asked(bad, data, capsys):
    with data.ignore_type():
        data.update(sources=(f'records:{bad}',), unreadable='skip', labels=False)
    batches = loader.create(data, 3)
    found = take(batches, 6)
    assert all(batch.keys() == {'frames', 'record'} for batch in found)
    for batch in found:  # what stands in for a clip says which it is
        np.testing.assert_array_equal(batch['frames'][:, 0, 0, 0, 0], batch['record'])
    lines = capsys.readouterr().err.splitlines()
    assert batches.skipped == len(lines) > 0
    assert lines[0].startswith(f'skipped, 1 so far: {bad}: record ')
    again = loader.create(data, 3)
    assert_same(take(again, 6), found)


def test_a_run_counts_the_clips_that_it_skipped_in_its_log(bad, data, tmp_path):
    class Rows:
        """The batches as the toy task takes them."""

        def __init__(self, batches):
            self.batches = batches

        def __getattr__(self, name):
            return getattr(self.batches, name)

        def __next__(self):
            batch = next(self.batches)
            return {
                'x': batch['frames'][:, 0, :8, 0, 0].astype(np.float32) / 255,
                'record': batch['record'],
            }

    with data.ignore_type():
        data.update(sources=(f'records:{bad}',), unreadable='skip', labels=False)
    clips = loader.create(data, 2)
    loop.train(
        toy.Task(),
        toy.make_config(steps=3, batch_size=2, eval_every=0, checkpoint_every=0),
        str(tmp_path),
        Rows(clips),
    )
    rows = writer.read_log(str(tmp_path))
    assert rows[-1]['step'] == 3 and rows[-1]['skipped_clips'] == clips.skipped > 0


def test_clips_too_short_for_a_window_are_left_out_and_counted(tmp_path, data, capsys):
    class Uneven(Numbered):
        def num_frames(self, index):
            return 30 if index else 12

    frame_records.write_frames(tmp_path / 'uneven', {'train': Uneven(3)})
    data.update(sources=(f'records:{tmp_path}/uneven',), strides=(4,))
    capsys.readouterr()
    assert set(np.concatenate([batch['record'] for batch in take(loader.create(data, 2), 3)])) == {
        1,
        2,
    }
    assert (
        capsys.readouterr().err
        == f'records:{tmp_path}/uneven: 1 of 3 clips are too short for 4 frames at stride 4 and '
        'are left out\n'
    )


class Uneven(Numbered):
    """Of which the second and the last clip are too short."""

    def num_frames(self, index):
        return 12 if index in (1, self.count - 1) else 30


@pytest.fixture
def uneven(tmp_path, data):
    frame_records.write_frames(tmp_path / 'uneven', {'validation': Uneven(7, split='validation')})
    data.update(sources=(f'records:{tmp_path}/uneven',), split='validation', strides=(4,))
    return data


def test_a_short_clip_stops_an_evaluation_before_its_first_batch(uneven):
    with pytest.raises(UserError, match='uneven/validationclip1: 12 frames at 17 .* are too few'):
        loader.create(uneven, 2, training=False)


@pytest.mark.long
@pytest.mark.parametrize('workers', [0, 2])
def test_an_evaluation_leaves_out_clips_that_are_too_short(uneven, capsys, workers):
    with uneven.ignore_type():
        uneven.update(unreadable='skip', workers=workers)
    capsys.readouterr()
    batches = loader.create(uneven, 2, training=False)
    read = list(batches)
    batches.close()
    assert [batch['record'].tolist() for batch in read] == [[0, 2], [3, 4], [5]]
    assert all(batch['known'].all() and batch['known'].dtype == bool for batch in read)
    lines = capsys.readouterr().err.splitlines()
    assert batches.skipped == len(lines) == 2 and batches.clips == 5
    for line, name in zip(lines, ('clip1', 'clip6'), strict=True):
        assert f'{uneven.sources[0]}/validation{name}: 12 frames' in line


def test_an_evaluation_counts_nothing_for_a_clip_that_cannot_be_read(bad, data, capsys):
    with data.ignore_type():
        data.update(sources=(f'records:{bad}',), unreadable='skip')
    capsys.readouterr()
    batches = loader.create(data, 4, training=False)
    batch = next(batches)
    assert batch['record'].tolist() == [0, 1, 2], 'no other clip is scored twice'
    lost = np.flatnonzero(~batch['known'])
    lines = capsys.readouterr().err.splitlines()
    assert batches.skipped == len(lost) == len(lines) and 0 < len(lost) < 3
    assert (batch['labels'][lost] == 255).all() and not batch['depth'][lost].any()
    assert (batch['labels'][batch['known']] < 19).all()
    shares = [loader.create(data, 4, training=False, share=((index,), 2)) for index in (0, 1)]
    known = [next(share)['known'].tolist() for share in shares]
    assert known == [batch['known'][:2].tolist(), batch['known'][2:].tolist()]


def test_an_evaluation_of_which_nothing_can_be_read_stops(bad, data, tmp_path):
    shutil.copytree(bad, tmp_path / 'lost')
    data.update(sources=(f'records:{tmp_path}/lost',), labels=False)
    with data.ignore_type():
        data.unreadable = 'skip'
    batches = loader.create(data, 1, training=False)
    for file in (tmp_path / 'lost').glob('*.array_record*'):
        content = file.read_bytes()
        file.write_bytes(bytes(len(content)))
    with pytest.raises(UserError, match="can't be read"):
        list(batches)


def test_clips_that_cannot_be_opened_are_skipped_where_asked(tmp_path, data, capsys):
    folder = layouts.covla(tmp_path / 'covla', clips=5, videos=True)
    broken = sorted(folder.rglob('*.mp4'))[1]
    broken.write_bytes(b'no video')
    data.update(sources=(f'covla:{folder}',), labels=False, strides=(3,))
    with pytest.raises(UserError, match=f'{broken.name}: not a readable video'):
        loader.create(data, 1)
    with data.ignore_type():
        data.unreadable = 'skip'
    batches = loader.create(data, 1)
    assert batches.clips == 3 and batches.skipped == 1
    assert f'skipped, 1 so far: {broken}: not a readable video' in capsys.readouterr().err
