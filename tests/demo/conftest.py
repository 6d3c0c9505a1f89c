"""Small files that visitors bring."""

import fractions

import av
import numpy as np
import pytest

from re2pix_jax import world
from re2pix_jax.data import video


@pytest.fixture(scope='session')
def brought(tmp_path_factory):
    """A folder: a street of 3 s, half a second, a text with a video's name, and ten hours that two
    frames promise.
    """
    folder = tmp_path_factory.mktemp('brought')
    frames = world.render('validation', 0, list(range(0, 54, 3)), (64, 128)).frames
    video.write(folder / 'street.mp4', np.asarray(frames), 17 / 3)
    video.write(folder / 'short.mp4', np.asarray(frames)[:2], 17 / 3)
    (folder / 'letter.mp4').write_text('dear reader')
    with av.open(str(folder / 'long.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=1)
        stream.width, stream.height, stream.pix_fmt = 128, 64, 'yuv420p'
        for seconds in (0, 36000):
            frame = av.VideoFrame.from_ndarray(frames[0], format='rgb24')
            frame.pts, frame.time_base = seconds, fractions.Fraction(1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder
