"""Sources: the world, prepared records, folders of videos; and the command that prepares them."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

from re2pix_jax.clips import sampling, video
from re2pix_jax.clips.datasets import open_source, records, videos
from re2pix_jax.clips.datasets.world import World
from re2pix_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CLIPS = ROOT.parent / 'shared' / 'clips'


class Stub:
    """Clips of noise; labels on one frame only, depth on none but the first two."""

    def __init__(self, count=5, frames=12, size=(16, 32), wrong=None):
        self.count, self.frames, self.size, self.wrong = count, frames, size, wrong

    def __len__(self):
        return self.count

    def num_frames(self, index):
        return self.frames + index

    def fps(self, index):
        return 17.0 + index

    def name(self, index):
        return f'stub/{index}'

    def read(self, index, indices, labels=True):
        if index == self.wrong:
            raise UserError('stub/3: the disc is scratched')
        shape = (self.num_frames(index), *self.size)
        rng = np.random.default_rng(index)
        clip = {'frames': rng.integers(0, 256, (*shape, 3), np.uint8), 'labels': np.full(shape, 255, np.uint8),
                'depth': np.zeros(shape, np.float32)}
        clip['labels'][5] = rng.integers(0, 19, self.size)
        clip['depth'][:2] = rng.uniform(0, 700, (2, *self.size))
        return {name: values[np.asarray(indices)] for name, values in clip.items()}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records') / 'deep' / 'stub'
    records.write(folder, {'train': Stub(), 'validation': Stub(2)}, processes=1, source='stub')
    return folder


def test_records_give_back_what_was_written(prepared):
    source, written = pickle.loads(pickle.dumps(records.Records(prepared, 'train'))), Stub()
    assert len(source) == 5 and len(records.Records(prepared, 'validation')) == 2
    for index, indices in [(0, [0]), (3, [5, 0, 11]), (4, [1, 2, 5, 15])]:
        got, want = source.read(index, indices), written.read(index, indices)
        assert source.name(index) == f'stub/{index}' and source.fps(index) == 17.0 + index
        assert source.num_frames(index) == 12 + index
        for name in ('frames', 'labels'):
            np.testing.assert_array_equal(got[name], want[name])
            assert got[name].dtype == np.uint8
        assert got['depth'].dtype == np.float32
        np.testing.assert_allclose(got['depth'], want['depth'].clip(0, 655.35), atol=0.00501)
        np.testing.assert_array_equal(got['depth'] == 0, want['depth'] == 0)
    assert set(source.read(1, [2], labels=False)) == {'frames'}


def test_only_the_asked_frames_are_decoded(prepared, monkeypatch):
    decoded, decode = [], records._decode
    monkeypatch.setattr(records, '_decode', lambda encoded: decoded.append(1) or decode(encoded))
    source = records.Records(prepared, 'train')
    source.read(2, [3, 7], labels=False)
    assert len(decoded) == 2
    source.read(2, [3, 5])
    assert len(decoded) == 2 + 3, 'two frames, one label image, no depth'


def test_the_manifest_and_the_layout(prepared):
    import tensorflow_datasets as tfds
    manifest = json.loads((prepared / 'manifest.json').read_text())
    assert manifest['format'] == 1 and manifest['source'] == 'stub' and manifest['size'] == [16, 32]
    assert manifest['splits']['train']['count'] == 5 and manifest['splits']['validation']['count'] == 2
    assert sorted(p.name for p in prepared.parent.iterdir()) == ['stub'], 'nothing is left beside'
    record = tfds.builder_from_directory(prepared).as_data_source('train')[1]
    assert record['name'] == b'stub/1' and record['frames'][0][:4] == b'\x89PNG'


def test_several_processes_write_the_same_records(tmp_path):
    splits = {'train': World('train', 5, 3, (32, 64)), 'validation': World('validation', 2, 3, (32, 64))}
    for processes in (1, 2):
        records.write(tmp_path / str(processes), splits, processes=processes)
    one, two = (records.Records(tmp_path / name, 'train') for name in '12')
    for index in range(5):
        truth = splits['train'].read(index, range(3))
        for name, values in one.read(index, range(3)).items():
            np.testing.assert_array_equal(values, two.read(index, range(3))[name])
            if name == 'depth':
                np.testing.assert_allclose(values, truth[name].clip(0, 655.35), atol=0.00501)
            else:
                np.testing.assert_array_equal(values, truth[name])


def test_jpeg_is_smaller_and_near(tmp_path):
    source = World('train', 2, 2, (64, 128))
    for kind in ('png', 'jpeg'):
        records.write(tmp_path / kind, {'train': source}, image_format=kind, processes=1)
    png, jpeg = (sum(len(image) for image in records.Records(tmp_path / kind, 'train')._reader[0]['frames'])
                 for kind in ('png', 'jpeg'))
    assert jpeg < 0.8 * png
    near = records.Records(tmp_path / 'jpeg', 'train').read(0, [0, 1])['frames']
    assert np.abs(near.astype(int) - source.read(0, [0, 1])['frames']).mean() < 4


def test_nothing_half_written_remains(tmp_path, prepared):
    with pytest.raises(UserError, match='disc is scratched'):
        records.write(tmp_path / 'out', {'train': Stub(wrong=3)}, processes=1)
    with pytest.raises(UserError, match='expected png or jpeg'):
        records.write(tmp_path / 'out', {'train': Stub()}, image_format='gif')
    assert not list(tmp_path.iterdir())
    before = sorted(os.listdir(prepared))
    with pytest.raises(UserError, match='exists already'):
        records.write(prepared, {'train': Stub()})
    assert sorted(os.listdir(prepared)) == before


def test_a_full_disk_is_an_oserror(tmp_path, monkeypatch):
    class Usage:
        free = 0

    def broken(*_):
        raise RuntimeError('writer: unknown failure')

    monkeypatch.setattr(records.shutil, 'disk_usage', lambda path: Usage)
    monkeypatch.setattr(records, '_write_tfds', broken)
    with pytest.raises(OSError, match='No space left'):
        records.write(tmp_path / 'out', {'train': Stub()}, processes=1)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_records_is_said(tmp_path, prepared):
    def changed(name, change):
        records.write(tmp_path / name, {'train': Stub(2)}, processes=1)
        change(tmp_path / name)
        return tmp_path / name

    def damage(folder):
        file = next(folder.glob('*.array_record*'))
        data = bytearray(file.read_bytes())
        data[len(data) // 4:len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
        file.chmod(0o644)
        file.write_bytes(data)

    damaged = records.Records(changed('damaged', damage), 'train')
    with pytest.raises(UserError, match=r"damaged: record \d \(stub/\d\) can't be read"):
        for index in range(2):
            damaged.read(index, range(12))
    for folder, split, words in [
            (tmp_path / 'none', 'train', 'no prepared clips there'),
            (prepared, 'test', "no split 'test', there is train, validation"),
            (changed('old', lambda f: (f / 'manifest.json').write_text('{"format": 0}')), 'train', 'reads format 1'),
            (changed('odd', lambda f: (f / 'manifest.json').write_text('[1')), 'train', 'not a manifest'),
            (changed('lost', lambda f: (f / 'dataset_info.json').unlink()), 'train', "can't be opened")]:
        with pytest.raises(UserError) as error:
            records.Records(folder, split)
        assert words in str(error.value) and str(folder) in str(error.value) and '\n' not in str(error.value)


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    """Videos at 30 Hz of 40, 130 and 60 frames and a folder of 31 images; brightness is the number of the frame."""
    folder = tmp_path_factory.mktemp('drives')
    for name, count in [('short', 40), ('long', 130)]:
        video.write(folder / f'{name}.mp4', brightness(count), 30)
    from PIL import Image
    (folder / 'train' / 'images').mkdir(parents=True)
    for number, frame in enumerate(brightness(31)):
        Image.fromarray(frame).save(folder / 'train' / 'images' / f'{number:03d}.png')
    (folder / 'validation').mkdir()
    video.write(folder / 'validation' / 'other.mp4', brightness(60), 30)
    return folder


def brightness(count):
    return np.zeros((count, 32, 64, 3), np.uint8) + (20 + np.arange(count, dtype=np.uint8))[:, None, None, None]


def test_long_videos_are_cut_into_snippets(drives):
    source = videos.Videos(drives, 'train', size=(16, 32))
    told = [(source.name(i), source.num_frames(i), source.fps(i)) for i in range(len(source))]
    assert told == [
        ('long.mp4#0', 65, 30), ('long.mp4#65', 65, 30), ('short.mp4#0', 40, 30), ('train/images#0', 31, 17)]
    clip = source.read(1, [0, 10, 64])
    assert clip['frames'].shape == (3, 16, 32, 3)
    assert np.abs(clip['frames'].mean((1, 2, 3)) - (20 + np.array([65, 75, 129]))).max() < 1.5
    assert (clip['labels'] == 255).all() and not clip['depth'].any()
    assert set(source.read(0, [1], labels=False)) == {'frames'}
    assert [source.name(0) for source in [videos.Videos(drives, 'validation')]] == ['validation/other.mp4#0']


def test_decoded_clips_are_kept_up_to_a_limit(drives, monkeypatch):
    reads, read = [], video.read
    monkeypatch.setattr(video, 'read', lambda path, **options: reads.append(path) or read(path, **options))
    source = videos.Videos(drives, 'train', size=(16, 32), cache_bytes=120 * 16 * 32 * 3)
    for index in (0, 0, 2, 0, 1, 0, 2):  # 65 and 40 frames fit, a third clip does not
        source.read(index, [0])
    assert [pathlib.Path(path).stem for path in reads] == ['long', 'short', 'long', 'long', 'short']
    assert len(pickle.loads(pickle.dumps(source))) == len(source)


def test_without_a_validation_folder_a_tenth_is_held_out(tmp_path):
    clip = brightness(2)
    video.write(tmp_path / 'raw' / 'one.mp4', clip, 17)
    with pytest.raises(UserError, match="no videos for split 'validation'"):
        videos.Videos(tmp_path / 'raw', 'validation')
    data = (tmp_path / 'raw' / 'one.mp4').read_bytes()
    for number in range(30):
        (tmp_path / 'raw' / f'{number}.mp4').write_bytes(data)

    def names(split):
        source = videos.Videos(tmp_path / 'raw', split)
        return {source.name(i) for i in range(len(source))}

    train, validation = names('train'), names('validation')
    assert len(train | validation) == 31 and not train & validation and 1 <= len(validation) <= 8
    (tmp_path / 'raw' / 'new.mp4').write_bytes(data)
    assert names('train') >= train and names('validation') >= validation


def test_what_is_wrong_with_a_folder_of_videos_is_said(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'x.mp4').write_text('no video')
    for path, split, words in [('none', 'train', 'no such folder'), ('empty', 'train', 'no videos'),
                               ('bad', 'train', 'not a readable video'), ('bad', 'all', "split 'all'")]:
        with pytest.raises(UserError, match=words):
            videos.Videos(tmp_path / path, split)


def test_real_videos():
    if not CLIPS.is_dir():
        pytest.skip('the real clips are not on this machine')
    train, validation = (videos.Videos(CLIPS, split) for split in ('train', 'validation'))
    assert len(train) + len(validation) == 4 * 1 + 2 + 3 + 5
    clip = train.read(0, sampling.evaluation_window(train.num_frames(0), train.fps(0), 8, 3))
    assert clip['frames'].shape == (8, 64, 128, 3) and clip['frames'].std() > 10


def test_the_world_is_a_source():
    source = World('validation', frames=30, size=(32, 64))
    assert len(source) == 64 and source.num_frames(3) == 30 and source.fps(3) == 17.0
    assert source.name(3) == 'validation/000003'
    clip = source.read(3, [0, 29])
    assert clip['frames'].shape == (2, 32, 64, 3) and clip['labels'].shape == clip['depth'].shape == (2, 32, 64)
    np.testing.assert_array_equal(source.read(3, [29], labels=False)['frames'][0], clip['frames'][1])
    for wrong in [{'split': 'all'}, {'split': 'train', 'clips': -1}, {'split': 'train', 'frames': 0}]:
        with pytest.raises(UserError, match='world'):
            World(**wrong)


def test_sources_open_by_name(prepared, drives):
    assert isinstance(open_source('world', 'train', (16, 32), clips=7), World)
    assert len(open_source('world', 'train', (16, 32), clips=7)) == 7
    assert len(open_source(f'records:{prepared}', 'train', (16, 32))) == 5
    assert open_source(f'videos:{drives}', 'train', (16, 32)).size == (16, 32)
    for name in ('worlds', 'records:', 'videos', 'world:x', 'cityscapes:/data'):
        with pytest.raises(UserError, match='expected "world"'):
            open_source(name, 'train', (16, 32))


def prepare(*arguments):
    return subprocess.run([sys.executable, '-m', 're2pix_jax.prepare', *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)


def test_the_command_prepares_the_world_and_videos(tmp_path, drives):
    done = prepare('world', '--out', tmp_path / 'world', '--clips', 3, '--validation_clips', 2, '--size', '32x64',
                   '--frames', 4)
    assert done.returncode == 0, done.stderr
    assert 'prepare train: 3/3 clips' in done.stderr and '3 train clips, 2 validation clips' in done.stdout
    assert records.Records(tmp_path / 'world', 'validation').read(1, [3])['labels'].max() <= 255
    done = prepare('videos', '--raw', drives, '--out', tmp_path / 'videos', '--size', '16x32', '--image_format', 'jpeg',
                   '--processes', 1)
    assert done.returncode == 0, done.stderr
    assert len(records.Records(tmp_path / 'videos', 'train')) == 4


def test_the_command_ends_in_one_line(tmp_path):
    for arguments, words in [
            (['moon', '--out', tmp_path / 'x'], 'expected one dataset: world, videos, encode'),
            (['world'], '--out is missing'), (['world', '--out', tmp_path / 'x', '--size', '64'], '--size 64'),
            (['videos', '--out', tmp_path / 'x'], '--raw is missing'),
            (['videos', '--out', tmp_path / 'x', '--raw', tmp_path / 'none'], 'no such folder')]:
        done = prepare(*arguments)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())
