"""Folders as people have them: the order of numbers, holes, doubles, what lies between, links."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import folders, footage, timeline, video, writing
from re2pix_jax.data.sources import videos
from re2pix_jax.errors import UserError
from tests.data import index_coded


def fill(folder, names):
    """Images that say 0, 1, ... in the order of `names`; returns the folder."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.fromarray(index_coded.picture(number)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    'names',
    [
        [f'frame_{k}.png' for k in (0, 1, 2, 9, 10, 11, 99, 100)],
        [f'{k:04d}.png' for k in range(9995, 10005)],
        [f'{k:03d}.{"png" if k % 2 else "jpg"}' for k in range(1, 9)],
        ['IMG_8.JPG', 'img_9.jpg', 'IMG_10.JPG'],
        [f'cam0_{k}_left.png' for k in (8, 9, 10)],
        ['a.png', 'b.png', 'c.png'],
        [f'2021-05-03_10-22-{second}_{k}.png' for second in (8, 9, 10) for k in (1, 2, 10)],
        [f'{stamp}.png' for stamp in (15318835304, 15318835319, 15318835341, 15318835350)],
        [f'cam_{round(9.9 + 0.05 * k, 2)}.png' for k in range(13)],  # 10.0, 10.05, ..., 10.5
        [f'{clip}.{k}.png' for clip in (9, 10) for k in (1, 9, 10, 11)],
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path, names):
    folder = fill(tmp_path / 'drive', names)
    assert index_coded.numbers(video.read(folder)) == list(range(len(names)))
    assert [file.name for file in folders.images(folder).files] == names
    assert timeline.of(folder, 10.0).rate == 10


def test_holes_are_times_without_a_frame(tmp_path):
    folder = fill(tmp_path / 'drive', [f'{k:05d}.png' for k in (3, 6, 9, 15, 18, 60, 63)])
    found = folders.images(folder)
    assert found.places.tolist() == [0, 1, 2, 4, 5, 19, 20] and not found.cuts
    assert found.notes == (
        'numbers that are missing: 12, 21 to 57',
        'numbers go up by 3: each is the next frame, at folder_fps',
    )
    line = timeline.of(folder, 10.0)
    np.testing.assert_allclose(line.times, found.places / 10)
    assert line.cuts == (5,), 'a long hole is a pause'
    read = index_coded.numbers(video.read(folder, fps=10, max_frames=6, folder_fps=10))
    assert read[:3] + read[4:] == [0, 1, 2, 3, 4] and read[3] in (2, 3)


def test_places_of_time_stamps(tmp_path):
    places = [0, 1, 2, 3, 5, 6, 40, 41]
    folder = fill(tmp_path / 'steps', [f'{round(9.85 + 0.05 * k, 2)}.png' for k in places])
    assert folders.images(folder).places.tolist() == places
    assert folders.images(folder).notes == (
        'numbers that are missing: 10.05, 10.20 to 11.80',
        'numbers go up by 0.05: each is the next frame, at folder_fps',
    )
    alone = ('numbers that tell an order alone: each is the next frame, at folder_fps',)
    for name, stamps in (('whole', (0, 31, 65, 98, 134)), ('several', ('9.95', '10.02', '10.11'))):
        found = folders.images(fill(tmp_path / name, [f'{stamp}.png' for stamp in stamps]))
        assert found.places.tolist() == list(range(len(stamps))) and found.notes == alone
    names = [f'{stamp}.png' for stamp in (0, 33, 66, 100, 133)]
    assert not [
        note for note in folders.images(fill(tmp_path / 'ms', names)).notes if 'missing' in note
    ]
    huge = folders.images(fill(tmp_path / 'huge', [f'{10**20 + k}.png' for k in range(3)]))
    assert huge.places.tolist() == [0, 1, 2] and not huge.notes


def test_two_frames_of_one_number_are_refused(tmp_path):
    for names in (['1.png', '01.png', '2.png'], ['0001.jpg', '0001.png'], ['a1.png', 'A1.jpg']):
        folder = fill(tmp_path / names[0], names)
        with pytest.raises(UserError, match=' and .* are two frames of one number; keep one'):
            video.read(folder)


