"""Sources: the world, folders of videos; and the command that prepares them."""

import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from re2pix_jax.data import records, video, windows
from re2pix_jax.data.sources import open_source, videos
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from tests.running import outcomes

ROOT = pathlib.Path(__file__).parents[2]
CLIPS = ROOT.parent / 'shared' / 'clips'


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    """Videos at 30 Hz of 40, 130 and 60 frames and a folder of 31 images; brightness is the number
    of the frame.
    """
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
    return (
        np.zeros((count, 32, 64, 3), np.uint8)
        + (20 + np.arange(count, dtype=np.uint8))[:, None, None, None]
    )


def test_long_videos_are_cut_into_snippets(drives):
    source = videos.Videos(drives, 'train', size=(16, 32))
    told = [(source.name(i), source.num_frames(i), source.fps(i)) for i in range(len(source))]
    assert told == [
        ('long.mp4#0', 65, 30),
        ('long.mp4#65', 65, 30),
        ('short.mp4#0', 40, 30),
        ('train/images#0', 31, 17),
    ]
    clip = source.read(1, [0, 10, 64])
    assert clip['frames'].shape == (3, 16, 32, 3)
    assert np.abs(clip['frames'].mean((1, 2, 3)) - (20 + np.array([65, 75, 129]))).max() < 1.5
    assert (clip['labels'] == 255).all() and not clip['depth'].any()
    assert set(source.read(0, [1], labels=False)) == {'frames'}
    assert [source.name(0) for source in [videos.Videos(drives, 'validation')]] == [
        'validation/other.mp4#0'
    ]


def test_decoded_clips_are_kept_up_to_a_limit(drives, monkeypatch):
    reads, take = [], video.take
    monkeypatch.setattr(
        video, 'take', lambda path, *a, **options: reads.append(path) or take(path, *a, **options)
    )
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
    for path, split, words in [
        ('none', 'train', 'no such folder'),
        ('empty', 'train', 'no videos'),
        ('bad', 'train', 'not a readable video'),
        ('bad', 'all', "split 'all'"),
    ]:
        with pytest.raises(UserError, match=words):
            videos.Videos(tmp_path / path, split)


def test_real_videos():
    if not CLIPS.is_dir():
        pytest.skip('the real clips are not on this machine')
    train, validation = (videos.Videos(CLIPS, split) for split in ('train', 'validation'))
    assert len(train) + len(validation) == 4 * 1 + 2 + 3 + 5
    clip = train.read(0, windows.evaluation_window(train.num_frames(0), train.fps(0), 8, 3))
    assert clip['frames'].shape == (8, 64, 128, 3) and clip['frames'].std() > 10


def test_the_world_is_a_source():
    source = World('validation', frames=30, size=(32, 64))
    assert len(source) == 64 and source.num_frames(3) == 30 and source.fps(3) == 17.0
    assert source.name(3) == 'validation/000003'
    clip = source.read(3, [0, 29])
    assert clip['frames'].shape == (2, 32, 64, 3) and clip['labels'].shape == clip[
        'depth'
    ].shape == (2, 32, 64)
    np.testing.assert_array_equal(
        source.read(3, [29], labels=False)['frames'][0], clip['frames'][1]
    )
    for wrong in [
        {'split': 'all'},
        {'split': 'train', 'clips': -1},
        {'split': 'train', 'frames': 0},
    ]:
        with pytest.raises(UserError, match='world'):
            World(**wrong)


def test_sources_open_by_name(drives, tmp_path):
    assert isinstance(open_source('world', 'train', (16, 32), clips=7), World)
    assert len(open_source('world', 'train', (16, 32), clips=7)) == 7
    assert open_source(f'videos:{drives}', 'train', (16, 32)).size == (16, 32)
    for name in ('worlds', 'records:', 'videos', 'world:x', 'cityscapes'):
        with pytest.raises(UserError, match='expected "world"'):
            open_source(name, 'train', (16, 32))
    with pytest.raises(UserError, match=f'{tmp_path}/none'):
        open_source(f'cityscapes:{tmp_path}/none', 'train', (16, 32))


