"""How fast the windows of an evaluation run: what its tables and pictures say of time."""

import contextlib

import numpy as np
import pytest

from re2pix_jax.data import loader
from re2pix_jax.evaluation import protocol
from re2pix_jax.training import defaults
from tests.conftest import SIZE
from tests.data import index_coded


@pytest.mark.parametrize(
    ('fps', 'window', 'expected'),
    [
        (10, 'start', 10 / 2),  # two frames are nearest to 3/17 s
        (10, 'native', 10 / 3),
        (17, 'start', 17 / 3),
    ],
)
def test_a_rate_is_that_of_the_frames_that_are_there(tmp_path, fps, window, expected):
    for name in 'ab':
        index_coded.write(tmp_path / f'{name}.mp4', range(60), np.arange(60) / fps)
    data = defaults.data('train')
    data.update(sources=(f'videos:{tmp_path}',), size=SIZE, frames=4, strides=(3,), labels=False)
    data.window = window
    with contextlib.closing(loader.create(data, 1, 0, training=False)) as batches:
        assert batches.rates() == pytest.approx(
            [expected] * batches.clips, rel=0.01
        )  # by whole milliseconds


def test_a_protocol_says_what_its_clips_run_at():
    given = dict(model='m', source='s', split='x', clips=2, start_frame=0, window='start')
    given |= dict(stride=3, fps=5.0, size=[4, 8], label_size=[4, 8], context_frames=4, seed=0)
    given |= dict(horizon=4, last=False)
    line = lambda **more: protocol.describe(protocol.Protocol(**given, **more).to_dict())
    assert 'at stride 3 (5 frames per second)' in line()
    assert 'at stride 3 (5 to 5.67 frames per second)' in line(rates=(5.0, 17 / 3))
