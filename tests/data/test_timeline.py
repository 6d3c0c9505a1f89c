"""The time axis: nearest frames whatever the times, pauses, clips of one rate, what is kept."""

import os
import pathlib
import tempfile

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from re2pix_jax.data import timeline, video
from re2pix_jax.data.sources import videos
from re2pix_jax.errors import UserError
from tests.data import index_coded

MANY = settings(max_examples=500)


@st.composite
def axes(draw, most=80):
    """Times that increase: of one rate, of jitter, of several rates, with pauses."""
    count = draw(st.integers(1, most))
    period = 1 / draw(st.sampled_from([5.0, 10.0, 17.0, 25.0, 30000 / 1001, 30.0, 60.0]))
    step = st.sampled_from([1.0, 1.0, 1.0, 0.6, 1.5, 2.0, 3.0, 90.0])
    if draw(st.booleans()):
        step = st.just(1.0)
    steps = period * np.array(draw(st.lists(step, min_size=count - 1, max_size=count - 1)))
    return np.concatenate([[0.0], np.cumsum(steps)])


@MANY
@given(axes(), st.floats(0.5, 70), st.floats(0, 30), st.integers(1, 40), st.booleans())
def test_what_is_read_is_the_nearest_frame(times, fps, start, count, every):
    rate = 30.0
    read = timeline.nearest(times, rate, None if every else fps, start, count)
    if start >= times[-1] + 0.5 / rate:
        assert not len(read)
        return
    if every:
        assert (np.diff(read) == 1).all()
        assert len(read) == min(count, len(times) - read[0])
        read, fps = read[:1], 1.0
    wanted = start + np.arange(len(read)) / fps
    far = np.abs(times[:, None] - wanted)
    np.testing.assert_allclose(np.abs(times[read] - wanted), far.min(axis=0), atol=2e-9)
    if len(read) < count and not every:  # the next would come after the last frame
        assert start + len(read) / fps >= times[-1] + 0.5 / rate - 1e-5 / fps


@MANY
@given(axes())
def test_clips_are_disjoint_and_complete(times):
    line = timeline._timeline(times, (), [30.0], (4, 4))
    pieces = pieces_of(line)
    covered = [k for piece in pieces for k in range(piece.first, piece.first + piece.shown)]
    assert covered == list(range(len(times)))
    for piece in pieces:
        own = times[piece.first : piece.first + piece.shown]
        assert not [cut for cut in line.cuts if piece.first < cut < piece.first + piece.shown]
        picks = np.arange(piece.frames) if piece.picks is None else piece.picks
        assert len(picks) == piece.frames and set(picks) <= set(range(piece.shown))
        grid = own[0] + np.arange(piece.frames) / piece.fps
        off = np.abs(own[picks] - grid)
        least = np.abs(own[:, None] - grid).min(axis=0)
        slack = 0.5 / piece.fps if piece.picks is None else 0.0
        assert (off <= least + slack + 2e-6).all()


def pieces_of(line):
    real, timeline.of = timeline.of, lambda path, fps: line
    try:
        return videos.cut('drive.mp4', 'drive.mp4', 17.0)
    finally:
        timeline.of = real


@st.composite
def recordings(draw):
    """(container, milliseconds of each frame, its number) that a file can hold."""
    count = draw(st.integers(8, 60))  # fewer are too few to tell a transport stream by
    steps = draw(
        st.lists(st.sampled_from([33, 34, 40, 67, 100]), min_size=count - 1, max_size=count - 1)
    )
    ending = draw(st.sampled_from(['mkv', 'mp4', 'ts']))
    return ending, np.concatenate([[0], np.cumsum(steps)]) / 1000


@pytest.mark.long
@MANY
@given(recordings(), st.integers(0, 2), st.integers(1, 30), st.floats(0, 3), st.floats(2, 9))
def test_files_are_read_at_the_nearest_frames(recording, b_frames, gop, start, fps):
    ending, seconds = recording
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, f'a.{ending}')
        index_coded.write(path, range(len(seconds)), seconds, b_frames=b_frames, gop=gop)
        line = timeline.of(path)
        np.testing.assert_allclose(line.times, seconds, atol=2e-3)
        if start >= seconds[-1]:
            return
        read = index_coded.numbers(video.read(path, fps, start, 5))
        wanted = start + np.arange(len(read)) / fps
        far = np.abs(seconds[:, None] - wanted)
        assert (far[read, np.arange(len(read))] <= far.min(axis=0) + 4e-3).all()
        rest = index_coded.numbers(video.read(path, start=start))
        assert rest == list(range(rest[0], len(seconds))), 'as cutting the whole'


def test_a_pause_is_a_cut_and_slow_recordings_are_not():
    at = lambda *steps: np.concatenate([[0.0], np.cumsum(steps)])
    fast, slow = [1 / 30] * 20, [1.0] * 20
    for steps, cuts in [
        ([*fast, 3.0, *fast], (21,)),
        ([*fast, 0.2, *fast], ()),
        ([*fast, *slow], ()),
        (slow, ()),
        ([*slow, 10.0, *slow], (21,)),
        ([*fast, 3.0], (21,)),
        ([1.0], ()),
    ]:
        assert timeline._timeline(at(*steps), (), [30.0], None).cuts == cuts