def test_a_list_tells_the_validation_videos(tmp_path):
    for name in ('a', 'b', 'c'):
        video.write(tmp_path / 'raw' / f'{name}.mp4', brightness(2), 17)
    (tmp_path / 'list').write_text('b.mp4\n\n')
    names = [
        [source.name(i) for i in range(len(source))]
        for source in (
            videos.Videos(tmp_path / 'raw', split, validation=tmp_path / 'list')
            for split in ('train', 'validation')
        )
    ]
    assert names == [['a.mp4#0', 'c.mp4#0'], ['b.mp4#0']]
    (tmp_path / 'list').write_text('b.mp4\n', encoding='utf-8-sig')
    listed = videos.Videos(tmp_path / 'raw', 'validation', validation=tmp_path / 'list')
    assert listed.name(0) == 'b.mp4#0'
    (tmp_path / 'utf16').write_text('b.mp4\n', encoding='utf-16')
    (tmp_path / 'list').write_text('d.mp4')
    for file, words in (
        ('list', 'd.mp4 is not among the videos; expected paths within the folder, such as a.mp4'),
        ('none', 'no such file; expected a list'),
        ('utf16', 'not a list in UTF-8'),
    ):
        with pytest.raises(UserError, match=words):
            videos.Videos(tmp_path / 'raw', 'train', validation=tmp_path / file)


def test_a_name_in_two_splits_is_refused(tmp_path):
    for name in ('train/a', 'validation/a', 'train/b'):
        video.write(tmp_path / f'{name}.mp4', brightness(2), 17)
    with pytest.raises(
        UserError,
        match='train/a.mp4 and validation/a.mp4 have the same name in two splits; rename one',
    ):
        videos.Videos(tmp_path, 'train')


