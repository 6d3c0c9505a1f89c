"""Clips are written shard by shard, by several processes, and gone on with."""

import errno
import json

import numpy as np
import pytest

from re2pix_jax import files
from re2pix_jax.data import frame_records, records, writing
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from tests.data.stubs import Stub, manifest_of


def test_the_manifest_and_the_layout(prepared):
    import tensorflow_datasets as tfds

    manifest = json.loads((prepared / 'manifest.json').read_text())
    assert manifest['format'] == 2 and manifest['source'] == 'stub'
    clip = manifest['splits']['train']['clips'][1]
    assert len(clip.pop('sha256')) == 64
    assert clip == {
        'name': 'train/1',
        'origin': 'train/1',
        'frames': 13,
        'fps': 18.0,
        'target': 7,
        'size': [16, 32],
        'labelled': 1,
        'label_size': [32, 64],
        'depth': ['inverse', 1000.0],
        'depth_size': [16, 32],
    }
    assert sorted(p.name for p in prepared.parent.iterdir()) == ['stub'], 'nothing is left beside'
    record = tfds.builder_from_directory(prepared).as_data_source('train')[12]
    assert record['frames'][:4] == b'\x89PNG' and record['labels'] == b''


def test_several_processes_write_the_same(tmp_path):
    splits = {
        'train': World('train', 18, 2, (32, 64)),
        'validation': World('validation', 2, 3, (32, 64)),
    }
    for processes in (1, 2):
        frame_records.write_frames(tmp_path / str(processes), splits, processes=processes)
    assert manifest_of(tmp_path / '1') == manifest_of(tmp_path / '2')
    assert len(list((tmp_path / '1').glob('*train*'))) == 2, 'two shards'
    clip, truth = (
        records.Records(tmp_path / '1', 'train').read(17, [1]),
        splits['train'].read(17, [1]),
    )
    np.testing.assert_array_equal(clip['frames'], truth['frames'])
    np.testing.assert_array_equal(clip['labels'], truth['labels'])
    np.testing.assert_allclose(clip['depth'], truth['depth'].clip(0, 655.35), atol=0.00501)


def test_an_interrupted_preparation_goes_on(tmp_path):
    frame_records.write_frames(tmp_path / 'straight', {'train': Stub(40, 6)})
    stopped = Stub(40, 6)
    read = stopped.read

    def interrupt(index, *arguments):
        if index == 36:
            raise KeyboardInterrupt
        return read(index, *arguments)

    stopped.read = interrupt
    with pytest.raises(KeyboardInterrupt):
        frame_records.write_frames(tmp_path / 'out', {'train': stopped})
    assert not (tmp_path / 'out').exists() and not list(
        (tmp_path / 'out.partial').glob('*.partial')
    )
    with pytest.raises(
        UserError,
        match='out.partial: was begun with other --image_format, --quality, --size; give the same',
    ):
        frame_records.write_frames(tmp_path / 'out', {'train': stopped}, 'jpeg', size=(8, 16))
    with pytest.raises(UserError, match='was begun with other clips'):
        frame_records.write_frames(tmp_path / 'out', {'train': Stub(41, 6)})
    rest = Stub(40, 6)
    frame_records.write_frames(tmp_path / 'out', {'train': rest})
    assert sorted(set(rest.reads)) == list(range(32, 40)), 'two shards of 16 clips were there'
    assert manifest_of(tmp_path / 'out') == manifest_of(tmp_path / 'straight')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'straight']


def test_jpeg_is_smaller_and_near(tmp_path):
    source = World('train', 2, 2, (64, 128))
    for kind in ('png', 'jpeg'):
        frame_records.write_frames(tmp_path / kind, {'train': source}, image_format=kind)
    png, jpeg = (
        len(records.Records(tmp_path / kind).rows(0, [0])[0]['frames']) for kind in ('png', 'jpeg')
    )
    assert jpeg < 0.8 * png
    near = records.Records(tmp_path / 'jpeg', 'train').read(0, [0, 1])['frames']
    assert np.abs(near.astype(int) - source.read(0, [0, 1])['frames']).mean() < 4


def test_frames_are_scaled_to_cover_and_labels_are_not(tmp_path):
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(1, size=(20, 64))}, size=(8, 16))
    clips = records.Records(tmp_path / 'out')
    assert clips.read(0, [5])['frames'].shape == (1, 8, 26, 3)
    np.testing.assert_array_equal(
        clips.read(0, [5])['labels'], Stub(1, size=(20, 64)).read(0, [5])['labels']
    )
    assert clips.clips[0]['size'] == [8, 26] and clips.clips[0]['label_size'] == [40, 128]