def test_what_lies_between_is_named(tmp_path):
    folder = fill(tmp_path / 'drive', [f'{k:03d}.png' for k in (1, 2, 4, 5)])
    (folder / '003.heic').write_bytes(b'?')
    (folder / '006.png').write_bytes(b'')
    for name in ('notes.txt', '009.txt', '.DS_Store', '._001.png'):
        (folder / name).write_bytes(b'?')
    notes = folders.images(folder).notes
    assert notes == (
        '006.png: empty and left out',
        'numbers that are missing: 3',
        '003.heic: between the images, but of no known kind, and left out',
    )
    assert index_coded.numbers(video.read(folder)) == [0, 1, 2, 3]


def test_what_is_odd_is_said_once(tmp_path, capsys):
    folder = fill(tmp_path / 'drive', ['1.png', '2.png', '4.png'])
    video.read(folder)
    video.read(folder)
    assert capsys.readouterr().err == f'{folder}: numbers that are missing: 3\n'


def test_images_of_two_sizes_are_told(tmp_path, capsys):
    folder = fill(tmp_path / 'drive', [f'{k}.png' for k in range(3)])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / '1.png')
    assert video.read(folder, size=(4, 4)).shape == (3, 4, 4, 3)
    said = capsys.readouterr().err
    assert re.fullmatch(rf'{folder}: the frames have different sizes \(.* and 9x9\), .*\n', said)


def test_numbers_that_go_up_by_more_than_one_are_told(tmp_path):
    found = folders.images(fill(tmp_path / 'drive', [f'{3 * k}.png' for k in range(6)]))
    assert found.places.tolist() == list(range(6))
    assert found.notes == ('numbers go up by 3: each is the next frame, at folder_fps',)


def test_two_cameras_in_one_folder_are_two_clips(tmp_path):
    names = [f'{side}_{k}.png' for side in ('left', 'right') for k in range(4)]
    folder = fill(tmp_path / 'raw' / 'drive', names)
    assert timeline.of(folder).cuts == (4,)
    source = videos.Videos(tmp_path / 'raw')
    assert [source.num_frames(k) for k in range(len(source))] == [4, 4]
    assert index_coded.numbers(source.read(1, range(4))['frames']) == [4, 5, 6, 7]


def test_the_rate_of_folders_is_told(tmp_path):
    fill(tmp_path / 'raw' / 'drive', [f'{k}.png' for k in range(20)])
    source = videos.Videos(tmp_path / 'raw', folder_fps=10.0)
    assert source.fps(0) == 10.0
    read = video.read(tmp_path / 'raw' / 'drive', fps=5, folder_fps=10)
    assert index_coded.numbers(read) == list(range(0, 20, 2))


def test_what_a_mac_or_a_card_leaves_is_ignored_and_links_are_followed(tmp_path, capsys):
    raw, pool = tmp_path / 'raw', tmp_path / 'pool'
    for folder in (raw / '__MACOSX', raw / '.hidden', pool):
        folder.mkdir(parents=True)
        index_coded.write(folder / 'a.mp4', range(3), np.arange(3) / 30)
    (raw / '._a.mp4').write_bytes(b'?')
    (raw / 'empty.mov').write_bytes(b'')
    (raw / 'gone.mp4').symlink_to(raw / 'nowhere.mp4')
    os.mkfifo(raw / 'pipe.mp4')
    (raw / 'linked').symlink_to(pool)
    (pool / 'back').symlink_to(raw)
    for number in (2, 10):
        (raw / f'clip{number}.mp4').symlink_to(pool / 'a.mp4')
    names, notes = folders.videos(raw)
    assert names == ['clip2.mp4', 'clip10.mp4', 'linked/a.mp4']
    assert notes == [
        f'{raw}/empty.mov: an empty file, left out',
        f'{raw}/gone.mp4: a link to nothing, left out',
        f'{raw}/pipe.mp4: no regular file, left out',
    ]
    assert len(videos.Videos(raw)) + len(videos.Videos(raw, 'validation')) == 3
    assert 'empty.mov: an empty file' in capsys.readouterr().err


def test_images_beside_folders_are_told_and_alone_refused(tmp_path, capsys):
    raw = fill(tmp_path / 'raw', ['1.png', '2.png'])
    with pytest.raises(UserError, match='in it, but images; give them a folder of their own$'):
        videos.Videos(raw)
    fill(raw / 'a', ['1.png', '2.png'])
    names, notes = folders.videos(raw)
    assert names == ['a']
    assert notes == [f'{raw}: images right in it, left out; give them a folder of their own']
    assert len(videos.Videos(raw)) == 1 and capsys.readouterr().err.splitlines() == notes


