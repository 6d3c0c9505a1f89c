"""What is no input of the library: one line each, which says what is right."""

import numpy as np
import pytest

import re2pix_jax
from re2pix_jax import bundles
from re2pix_jax.report.future import Future
from tests.conftest import SIZE

CLIP = np.random.default_rng(0).integers(0, 256, (1, 4, *SIZE, 3)).astype(np.uint8)
FLOATS = CLIP.astype(np.float32)
WITH_NAN = np.where(FLOATS == FLOATS.max(), np.nan, 0.0)
MAP = np.zeros((1, 4, 4, 8, 32), np.float32)


@pytest.fixture(scope='module')
def model(micro_bundles):
    return bundles.load(micro_bundles / 're2pix')


def refused(call, *arguments, **options) -> str:
    """What a call says that has to fail."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    said = str(caught.value)
    assert said and '\n' not in said and len(said) < 300
    return said


@pytest.mark.parametrize(
    ('frames', 'said'),
    [
        (FLOATS, 'got float32 [1, 4, 32, 64, 3] from 0 to 255; give frames from 0 to 255 as uint8'),
        (FLOATS / 255, 'from 0 to 1; give frames from 0 to 1 as uint8, 255 times as much'),
        (WITH_NAN, 'got float64 [1, 4, 32, 64, 3] from nan to nan'),
        (FLOATS - 128, 'floats that `normalise` made, got float32 [1, 4, 32, 64, 3] from -128 to'),
        (CLIP[0], 'got uint8 [4, 32, 64, 3]; one clip is frames[None]'),
        (CLIP[..., 0], 'got uint8 [1, 4, 32, 64]'),
        (CLIP.astype(np.int16) - 1, 'got int16 [1, 4, 32, 64, 3] from -1 to 254'),
        (CLIP > 0, 'got bool [1, 4, 32, 64, 3]'),
        (CLIP[:, :0], 'got uint8 [1, 0, 32, 64, 3]'),
        (np.zeros(0), 'got float64 [0]'),
    ],
)
def test_an_encoder_takes_frames_alone(frames, said, model):
    for part in (model.forecaster.encoder, model.forecaster):
        told = refused(part.encode, frames)
        assert told.startswith('frames: expected uint8 [batch, time, height, width, 3], or floats')
        assert told.find(said) > 0, told


def test_frames_of_other_whole_numbers_are_the_same(model):
    for part in (model.forecaster.encoder, model.vae):
        same = part.encode(CLIP.astype(np.int64))
        np.testing.assert_array_equal(same, part.encode(CLIP))


def test_a_vae_takes_frames_and_latents_alone(model):
    vae = model.vae
    assert 'floats from -1 to 1, got float32' in refused(vae.encode, FLOATS)
    assert 'from nan to nan' in refused(vae.moments, WITH_NAN)
    assert refused(vae.encode, CLIP[:, :, :30]).startswith('the autoencoder was given 30x64 frames')
    said = 'latents: expected floats [batch, time, rows, columns, 4], got '
    assert refused(vae.decode, np.zeros((1, 4, 8, 16, 3))) == f'{said}[1, 4, 8, 16, 3]'
    assert refused(vae.decode, np.zeros((4, 8, 16, 4))) == f'{said}[4, 8, 16, 4]'


def test_a_forecaster_takes_its_components_alone(model):
    forecast = model.forecaster.forecast
    assert 'was given 3 context frames and needs 4' in refused(forecast, MAP[:, :3], 1)
    assert 'a forecast of 0 steps was asked for' in refused(forecast, MAP, 0)
    assert 'it takes 4 frames of 4x8 with 32' in refused(forecast, MAP[..., :31], 1)
    assert refused(forecast, MAP[0], 1) == (
        'components: expected [batch, time, rows, columns, channels], got [4, 4, 8, 32]'
    )
    said = 'components: expected [..., 32], as these principal components were fitted, got '
    assert refused(model.forecaster.features, MAP[..., :31]) == f'{said}[1, 4, 4, 8, 31]'
    said = refused(model.forecaster.principal.project, MAP)
    assert said.startswith('features: expected [..., 96], as these')


def test_a_head_takes_its_features_alone(model):
    assert 'takes features [B, T, h, w, 96]' in refused(model.head.labels, MAP[0])
    assert 'features of 96 channels and was given features of 32' in refused(model.head.labels, MAP)
    assert 'was asked for depth: ask for labels' in refused(model.head.depth, MAP)
    said = refused(model.replace(head=None).segment, CLIP)
    assert said.startswith('this model has no head: load one')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(horizon=0), 'horizon: expected a whole number, at least 1, got 0'),
        (dict(horizon=2.5), 'horizon: expected a whole number, at least 1, got 2.5'),
        (dict(num_futures=0), 'num_futures: expected a whole number, at least 1, got 0'),
        (dict(seed=-1), 'seed: expected a whole number, at least 0, got -1'),
        (dict(start=1.0), 'start: 1 s, which is for a file; of frames the last 4 are the context'),
        (
            dict(guidance='0.4'),
            "guidance: expected a weight from 0 (none) on, as in 0.4, got '0.4'",
        ),
        (dict(guidance=-1), 'guidance: expected a weight from 0 (none) on, as in 0.4, got -1'),
        (dict(guidance=np.nan), 'guidance: expected a weight from 0 (none) on, as in 0.4, got nan'),
        (dict(guidance=1, guidance_channels=33), 'guidance keeps 33 of 32 components'),
        (dict(channels=33), 'channels: 33 of 32 components were asked for; give a number from 1'),
        (dict(channels=2.5), 'channels: expected a whole number, at least 1, got 2.5'),
        (
            dict(guidance_channels='8'),
            "guidance_channels: expected a whole number, at least 0, got '8'",
        ),
        (dict(sampler='rk4'), "sampler 'rk4' is unknown; choose one of euler, heun, ddim"),
        (dict(sampler_steps=0), 'sampler steps is 0; at least 1 is needed'),
        (dict(sampler_grid='odd'), "sampler grid 'odd' makes no times from 0 to 1"),
        (dict(context_noise=0.1), 'context_noise is 0.1; this generator was trained for none'),
    ],
)
def test_options_of_a_prediction_are_checked_before_anything_is_compiled(options, said, model):
    assert said in refused(model.predict, CLIP[0], **options)


@pytest.mark.parametrize(
    ('clip', 'said'),
    [
        ([], 'clip: expected a video or a list of videos, got an empty list'),
        (list(CLIP[0]), 'clip: one picture [32, 64, 3], expected frames [time, height, width, 3];'),
        (None, 'clip: expected a file, a folder of images or frames, got NoneType'),
        ({}, 'clip: expected a file, a folder of images or frames, got dict'),
        (CLIP[0, 0, 0], 'clip: expected frames [time, height, width, 3], whole numbers from 0'),
        ('nowhere.mp4', 'nowhere.mp4: no such file or folder; expected a video file'),
        ('https://there/a.mp4', 'https://there/a.mp4: is an address; fetch the video, and give'),
        (b'a.mp4', 'clip: expected a file, a folder of images or frames, got bytes'),
    ],
)
def test_what_is_predicted_is_a_clip_or_several(clip, said, model):
    assert refused(model.predict, clip).startswith(said)


def test_a_start_is_a_number_of_seconds(model, tmp_path):
    (tmp_path / 'drive.mp4').touch()
    for start in ('2', None, '0'):
        said = f'start={start!r}: expected seconds from the beginning of the video'
        assert refused(model.predict, tmp_path / 'drive.mp4', start=start) == said


def test_a_folder_of_videos_names_one_of_them(model, tmp_path):
    (tmp_path / 'drive.mp4').touch()
    said = refused(model.predict, tmp_path)
    assert said.endswith('; it holds videos: name one of them, as drive.mp4')


def test_what_happened_has_the_size_of_what_was_predicted():
    frames = CLIP[0]
    future = Future(frames, MAP[0], MAP[0], MAP[0], frames, 17 / 3)
    for truth in (9, frames[0], frames[:, :30]):
        said = f'truth: expected frames [K, 32, 64, 3], got {list(np.shape(truth))}'
        assert refused(future.sheet, truth) == said


def test_a_bundle_has_a_name():
    for name in (None, 3, ['tiny']):
        said = f'expected the name or the folder of a bundle, got {type(name).__name__}'
        assert refused(re2pix_jax.load, name) == said


def test_a_bundle_that_is_not_there_is_named_with_those_that_are():
    assert refused(re2pix_jax.load, 'tini').startswith("tini: no such model, did you mean 'tiny'")
    assert "tiny/vea: no such model, did you mean 'tiny/vae'" in refused(
        re2pix_jax.load, 'tiny/vea'
    )