def prepare(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 're2pix_jax', 'prepare', *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_prepares_the_world(tmp_path):
    done = prepare(
        'world',
        '--out',
        tmp_path / 'world',
        '--clips',
        3,
        '--validation_clips',
        2,
        '--size',
        '32x64',
        '--frames',
        4,
    )
    assert done.returncode == 0, done.stderr
    assert 'prepare: 5/5 clips' in done.stderr and done.stdout.endswith(
        'world: 3 train clips, 2 validation clips\n'
    )
    clips = records.Records(tmp_path / 'world', 'validation')
    for name, values in World('validation', 2, 4, (32, 64)).read(1, [3]).items():
        np.testing.assert_allclose(
            clips.read(1, [3])[name],
            values.clip(0, 655.35) if name == 'depth' else values,
            atol=0.00501,
        )


@pytest.fixture(scope='module')
def commands(tmp_path_factory, drives):
    """{name: [status, stdout, stderr]} of the commands below, and the folder that they wrote to."""
    folder = tmp_path_factory.mktemp('commands')
    (folder / 'empty').mkdir()
    for name in 'ab':
        video.write(folder / 'damaged' / f'{name}.mp4', drive(34), 17)
    complete = (folder / 'damaged' / 'a.mp4').read_bytes()
    (folder / 'damaged' / 'text.mp4').write_text('no video')
    # A hole in the pictures of one video; what says where they are (moov, at the end) stays.
    hole = bytearray(complete)
    hole[len(complete) // 5 : len(complete) // 2] = bytes(len(complete) // 2 - len(complete) // 5)
    (folder / 'damaged' / 'hole.mp4').write_bytes(hole)
    (folder / 'list').write_text('b.mp4')
    (folder / 'one.mp4').write_bytes(complete)
    lines = {
        'videos': f'video_folder --raw {drives} --out {folder}/videos --size 16x32 --processes 1',
        'check': f'--check {folder}/videos',
        'look': f'--look {folder}/videos',
        'damaged': f'video_folder --raw {folder}/damaged --out {folder}/rest --size 16x32 '
        f'--validation_file {folder}/list --processes 1',
        'strict': f'video_folder --raw {folder}/damaged --out {folder}/x --validation_file '
        f'{folder}/list --splits train --strict --processes 1',
        'dataset': f'moon --out {folder}/x',
        'misspelt': f'video_foldr --raw {drives} --out {folder}/x',
        'no dataset': f'--out {folder}/x',
        'file': f'video_folder --raw {folder}/one.mp4 --out {folder}/x',
        'taken': f'video_folder --raw {folder}/damaged --out {folder}/empty',
        'no out': 'world',
        'size': f'world --out {folder}/x --size 64',
        'no raw': f'kitti --out {folder}/x',
        'absent': f'video_folder --out {folder}/x --raw {folder}/none',
        'empty': f'covla --out {folder}/x --raw {folder}/empty',
        'empty folder': f'video_folder --out {folder}/x --raw {folder}/empty',
        'split': f'video_folder --out {folder}/x --raw {drives} --splits test',
        'nothing to check': f'--check {folder}/empty',
        'nothing to look at': f'--look {folder}/empty',
    }
    return outcomes('prepare', {name: line.split() for name, line in lines.items()}), folder


def drive(count):
    """Noise that moves: its video has something in every frame."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 64 + count, 3), np.uint8)
    return np.stack([picture[:, k : k + 64] for k in range(count)])


def test_the_command_prepares_checks_and_shows_videos(commands, drives):
    done, folder = commands
    assert done['videos'][:2] == [0, f'{folder}/videos: 4 train clips, 1 validation clip\n'], done[
        'videos'
    ]
    clips = records.Records(folder / 'videos', 'train')
    assert clips.name(3) == 'train/images#0' and clips.fps(0) == 30.0
    truth = videos.Videos(drives, 'train', None).read(1, [7])['frames']
    assert (
        np.abs(clips.read(1, [7])['frames'] - windows.cover(truth[0], (16, 32)).astype(int)).mean()
        < 3
    )  # JPEG
    assert done['check'][:2] == [
        0,
        f'{folder}/videos: 4 train clips, 1 validation clip, all as the manifest says\n',
    ]
    assert done['look'][:2] == [0, f'{folder}/videos/look.html\n']
    page = (folder / 'videos' / 'look.html').read_text()
    assert (
        page.count('data:image/png;base64,') == 5
        and 'validation: validation/other.mp4#0, frames' in page
    )


def test_damaged_videos_are_left_out_counted_and_named(commands):
    done, folder = commands
    status, out, err = done['damaged']
    assert status == 1, err
    assert f'{folder}/rest: 2 train clips, 1 validation clip\n' in out
    assert re.search(r'\nleft out text\.mp4#0: (?!text).*not a readable video', out)
    assert 'train: text.mp4: cannot be read, left out\n' in err
    # A clip is as long as what decodes, and what does not is told.
    assert re.search(r'hole.mp4: \d+ of its 34 frames cannot be decoded', err)
    left_out = records.read_manifest(folder / 'rest')['splits']['train']['left_out']
    assert [clip['name'] for clip in left_out] == ['text.mp4#0']
    assert (
        done['strict'][0] == 2 and 'text.mp4' in done['strict'][2] and not (folder / 'x').exists()
    )


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('dataset', 'prepare moon: expected one dataset: world, cityscapes'),
        ('misspelt', 'prepare video_foldr: did you mean video_folder? There are world, '),
        ('no dataset', 'error: prepare: expected one dataset: world, '),
        ('file', 'one.mp4: a file, expected a folder of videos'),
        ('taken', 'exists already; remove it or choose another folder'),
        ('no out', '--out is missing'),
        ('size', '--size=64: expected HEIGHTxWIDTH'),
        ('no raw', '--raw is missing'),
        ('absent', 'no such folder'),
        ('empty', 'empty'),
        ('empty folder', 'no videos'),
        ('split', "no videos for split 'test'"),
        ('nothing to check', 'no prepared clips there'),
        ('nothing to look at', 'no prepared clips there'),
        ('strict', 'text.mp4'),
    ],
)
def test_the_command_ends_in_one_line(commands, name, words):
    done, folder = commands
    status, out, err = done[name]
    assert (
        (status, out) == (2, '')
        and words in err
        and err.startswith('error: ')
        and err.count('\n') == 1
    ), err
    assert not list(folder.glob('x*'))