def test_one_file_in_two_splits_is_refused(tmp_path):
    path = tmp_path / 'pool.mp4'
    index_coded.write(path, range(3), np.arange(3) / 30)
    for name in ('train/a.mp4', 'validation/b.mp4'):
        (tmp_path / 'raw' / name).parent.mkdir(parents=True)
        (tmp_path / 'raw' / name).symlink_to(path)
    with pytest.raises(UserError, match='train/a.mp4 and validation/b.mp4 are the same file'):
        videos.Videos(tmp_path / 'raw')


def test_a_split_may_hold_the_images_itself(tmp_path):
    for split in ('train', 'validation'):
        fill(tmp_path / split, [f'{k}.png' for k in range(4)])
        assert [videos.Videos(tmp_path, split).origin(0)] == [split]
    assert len(videos.Videos(tmp_path)) == len(videos.Videos(tmp_path, 'validation')) == 1


@pytest.mark.parametrize('name', ['val', 'Valid', 'EVAL', 'Test', 'dev', 'Validation'])
def test_a_split_in_other_words_is_refused(tmp_path, name):
    fill(tmp_path / name / 'b', ['1.png'])
    fill(tmp_path / 'day' / 'c', ['1.png'])
    assert len(videos.Videos(tmp_path)) == 1, 'names beside it that say nothing: as ever'
    fill(tmp_path / 'train' / 'a', ['1.png'])
    words = f'{name} beside train would be trained on; expected train, validation and test'
    for split in ('train', 'validation'):
        with pytest.raises(UserError, match=words):
            videos.Videos(tmp_path, split)
    (tmp_path / 'list').write_text(f'{name}/b\n')
    source = videos.Videos(tmp_path, 'validation', validation=tmp_path / 'list')
    assert [source.origin(0)] == [f'{name}/b']


def test_links_to_one_file_are_refused_where_a_list_parts_them(tmp_path):
    fill(tmp_path / 'raw' / 'a', ['1.png'])
    (tmp_path / 'raw' / 'b').symlink_to(tmp_path / 'raw' / 'a')
    (tmp_path / 'list').write_text('a\n')
    with pytest.raises(UserError, match='a and b are the same file, in two splits'):
        videos.Videos(tmp_path / 'raw', validation=tmp_path / 'list')


def test_names_that_are_not_utf8(tmp_path):
    for name in ('a', os.fsdecode(b'caf\xe9')):
        fill(tmp_path / 'raw' / name, [f'{k}.png' for k in range(34)])
    both = {of: videos.Videos(tmp_path / 'raw', of) for of in ('train', 'validation')}
    assert sum(map(len, both.values())) == 2
    with pytest.raises(
        UserError, match=r'the name of caf\\udce9#0 is not UTF-8, as a manifest has'
    ):
        writing.write(tmp_path / 'out', both, None, [], {})
    assert not (tmp_path / 'out.partial').exists()
    with pytest.raises(UserError, match='not UTF-8, as the writer of records wants it; choose'):
        writing.write(tmp_path / os.fsdecode(b'\xe9'), {}, None, [], {})
    assert videos._hash('a.mp4') == 0.9016808671489116


def test_what_each_file_gives_is_said(tmp_path):
    raw = tmp_path / 'train'
    raw.mkdir()
    index_coded.write(raw / 'good.mp4', range(50), np.arange(50) / 30)
    for name in ('#1', '#2'):
        index_coded.write(raw / f'good{name}.mp4', range(50), np.arange(50) / 30)
    index_coded.write(raw / 'short.mp4', range(9), np.arange(9) / 30)
    index_coded.write(raw / 'slow.mp4', range(12), np.arange(12) / 3)
    (raw / 'text.mp4').write_text('no video')
    source = videos.Videos(tmp_path, keep_unreadable=True, validation=None)
    source.pieces += videos.Videos(tmp_path, 'validation', keep_unreadable=True).pieces
    said = dict(line.split(': ', 1) for line in footage.lines(source, (64, 128)))
    assert said['train/good#1.mp4'] == said['train/good#2.mp4'] == said['train/good.mp4']
    assert said['train/good.mp4'] == '1 clip, 15 windows of 8 frames at 6 per second (stride 3)'
    assert said['train/short.mp4'].endswith('; 1 clip too short for a window')
    assert (
        ' clips too slow, 3 frames per second where stride 3 means 5.67' in said['train/slow.mp4']
    )
    assert said['train/text.mp4'].startswith('cannot be read, left out (')
    tall = dict(line.split(': ', 1) for line in footage.lines(source, (64, 320)))
    assert 'keeps 33% of its 96x160 pixels' in tall['train/good.mp4']