def test_a_clip_of_two_rates_is_read_at_the_faster():
    times = np.concatenate([np.arange(30) / 30, 1 + np.arange(15) / 15])
    fps, picks = timeline.even(times, 22.5)
    assert fps == pytest.approx(30, abs=1e-3)
    assert picks.tolist()[:31] == list(range(31)) and set(picks) == set(range(45))
    assert timeline.even(np.arange(30) / 30 + 5, 30.0) == (30.0, None)
    assert timeline.even(np.array([0.0]), 25.0) == (25.0, None)
    jitter = np.arange(30) / 30 + np.random.default_rng(0).uniform(-0.01, 0.01, 30)
    assert timeline.even(jitter, 30.0)[1] is None


def test_two_recordings_in_one_file_are_two_clips(tmp_path):
    """Transport streams can be joined by joining their bytes: the clock begins anew."""
    for number, first in enumerate((0, 100)):
        shown = range(first, first + 40)
        index_coded.write(tmp_path / f'{number}.ts', shown, np.arange(40) / 30)
    joined = tmp_path / 'both' / 'joined.ts'
    joined.parent.mkdir()
    joined.write_bytes((tmp_path / '0.ts').read_bytes() + (tmp_path / '1.ts').read_bytes())
    line = timeline.of(joined)
    assert line.cuts == (40,) and (np.diff(line.times) > 0).all()
    assert index_coded.numbers(video.read(joined)) == [*range(40), *range(100, 140)]
    source = videos.Videos(joined.parent)
    assert [source.name(k) for k in range(2)] == ['joined.ts#0', 'joined.ts#40']


def test_a_long_pause_does_not_fill_the_memory(tmp_path):
    seconds = np.concatenate([np.arange(10) / 10, 1e5 + np.arange(10) / 10])
    index_coded.write(tmp_path / 'parked.mkv', range(20), seconds)
    assert len(video.read(tmp_path / 'parked.mkv')) == 20
    assert len(video.read(tmp_path / 'parked.mkv', fps=10, max_frames=30)) == 30
    with pytest.raises(UserError, match='parked.mkv: 10000.. frames at 10 per second of 20, which'):
        video.read(tmp_path / 'parked.mkv', fps=10)


def test_a_file_is_measured_once_and_again_when_it_changes(tmp_path, monkeypatch):
    opened, real = [], av.open
    path = index_coded.write(tmp_path / 'a.mp4', range(20), np.arange(20) / 30)
    monkeypatch.setattr(av, 'open', lambda *a, **rest: opened.append(a) or real(*a, **rest))
    line = timeline.of(path)
    count = len(opened)
    assert count and len(timeline.of(path).times) == 20 and len(opened) == count
    timeline._known.clear()
    kept = timeline.of(path)
    assert len(opened) == count, 'from the cache'
    assert kept._replace(times=0, pts=0, keys=0) == line._replace(times=0, pts=0, keys=0)
    for name in ('times', 'pts', 'keys'):
        np.testing.assert_array_equal(getattr(kept, name), getattr(line, name))
    index_coded.write(path, range(10), np.arange(10) / 30)
    assert len(timeline.of(path).times) == 10
    timeline._known.clear()
    timeline._cached(os.path.realpath(path)).write_bytes(b'no cache')
    assert len(timeline.of(path).times) == 10


def test_no_cache_can_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    path = index_coded.write(tmp_path / 'a.mp4', range(20), np.arange(20) / 30)
    assert len(timeline.of(path).times) == 20


@pytest.mark.parametrize('sound', [False, True])
def test_a_matroska_that_is_cut_short_is_named(tmp_path, sound):
    """It counts no frames, but states how long it is; with sound beside them, how long each is."""
    whole = index_coded.write(tmp_path / 'whole.webm', range(90), np.arange(90) / 30)
    if sound:
        whole = with_longer_sound(whole, tmp_path / 'sound.mkv')
    assert not timeline.of(whole).notes
    data = whole.read_bytes()
    cut = tmp_path / f'cut{whole.suffix}'
    cut.write_bytes(data[: len(data) * 6 // 10])
    (note,) = timeline.of(cut).notes
    ends = timeline.of(cut).times[-1] + 1 / 30
    assert note == f'3 s are stated, {ends:.4g} can be shown: the file is cut short'
    assert ends < 2.5


def test_an_avi_that_leaves_frames_out_is_whole_and_one_that_is_cut_is_named(tmp_path):
    times = np.delete(np.arange(51), [1, 20]) / 25
    whole = index_coded.write(tmp_path / 'whole.avi', range(49), times)
    line = timeline.of(whole)
    assert not line.notes and len(line.times) == 49
    data = whole.read_bytes()
    (tmp_path / 'cut.avi').write_bytes(data[: len(data) * 6 // 10])
    (note,) = timeline.of(tmp_path / 'cut.avi').notes
    assert note.endswith('can be shown: the file is cut short')


def with_longer_sound(film, path):
    with av.open(str(film)) as source, av.open(str(path), 'w') as container:
        pictures = container.add_stream_from_template(source.streams.video[0])
        voice = container.add_stream('aac', rate=16000)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 5 * 16000), np.float32), format='fltp', layout='mono'
        )
        silence.sample_rate = 16000
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets:
            packet.stream = pictures
            container.mux(packet)
        container.mux(voice.encode(silence))
        container.mux(voice.encode(None))
    return path
