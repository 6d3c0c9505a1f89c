"""Reading and writing video: rates, times, sizes, and a message for everything that can be wrong
with a file.
"""

import errno
import gc
import os
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import video
from re2pix_jax.errors import UserError
from tests.data import index_coded

CLIPS = pathlib.Path(__file__).parents[2].parent / 'shared' / 'clips'


def numbered(count, height=48, width=64):
    """Frames that say their own number by their brightness: 4 grey levels a frame."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    return frames + (20 + 4 * np.arange(count, dtype=np.uint8))[:, None, None, None]


def numbers(frames):
    return np.rint((frames.mean((1, 2, 3)) - 20) / 4).astype(int).tolist()


@pytest.fixture(scope='module')
def clip30(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'clip.mp4'
    video.write(path, numbered(40), fps=30)
    return path


def image_folder(path, frames):
    path.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f'{number:04d}.png')
    return path


def test_write_then_read_gives_the_frames_back(clip30):
    frames = video.read(clip30)
    assert frames.shape == (40, 48, 64, 3) and frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - numbered(40)).max() <= 3
    assert video.probe(clip30) == (30.0, 40, 48, 64)


def test_a_title_that_is_no_utf8_is_passed_over(tmp_path):
    path = tmp_path / 'titled.mp4'
    with av.open(str(path), 'w') as container:
        container.metadata['title'] = 'Allee'
        stream = container.add_stream('libx264', rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for frame in numbered(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))
    written = path.read_bytes()
    assert b'Allee' in written
    path.write_bytes(written.replace(b'Allee', b'All\xe9e'))
    assert video.read(path).shape == (5, 48, 64, 3)


def test_every_wanted_time_gets_the_nearest_frame(clip30):
    times = np.arange(23) / 17
    assert numbers(video.read(clip30, fps=17)) == np.rint(times * 30).astype(int).tolist()
    assert numbers(video.read(clip30, fps=30)) == list(range(40))
    assert numbers(video.read(clip30, fps=10, start=0.5, max_frames=3)) == [15, 18, 21]
    assert numbers(video.read(clip30, start=0.5, max_frames=4)) == [15, 16, 17, 18]


def test_starting_late_equals_cutting_the_beginning_off(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (60, 6, 8, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    video.write(tmp_path / 'noise.mp4', noise, fps=25)
    complete = video.read(tmp_path / 'noise.mp4')
    np.testing.assert_array_equal(
        video.read(tmp_path / 'noise.mp4', start=33 / 25, max_frames=5), complete[33:38]
    )


def test_only_the_wanted_frames_are_converted(clip30, monkeypatch):
    found = []
    fit = video.fit
    monkeypatch.setattr(video, 'fit', lambda frames, size: found.append(1) or fit(frames, size))
    assert video.read(clip30, fps=3, max_frames=3, size=(24, 32)).shape == (3, 24, 32, 3)
    assert len(found) == 3


@pytest.mark.parametrize('height, width', [(33, 50), (48, 51), (31, 17)])
def test_odd_sizes_are_extended_by_one_pixel(tmp_path, height, width):
    frames = numbered(6, height, width)
    video.write(tmp_path / 'odd.mp4', frames, fps=17 / 3)
    back = video.read(tmp_path / 'odd.mp4')
    assert back.shape == (6, height + height % 2, width + width % 2, 3)
    assert np.abs(back[:, :height, :width].astype(int) - frames).max() <= 3
    assert video.probe(tmp_path / 'odd.mp4').fps == pytest.approx(17 / 3, abs=1e-3)


def test_image_folders_are_read_in_order_of_their_names(tmp_path):
    folder = image_folder(tmp_path / 'drive', numbered(12))
    (folder / 'notes.txt').write_text('not an image')
    np.testing.assert_array_equal(video.read(folder), numbered(12))
    assert numbers(video.read(folder, fps=17 / 3)) == [0, 3, 6, 9]
    assert video.probe(folder) == (17.0, 12, 48, 64)
    assert video.probe(folder, folder_fps=10).fps == 10


def test_fit_keeps_the_middle_and_the_brightness():
    frames = np.zeros((2, 40, 200, 3), np.uint8)
    frames[:, :, 60:140] = 200
    fitted = video.fit(frames, (20, 40))
    assert fitted.shape == (2, 20, 40, 3) and (fitted == 200).all()
    chess = np.indices((64, 128)).sum(0)[None, ..., None] % 2 * np.full(3, 255)
    small = video.fit(chess.astype(np.uint8), (16, 32))
    assert np.abs(small.astype(int) - 127).max() <= 4, (
        'without antialias it would be black or white'
    )
    assert video.fit(frames, (40, 200)) is frames


def test_a_fitted_clip_equals_fitting_the_clip(clip30):
    np.testing.assert_array_equal(
        video.read(clip30, size=(16, 48)), video.fit(video.read(clip30), (16, 48))
    )


@pytest.mark.parametrize(
    'name, fps, frames',
    [
        ('udacity_solidWhiteRight.mp4', 25, 221),
        ('cosmos1_ar_1.mp4', 30, 60),
        ('cosmos25_freeway_tele.mp4', 30, 128),
    ],
)
def test_real_video(name, fps, frames):
    if not (CLIPS / name).exists():
        pytest.skip(f'{name} is not on this machine')
    assert video.probe(CLIPS / name)[:2] == (fps, frames)
    clip = video.read(CLIPS / name, fps=17 / 3, size=(64, 128), max_frames=8)
    assert clip.shape == (8, 64, 128, 3) and clip.std() > 10
    last = video.read(CLIPS / name, start=(frames - 2) / fps, size=(64, 128))
    assert len(last) == 2


def test_what_is_wrong_with_a_file_is_said(tmp_path, clip30):
    (tmp_path / 'text.mp4').write_text('this is no video')
    (tmp_path / 'empty').mkdir()
    film = index_coded.write(tmp_path / 'whole.webm', range(30), np.arange(30) / 30)
    (tmp_path / 'head.webm').write_bytes(film.read_bytes()[:100])
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=16000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
        )
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    image_folder(tmp_path / 'broken', numbered(2))
    (tmp_path / 'broken' / '0001.png').write_bytes(
        (tmp_path / 'broken' / '0001.png').read_bytes()[:60]
    )
    image_folder(tmp_path / 'mixed', numbered(2))
    Image.fromarray(numbered(1, 20, 20)[0]).save(tmp_path / 'mixed' / '0001.png')
    for path, options, words in [
        (tmp_path / 'none.mp4', {}, 'no such file or folder'),
        (tmp_path / 'text.mp4', {}, 'not a readable video'),
        (tmp_path / 'head.webm', {}, 'not a readable video (it ends too early), expected a whole'),
        (tmp_path / 'sound.mp4', {}, 'no video stream'),
        (tmp_path / 'empty', {}, 'holds no images'),
        (tmp_path / 'broken', {}, 'not a readable image'),
        (tmp_path / 'mixed', {}, 'different sizes'),
        (tmp_path / 'mixed', {'fps': 6, 'folder_fps': 3}, 'has 3 frames per second (folder_fps), '),
        (clip30, {'fps': 60}, 'expected at least the 60 that are asked for'),
        (
            clip30,
            {'fps': 5, 'min_frames': 20},
            '7 frames at 5 frames per second, expected at least 20',
        ),
        (
            clip30,
            {'start': 9},
            'from 9 s on, expected at least 1; it is 1.333 s long: start may be at most 1.3',
        ),
        (clip30, {'start': 1.2, 'fps': 10, 'min_frames': 4}, 'start may be at most 1'),
        (
            clip30,
            {'min_size': 64},
            'frames of 48x64 pixels, expected a height and width of at least 64',
        ),
        (clip30, {'fps': 0}, 'must be positive'),
        (clip30, {'start': -1}, 'must not be negative'),
        (clip30, {'max_frames': 0}, 'at least 1'),
    ]:
        with pytest.raises(UserError) as error:
            video.read(path, **options)
        assert words in str(error.value) and '\n' not in str(error.value)
        assert options.keys() & {'fps', 'start', 'max_frames'} or str(path.name) in str(error.value)


@pytest.mark.parametrize(
    'frames, fps, words',
    [
        (np.zeros((2, 4, 4, 3), np.float32), 17, 'expected uint8'),
        (np.zeros((4, 4, 3), np.uint8), 17, 'expected uint8'),
        (np.zeros((0, 4, 4, 3), np.uint8), 17, 'T > 0'),
        (np.zeros((2, 4, 4, 3), np.uint8), 0, 'positive'),
    ],
)
def test_what_is_not_a_clip_is_not_written(tmp_path, frames, fps, words):
    with pytest.raises(UserError, match=words):
        video.write(tmp_path / 'x.mp4', frames, fps)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(self, data):
        with open(self, 'wb') as file:
            file.write(bytes(data[:10]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
    with pytest.raises(UserError, match='x.mp4: the disk is full'):
        video.write(tmp_path / 'x.mp4', numbered(3), 17)
    assert not list(tmp_path.iterdir())


def test_frames_that_were_read_do_not_wait_for_the_collector(tmp_path):
    """A picture of a phone's video has megabytes: hundreds of them once lay in cycles."""
    video.write(tmp_path / 'a.mp4', np.zeros((12, 32, 64, 3), np.uint8), 30)
    video.read(tmp_path / 'a.mp4')
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        video.read(tmp_path / 'a.mp4')
        gc.collect()
        assert not [found for found in gc.garbage if isinstance(found, av.VideoFrame)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
