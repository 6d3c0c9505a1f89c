"""What is predicted comes from one stretch of a recording, and what it is held against."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from re2pix_jax.data import stretches, timeline, video
from re2pix_jax.errors import UserError
from tests.data import index_coded

FPS = 17 / 3


@pytest.fixture(scope='module')
def paused(tmp_path_factory):
    """Two seconds, a pause of three, two seconds: 60 frames each at 30 Hz."""
    seconds = np.concatenate([np.arange(60) / 30, 5 + np.arange(60) / 30])
    place = tmp_path_factory.mktemp('paused') / 'paused.mp4'
    return index_coded.write(place, range(120), seconds)


def read(path, start, least=4, most=12):
    return video.read(path, FPS, start, most, min_frames=least, unbroken=True)


def test_a_reading_ends_where_the_recording_pauses(paused):
    assert len(read(paused, 0)) == 12 and len(read(paused, 1)) == 6
    assert len(video.read(paused, FPS, 1, 12)) == 12
    after = index_coded.numbers(read(paused, 5))
    assert after == index_coded.numbers(video.read(paused, FPS, 5, 12)) and after[0] == 60


@pytest.mark.parametrize('start', [1.5, 1.97, 2.1, 3.0, 4.9])
def test_what_needs_both_sides_of_a_pause_is_told_where_to_start(paused, start):
    with pytest.raises(UserError) as error:
        read(paused, start)
    assert str(error.value) == (
        f'{paused}: 4 frames at 5.67 per second from {start:g} s on cross the cut after 1.97 s, '
        'where the recording pauses or another begins; start at most 1.43 s or at least 5 s into it'
    )
    for said in (1.43, 5.0):
        assert len(read(paused, said)) >= 4


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.5, 9)), min_size=1, max_size=4),
    st.floats(0, 30),
    st.integers(1, 8),
)
def test_no_frame_is_from_beyond_a_pause(parts, start, least):
    rate, times, cuts, begin = 30.0, [], [], 0.0
    for count, pause in parts:
        cuts.append(len(times))
        times += (begin + np.arange(count) / rate).tolist()
        begin = times[-1] + pause
    times = np.array(times)
    line = timeline.Timeline(times, rate, tuple(cuts[1:]), (1, 1))
    wanted = start + np.arange(least) / FPS
    near = np.abs(wanted[:, None] - times).argmin(1)
    one = len(set(np.searchsorted(cuts, near, side='right'))) == 1
    shown = (np.abs(wanted - times[near]) <= 0.5 / rate).all()
    try:
        found = stretches.frames_from(line, FPS, start, least)
    except UserError:
        assert not (one and shown)
        return
    if found is None:  # the last stretch, to whose end a reading goes anyway
        assert len(cuts) == 1 or start >= times[cuts[-1]] - 1 / rate
        return
    assert found >= least and one
    last = start + (found - 1) / FPS
    assert np.abs(last - times).min() <= 0.5 / rate + 1e-6