def test_clips_that_cannot_be_read_are_left_out(tmp_path):
    done = frame_records.write_frames(
        tmp_path / 'out', {'train': Stub(20, wrong=(3, *range(16, 20)))}
    )
    reason = 'train/3: the disc is scratched'
    assert len(done['train']['clips']) == 15 and done['train']['left_out'][0] == {
        'name': 'train/3',
        'reason': reason,
    }
    clips = records.Records(tmp_path / 'out')
    assert clips.manifest['splits'] == done and clips.name(3) == 'train/4'
    np.testing.assert_array_equal(clips.read(3, [2])['frames'], Stub().read(4, [2])['frames'])
    assert len(list((tmp_path / 'out').glob('*array_record*'))) == 1, (
        'the second shard would be empty'
    )
    with pytest.raises(UserError, match=reason):
        frame_records.write_frames(tmp_path / 'strict', {'train': Stub(wrong=(3,))}, strict=True)
    with pytest.raises(
        UserError,
        match='no clip of split train can be used, the first because: train/0: the disc is',
    ):
        frame_records.write_frames(
            tmp_path / 'none', {'train': Stub(2, wrong=(0, 1)), 'validation': Stub(0)}
        )
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_a_split_without_clips_does_not_take_the_others_with_it(tmp_path):
    done = frame_records.write_frames(
        tmp_path / 'out', {'train': Stub(3), 'validation': Stub(1, wrong=(0,), split='validation')}
    )
    left_out = [{'name': 'validation/0', 'reason': 'validation/0: the disc is scratched'}]
    assert len(done['train']['clips']) == 3 and done['validation'] == {
        'clips': [],
        'left_out': left_out,
    }
    manifest = manifest_of(tmp_path / 'out')
    assert list(manifest['splits']) == ['train'] and manifest['empty'] == {'validation': left_out}
    np.testing.assert_array_equal(
        records.Records(tmp_path / 'out', 'train').read(2, [3])['frames'],
        Stub().read(2, [3])['frames'],
    )
    with pytest.raises(
        UserError,
        match="no split 'validation', for none of its clips could be used, there is train",
    ):
        records.Records(tmp_path / 'out', 'validation')
    assert (
        sorted(
            path.name
            for path in (tmp_path / 'out').iterdir()
            if 'validation' in path.name or 'partial' in path.name
        )
        == []
    )


def test_what_cannot_be_written_is_said(tmp_path, prepared):
    before = manifest_of(prepared)
    for out, splits, options, words in [
        (tmp_path / 'out', {'train': Stub()}, {'image_format': 'gif'}, 'expected png or jpeg'),
        (prepared, {'train': Stub()}, {}, 'exists already'),
        (prepared / 'manifest.json', {'train': Stub()}, {}, 'exists already'),
        (
            tmp_path / 'out',
            {'train': Stub(), 'validation': Stub(2)},
            {},
            'validation and train: both have a clip train/0; rename',
        ),
    ]:
        with pytest.raises(UserError, match=words):
            frame_records.write_frames(out, splits, **options)
    assert manifest_of(prepared) == before and not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line_and_is_gone_on_from(tmp_path, monkeypatch):
    from re2pix_jax.data import tfds_layout

    class Usage:
        free = 0

    class Free:
        free = 1 << 30

    write, out = tfds_layout.write_shard, tmp_path / 'out.partial'

    def second_fails(file, *arguments):
        size = write(file, *arguments)
        if '00001' in str(file):
            raise RuntimeError(text)
        return size

    for text in ('write() failed: No space left on device', 'writer: unknown failure'):
        with monkeypatch.context() as patch:
            if 'unknown' in text:  # nothing but the file system says so, until the file is removed
                patch.setattr(
                    writing.shutil,
                    'disk_usage',
                    lambda path: Usage if list(out.glob('*.array_record.partial')) else Free,
                )
            patch.setattr(tfds_layout, 'write_shard', second_fails)
            with pytest.raises(
                UserError,
                match='out: the disk is full after 1 of 2 files; free space and give the same '
                'command again',
            ):
                frame_records.write_frames(tmp_path / 'out', {'train': Stub(20)})
        assert not list(tmp_path.glob('out/*')) and not list(tmp_path.glob('out.partial/*.partial'))
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(20)})
    assert len(records.Records(tmp_path / 'out')) == 20

    def refused(*_):
        raise OSError(errno.EACCES, 'no')

    monkeypatch.setattr(tfds_layout, 'write_shard', refused)
    with pytest.raises(UserError, match="can't be written"):
        frame_records.write_frames(tmp_path / 'other', {'train': Stub()})
    assert [path.name for path in tmp_path.iterdir()] == ['out']


@pytest.mark.parametrize('at', ['manifest.json', 'train-00001.json'])
def test_a_preparation_stopped_in_its_last_lines_goes_on(tmp_path, monkeypatch, at):
    """At the manifest by a full disk, or while the notes on the shards are removed."""
    import pathlib

    unlink, write_text = pathlib.Path.unlink, files.write_text

    def stop_at(function):
        def stopped(file, *arguments, **options):
            place = pathlib.Path(file)
            if place.name == at and place.with_name('dataset_info.json').exists():
                raise OSError(errno.ENOSPC, 'No space left on device', str(file))
            return function(file, *arguments, **options)

        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, 'unlink', stop_at(unlink))
        patch.setattr(files, 'write_text', stop_at(write_text))
        with pytest.raises(
            UserError,
            match='the disk is full after 2 of 2 files; free space and give the same command again',
        ):
            frame_records.write_frames(tmp_path / 'out', {'train': Stub(20)})
    again = Stub(20)
    frame_records.write_frames(tmp_path / 'out', {'train': again})
    assert not again.reads
    frame_records.write_frames(tmp_path / 'straight', {'train': Stub(20)})
    assert manifest_of(tmp_path / 'out') == manifest_of(tmp_path / 'straight')
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == sorted(
        path.name for path in (tmp_path / 'straight').iterdir()
    )
