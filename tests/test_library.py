"""The library as a notebook uses it: what `predict` takes, and what its result and the parts show
of themselves.
"""

import re

import numpy as np
import pytest
from PIL import Image

from re2pix_jax import bundles
from re2pix_jax.data import video
from tests.conftest import SIZE


@pytest.fixture(scope='module')
def model(micro_bundles):
    return bundles.load(micro_bundles / 're2pix')


@pytest.fixture(scope='module')
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), np.uint8)


@pytest.fixture(scope='module')
def futures(model, frames):
    """Of two clips as one batch, the second a video file."""
    return model.predict([frames, frames[::-1]], horizon=3, num_futures=2)


def test_a_list_of_clips_is_predicted_each_as_alone(model, frames, futures):
    assert len(futures) == 2
    alone = model.predict(frames[::-1].astype(np.int64), horizon=3, num_futures=2)
    np.testing.assert_allclose(futures[1].latents, alone.latents, atol=1e-4)
    np.testing.assert_array_equal(futures[1].context, frames[::-1][1:])
    assert not np.array_equal(futures[0].frames, futures[1].frames)
    assert not np.array_equal(futures[0].frames[0], futures[0].frames[1])


def test_a_path_and_frames_are_the_same(model, frames, tmp_path):
    frames = np.repeat(frames, 4, axis=0)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f'{number}.png')
    options = dict(fps=model.fps, start=0.2)
    read = video.read(
        tmp_path, max_frames=4, size=SIZE, folder_fps=video.windows.BASE_FPS, **options
    )
    future = model.predict(tmp_path, horizon=1, start=0.2)
    np.testing.assert_array_equal(future.context, read)
    np.testing.assert_array_equal(future.frames, model.predict(read / 255, horizon=1).frames)


@pytest.mark.parametrize(
    ('clip', 'message'),
    [
        (np.zeros((5, *SIZE)), r'clip: expected frames \[time, .* got float64 \[5, 32, 64\]$'),
        (np.full((5, *SIZE, 3), 200.0), 'floats from 0 to 1, got float64 .* from 200 to 200$'),
        (np.full((5, *SIZE, 3), -0.5), 'got float64 .* from -0.5 to -0.5$'),
        (np.full((5, *SIZE, 3), 256), 'got int64 .* from 256 to 256$'),
        (np.full((5, *SIZE, 3), np.nan), 'got float64 .* from nan to nan$'),
        (np.zeros((5, *SIZE, 3), bool), 'got bool'),
        (np.zeros((0, *SIZE, 3), np.uint8), r'got uint8 \[0, 32, 64, 3\]$'),
        (np.zeros((3, *SIZE, 3), np.uint8), 'clip: 3 frames, but 4 context frames are needed'),
        ('nowhere.mp4', 'nowhere.mp4: '),
    ],
)
def test_what_is_no_clip_is_refused(clip, message, model):
    with pytest.raises(ValueError, match=message) as caught:
        model.predict(clip)
    assert '\n' not in str(caught.value)


def test_parts_and_futures_are_told_in_a_few_lines(model, futures):
    parts = [model, model.forecaster, model.forecaster.principal, model.vae, futures[0]]
    for part in parts:
        assert repr(part).startswith(type(part).__name__) and len(repr(part)) < 600
    assert re.search(r'\n  generator: [\d,]+ parameters, SpaceTimeDiT \(.*width 24', repr(model))
    assert 'frames uint8 [2, 3, 32, 64, 3]' in repr(futures[0])


def test_a_future_is_shown_and_saved(futures, tmp_path):
    shown = futures[0]._repr_html_()
    assert shown.count('base64,') == 2 and '<video' in shown and '<img' in shown
    sheet = futures[0].sheet()
    assert sheet.height > 3 * 128 and sheet.width > 7 * 256
    futures[0].save(tmp_path / 'out')
    assert video.probe(tmp_path / 'out' / 'future.mp4').frames == 7
    np.testing.assert_array_equal(Image.open(tmp_path / 'out' / 'sheet.png'), sheet)
