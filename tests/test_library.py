"""The library as a notebook uses it: what `predict` takes, and what its result and the parts show
of themselves.
"""

import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from re2pix_jax import bundles
from re2pix_jax.benchmarks import prediction
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


def test_one_program_serves_all_horizons_weights_and_channels(model, frames):
    """And what it gives is what the roll-out in one loop gives."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **named: (
            compiled.append(named.get('fun_name'))
            if event.endswith('/backend_compile_duration')
            else 0
        )
    )
    model.predict(frames, horizon=1)
    model.predict(frames, horizon=1, guidance=0.4)
    assert any('_next' in str(name) for name in compiled)
    compiled.clear()
    found = {horizon: model.predict(frames, horizon) for horizon in (3, 4, 8, 13)}
    for number, channels in enumerate((1, 8, None)):
        model.predict(frames, 6, seed=number, channels=channels, sampler_steps=None)
        model.predict(frames, 6, guidance=1 / (1 + number), guidance_channels=number + 1)
    assert not compiled
    keys = jax.random.split(jax.random.key(0), 1)
    whole = model.rollout(found[13].context[None], keys, 13)
    for name, array in whole.items():
        one = getattr(found[13], name).astype(np.float32)
        np.testing.assert_allclose(one, array[0], atol=1e-3 if name != 'frames' else 1.0)


def test_info_tells_memory_and_time(model, capsys):
    model.info(num_futures=2)
    device, memory, time = capsys.readouterr().out.splitlines()
    assert device == f'{jax.device_count()} x cpu; one is used, computing in float32'
    of = re.fullmatch(r'memory: (\d+) MB of weights, (\d+) MB at work on 4 frames of .*', memory)
    assert of and int(of[1]) == round(sum(x.nbytes for x in jax.tree.leaves(model)) / 1e6)
    assert re.fullmatch(
        r'time: [\d.e-]+ s for a context and [\d.e-]+ s for every 4 frames, .* to compile', time
    )


def test_parts_and_futures_are_told_in_a_few_lines(micro_bundles, model, futures):
    names = ('encoder', 'principal', 'vae', 'forecaster', 'head', 'generator', 'judge')
    large = jax.eval_shape(lambda: prediction.make_model('b', None))
    parts = [model, large, futures[0], *(bundles.load(micro_bundles / name) for name in names)]
    for part in parts:
        assert repr(part).startswith(type(part).__name__) and len(repr(part)) < 500, repr(part)
    assert ': from ' in repr(parts[-1]) and ': from' not in repr(parts[-1].replace(params={}))
    assert re.search(r'\n  generator: [\d.]+ M parameters, SpaceTimeDiT \(.*width 24', repr(model))
    assert f', size {SIZE[0]}x{SIZE[1]}\n' in repr(model)
    future = repr(futures[0])
    assert 'frames uint8 [2, 3, 32, 64, 3]' in future
    assert future.partition(', ')[0].replace('Future', 'Re2Pix') == repr(model).partition(', ')[0]
    principal = repr(bundles.load(micro_bundles / 'principal'))
    assert principal.startswith('Principal: from /')
    assert principal.endswith('principal, 32 components of 96 channels')
    assert '\n    principal: 32 components of 96 channels\n' in repr(model)


def test_the_longest_summary_stays_short(tmp_path):
    folder = tmp_path / ('far_away_' * 20) / 'my_tiny'
    shutil.copytree(bundles.resolve('tiny'), folder)
    told = repr(bundles.load(folder))
    assert len(told) < 500 and '...' in told and 'my_tiny, size 64x128' in told, told


def test_a_future_is_shown_and_saved(futures, tmp_path):
    shown = futures[0]._repr_html_()
    assert shown.count('base64,') == 2 and '<video' in shown and '<img' in shown
    sheet = futures[0].sheet()
    assert sheet.height > 3 * 128 and sheet.width > 7 * 256
    futures[0].save(tmp_path / 'out')
    assert video.probe(tmp_path / 'out' / 'future.mp4').frames == 7
    np.testing.assert_array_equal(Image.open(tmp_path / 'out' / 'sheet.png'), sheet)
