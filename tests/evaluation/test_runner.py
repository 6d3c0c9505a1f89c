"""The one evaluation: an evaluator of one's own, clips that cannot be read, encoded clips."""

import contextlib
import pathlib

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles, evaluation
from re2pix_jax.data import frame_records, prepare, records
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import evaluators
from re2pix_jax.evaluation.evaluators import components as component_errors
from re2pix_jax.evaluation.evaluators import image
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.means import FrameMeans
from re2pix_jax.training import defaults
from tests.conftest import SIZE

CLIPS = 6


@pytest.fixture(scope='module')
def forecaster(micro_bundles):
    return bundles.load(micro_bundles / 'forecaster')


def run(part, evals, source, batch_size=4, **changes):
    data = defaults.data('validation')
    fixed = {'size': SIZE, 'frames': 6, 'strides': (3,), 'workers': 0, 'clips': CLIPS}
    with data.ignore_type():
        data.update({'sources': (source,), **fixed, **changes})
    with contextlib.closing(evaluation.open(evals, data, batch_size)) as opened:
        return opened.run(part)


@flax.struct.dataclass
class Brightnesses(FrameMeans):
    NAMES = ('brightness',)

    def update(self, frames, known):
        mean = frames.astype(jnp.float32).mean((1, 2, 3))
        return self.add({'brightness': mean}, known.astype(jnp.int32))


class Brightness(Evaluator):
    COLUMNS = (Column('brightness', 'brightness', digits=1),)
    METHODS = ('truth', 'copy_last')

    def measure(self, parts, view, views, batch):
        known = batch['known'][:, None].repeat(view.frames.shape[1], 1)
        return by_step(Brightnesses.empty().update, view.frames, known)


def test_an_evaluator_is_a_class_and_a_line(forecaster, monkeypatch):
    monkeypatch.setitem(evaluators.TYPES, 'brightness', Brightness)
    found = run(forecaster, {'mine': {'type': 'brightness'}}, 'world')
    clips = World('validation', CLIPS, 30, SIZE)
    frames = np.stack([clips.read(k, range(0, 18, 3))['frames'] for k in range(CLIPS)])
    expected = frames.astype(float).mean((2, 3, 4))
    truth = found.overall['truth']['brightness']
    assert truth == pytest.approx(expected[:, 4:].mean(), rel=1e-6)
    by_step = [row['truth']['brightness'] for row in found.steps]
    assert by_step == pytest.approx(expected[:, 4:].mean(0).tolist(), rel=1e-6)
    copied = found.overall['copy_last']['brightness']
    assert copied == pytest.approx(expected[:, 3].mean(), rel=1e-6)
    only = run(forecaster, {'mine': {'type': 'brightness', 'methods': ('truth',)}}, 'world')
    assert only.overall == {'truth': {'brightness': truth}}


@pytest.mark.long
def test_the_mean_map_is_that_of_the_compared_frames(forecaster):
    asked = {'components': {'type': 'components', 'mean_clips': 5, 'cosine': True}}
    found = run(forecaster, asked, 'world', batch_size=4, frames=7)
    world = World('validation', CLIPS, 30, SIZE)
    frames = np.stack([world.read(k, range(0, 21, 3))['frames'] for k in range(CLIPS)])
    future = np.asarray(forecaster.encode(frames)[:, 4:], np.float64)
    mean = future[:5].mean((0, 1))
    distance = abs(future - mean)
    expected = np.where(distance < 0.1, 5 * distance**2, distance - 0.05).mean((0, 2, 3, 4))
    by_step = [row['mean_map']['feature_error'] for row in found.steps]
    np.testing.assert_allclose(by_step, expected, rtol=1e-4)
    true, maps = forecaster.features(future.astype(np.float32)), forecaster.features(mean)
    cosines = component_errors.cosine(np.broadcast_to(maps, true.shape), true)
    assert found.overall['mean_map']['cosine'] == pytest.approx(float(cosines.mean()), rel=1e-4)
    assert found.about == {'components': {'clips_of_mean_map': 5}}
    without = run(forecaster, {'components': {'type': 'components'}}, 'world', frames=7)
    assert set(without.overall) == {'forecast', 'copy_last'} and not without.about
    with pytest.raises(UserError, match='mean_clips = -1: expected the number of clips'):
        run(forecaster, {'components': {'type': 'components', 'mean_clips': -1}}, 'world')


def damaged(folder):
    """Prepared clips of which some cannot be read, and the numbers of the others."""
    frame_records.write_frames(folder, {'validation': World('validation', CLIPS, 18, SIZE)})
    file = next(pathlib.Path(folder).glob('*.array_record*'))
    content = np.frombuffer(file.read_bytes(), np.uint8).copy()
    written = np.flatnonzero(content)
    content[written[len(written) // 4] : written[len(written) // 2]] = 0
    file.write_bytes(content)
    clips, readable = records.Records(folder, 'validation'), []
    for index in range(CLIPS):
        with contextlib.suppress(UserError):
            clips.read(index, range(0, 18, 3))
            readable.append(index)
    assert 0 < len(readable) < CLIPS
    return readable


@pytest.mark.long
def test_clips_that_cannot_be_read_count_for_nothing(forecaster, tmp_path):
    readable = damaged(tmp_path / 'clips')
    evals = {
        'image': {'type': 'image'},
        'components': {'type': 'components', 'mean_clips': CLIPS},
    }
    source = f'records:{tmp_path}/clips'
    with pytest.raises(UserError, match="can't be read"):
        run(forecaster, evals, source)
    found = run(forecaster, evals, source, unreadable='skip')
    clips = records.Records(tmp_path / 'clips', 'validation')
    frames = np.stack([clips.read(k, range(0, 18, 3))['frames'] for k in readable])
    truth, last = frames[:, 4:], frames[:, 3:4].repeat(2, 1)
    expected = float(np.mean(image.psnr(last, truth)))
    assert found.overall['copy_last']['psnr'] == pytest.approx(expected, rel=1e-5)
    future = np.asarray(forecaster.encode(frames)[:, 4:])
    mean = np.broadcast_to(future.mean((0, 1)), future.shape)
    expected = float(np.mean(component_errors.smooth_l1(mean, future)))
    assert found.overall['mean_map']['feature_error'] == pytest.approx(expected, rel=1e-4)


@pytest.mark.long
def test_encoded_clips_are_measured_in_components_and_latents(micro_bundles, tmp_path):
    names = ('encoder', 'principal', 'vae')
    parts = {name: bundles.load(micro_bundles / name) for name in names}
    digests = {name: bundles.digest(micro_bundles / name) for name in names}
    frame_records.write_frames(
        tmp_path / 'clips', {'validation': World('validation', CLIPS, 18, SIZE)}
    )
    prepare.encode(
        tmp_path / 'encoded', f'records:{tmp_path}/clips', parts, digests, ('validation',), SIZE
    )
    model = bundles.load(micro_bundles / 're2pix')
    evals = {name: {'type': name} for name in ('components', 'latents', 'image')}
    of_frames, of_features = (
        run(model, evals, f'{kind}:{tmp_path}/{folder}')
        for kind, folder in (('records', 'clips'), ('encoded', 'encoded'))
    )
    assert any(line.startswith('PSNR dB, SSIM: ') for line in of_features.left_out)
    clips = World('validation', CLIPS, 18, SIZE)
    frames = np.stack([clips.read(k, range(0, 18, 3))['frames'] for k in range(CLIPS)])
    features = np.asarray(model.forecaster.encode(frames))
    last = features[:, 3:4].repeat(2, 1)
    expected = float(np.mean(component_errors.smooth_l1(last, features[:, 4:])))
    for found in (of_frames, of_features):
        copied = found.overall['copy_last']
        assert copied['feature_error'] == pytest.approx(expected, rel=3e-3)
        assert 'latent_error' in copied
    for method, name in (('forecast', 'feature_error'), ('re2pix', 'latent_error')):
        one, other = (found.overall[method][name] for found in (of_frames, of_features))
        assert one == pytest.approx(other, rel=1e-2)  # encoded clips are kept in float16
