"""Evaluation: every number against a plain recomputation, whatever the batch size; and the command."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from re2pix_jax import weights
from re2pix_jax.clips import loader
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import model as evaluation
from re2pix_jax.metrics import features, image
from re2pix_jax.metrics.segmentation import Confusion
from tests.conftest import ROOT, SIZE
from tests.test_predict import stirred

NO_PROBE = {'clips': 0, 'steps': 1, 'batch_size': 1}


def config(**changes):
    """configs/evaluate.py with little work, in this process."""
    spec = importlib.util.spec_from_file_location('evaluate_config', ROOT / 'configs' / 'evaluate.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config()
    found.update(clips=5, horizon=2, batch_size=2, workers=0)
    found.probe.update(clips=6, steps=4, batch_size=2)
    found.update(changes)
    return found


@pytest.fixture(scope='module')
def model(micro_bundles):
    return stirred(weights.load(micro_bundles / 're2pix'))


@pytest.fixture(scope='module')
def report(model):
    return evaluation.evaluate(model, config())


@pytest.fixture(scope='module')
def clips():
    """The five held-out clips that the config names, as one batch of the loader's."""
    data = {'sources': ('world',), 'split': 'validation', 'size': SIZE, 'frames': 6, 'strides': (3,), 'clips': 5}
    return next(loader.create(data, 5, training=False))


def assert_close(first, second, path=''):
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for name in first:
            assert_close(first[name], second[name], f'{path}/{name}')
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_close(*pair, f'{path}/{number}')
    elif isinstance(first, float):
        # Other batch sizes may round 8-bit frames differently, which moves single pixels by one level.
        assert first == pytest.approx(second, rel=2e-3, abs=2e-3), path
    else:
        assert first == second, path


def test_batch_size_does_not_matter(report, model):
    """Five clips in batches of 2 + 2 + 1 and of 3 + 2."""
    assert_close(report, evaluation.evaluate(model, config(batch_size=3)))


def test_protocol_stands_beside_the_numbers(report):
    protocol = dict(report['protocol'])
    features = protocol.pop('features')
    assert protocol == {
        'source': 'world', 'split': 'validation', 'clips': 5, 'start_frame': 0, 'stride': 3, 'fps': 17 / 3,
        'size': list(SIZE), 'context_frames': 4, 'horizon': 2, 'sampler_steps': 2, 'guidance': 0.0, 'guidance_channels': 8, 'channels': 0,
        'seed': 0,
        'probe': {'clips': 6, 'steps': 4, 'batch_size': 2, 'split': 'train'}}
    assert [(name, found['samples'], found['dimensions']) for name, found in features.items()] == [
        ('frechet_frames', 10, 64), ('frechet_video', 5, 64)]
    assert all(len(found['sha256']) == 64 for found in features.values())
    json.dumps(report, allow_nan=False)


def test_copy_last_and_the_vae_by_hand(report, model, clips):
    frames, labels = clips['frames'], clips['labels']
    reconstructed = np.asarray(model.vae.decode(model.vae.encode(frames)))
    components = np.asarray(model.forecaster.encode(frames))
    assert report['vae'] == {
        'reconstruction_psnr': pytest.approx(image.psnr(reconstructed, frames).mean(), abs=0.02), 'frames': 30}
    for step, row in enumerate(report['steps']):
        truth, last = frames[:, 4 + step], frames[:, 3]
        assert row['copy_last']['psnr'] == pytest.approx(image.psnr(last, truth).mean())
        assert row['copy_last']['ssim'] == pytest.approx(image.ssim(last, truth).mean(), abs=1e-5)
        assert row['vae']['psnr'] == pytest.approx(image.psnr(reconstructed[:, 4 + step], truth).mean(), abs=0.02)
        error = float(features.smooth_l1(components[:, 3], components[:, 4 + step]).mean())
        assert report['forecaster']['steps'][step]['copy_last'] == pytest.approx(error, rel=1e-3)
        for method, compared in (('copy_last', last), ('truth', truth)):
            guessed = model.segment(compared[:, None])[:, 0]
            scores = Confusion.create().update(labels[:, 4 + step], guessed).scores()
            assert row[method]['miou'] == pytest.approx(scores.miou, abs=1e-3)
            assert row[method]['moving_miou'] == pytest.approx(scores.moving_miou, abs=1e-3)


def test_the_model_by_hand(report, model, clips):
    """A clip's key is the seed's, folded with its record number; the head reads the predicted frame."""
    frames, labels = clips['frames'], clips['labels']
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(clips['record'].astype(np.uint32))
    out = model.rollout(frames[:, :4], keys, 2)
    components = np.asarray(model.forecaster.encode(frames))
    for step, row in enumerate(report['steps']):
        truth = frames[:, 4 + step]
        predicted = np.asarray(out['frames'])[:, step]
        assert row['re2pix']['psnr'] == pytest.approx(image.psnr(predicted, truth).mean(), abs=0.02)
        guessed = model.segment(predicted[:, None])[:, 0]
        scores = Confusion.create().update(labels[:, 4 + step], guessed).scores()
        assert row['re2pix']['miou'] == pytest.approx(scores.miou, abs=2e-3)
        stage = report['forecaster']['steps'][step]
        error = float(features.smooth_l1(out['components'][:, step], components[:, 4 + step]).mean())
        assert stage['smooth_l1'] == pytest.approx(error, rel=1e-3)
        assert stage['ratio'] == pytest.approx(stage['smooth_l1'] / stage['copy_last'])
        seen = float(features.smooth_l1(model.forecaster.encode(out['frames'])[:, step], components[:, 4 + step]).mean())
        assert row['re2pix']['feature_error'] == pytest.approx(seen, rel=2e-3)


def plain_distance(one, other):
    """Fréchet distance of two sets [N, D], by the eigenvalues of the product of their covariances."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return ((one.mean(0) - other.mean(0))**2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * roots


def test_distances_in_the_encoders_features_by_hand(report, model, clips):
    """Each method's frames (10 of 64 numbers) and its one window of two frames a clip, against the true ones."""
    frames = clips['frames']
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(clips['record'].astype(np.uint32))
    compared = {'re2pix': model.rollout(frames[:, :4], keys, 2)['frames'], 'copy_last': np.repeat(frames[:, 3:4], 2, 1),
                'vae': np.asarray(model.vae.decode(model.vae.encode(frames)))[:, 4:], 'truth': frames[:, 4:]}
    leading = {name: np.asarray(model.forecaster.encode(np.concatenate([frames[:, 3:4], found], 1)))[..., :32]
               for name, found in compared.items()}

    def video(components):
        part = components[..., :8]
        values = [part[:, 1:], np.abs(np.diff(part, axis=1))]
        return np.concatenate([half.mean((2, 3)) for kind in values for half in (kind[..., :4, :], kind[..., 4:, :])], -1).reshape(5, -1)

    described = {name: np.concatenate([found[:, 1:].mean((2, 3)), found[:, 1:].std((2, 3))], -1) for name, found in leading.items()}
    for method in ('re2pix', 'copy_last', 'vae'):
        expected = plain_distance(*(described[name].reshape(10, -1) for name in (method, 'truth')))
        assert report['distances']['frechet_frames'][method] == pytest.approx(expected, rel=5e-3)
        expected = plain_distance(*(video(leading[name]) for name in (method, 'truth')))
        assert report['distances']['frechet_video'][method] == pytest.approx(expected, rel=5e-3)
        for step, row in enumerate(report['steps']):
            expected = plain_distance(described[method][:, step], described['truth'][:, step])
            assert row[method]['frechet_frames'] == pytest.approx(expected, rel=5e-3)
    assert report['warnings'] == [
        f'{name}: {count} samples of 64 dimensions have a singular covariance: the distance is taken between what there is of it, and is '
        f'only comparable at this count; at least 65 samples are needed' for name, count in (('frechet_frames', 10), ('frechet_video', 5))]


def test_the_head_and_both_probes_are_scored_over_all_steps(report, model, clips):
    encoded = model.forecaster.encoder.encode(clips['frames'])[:, 4:]
    guessed = model.head.labels(encoded, SIZE)
    expected = Confusion.create().update(clips['labels'][:, 4:], guessed).scores().to_dict()
    assert_close(report['head']['true_features'], expected)
    fitted = evaluation.fit_probes(model, config())
    for kind, one in fitted.items():
        scores = Confusion.create().update(clips['labels'][:, 4:], one.labels(encoded)).scores().to_dict()
        assert_close(report['encoder'][kind], scores)
    assert set(fitted) == {'probe_bilinear', 'probe_subpixel'}


def test_a_model_without_a_head_has_no_miou(model):
    found = evaluation.evaluate(model.replace(head=None), config(clips=2, probe=NO_PROBE))
    assert found['head'] == {'true_features': None, 'true_principal_features': None}
    assert found['encoder'] == {'probe_bilinear': None, 'probe_subpixel': None}
    assert all('miou' not in row['re2pix'] for row in found['steps'])
    assert 'mIoU' not in evaluation.describe(found)


def test_a_forecaster_by_itself_has_the_same_errors(report, model):
    found = evaluation.evaluate(model.forecaster, config(probe=NO_PROBE))
    assert found['protocol']['size'] == list(SIZE) and found['protocol']['stride'] == 3
    for row, whole in zip(found['forecaster']['steps'], report['forecaster']['steps'], strict=True):
        assert row['smooth_l1'] == pytest.approx(whole['smooth_l1'], rel=1e-4)
        assert row['copy_last'] == pytest.approx(whole['copy_last'], rel=1e-4)
        assert row['miou'] is None
    assert 'steps' not in found and 'vae' not in found
    assert 'Predicted frames' not in evaluation.describe(found)


def test_the_text_names_protocol_stages_and_steps(report):
    text = evaluation.describe({'model': 'micro'} | report)
    protocol = ('micro on 5 clips of world, split validation', 'stride 3', '32x64 pixels', '2 sampler steps', 'seed 0')
    for words in (*protocol, 'PSNR of reconstruction (30 frames)', 'linear probe, logits a patch', 'ratio', '+0.35 s'):
        assert words in text
    assert f'{report["steps"][1]["copy_last"]["psnr"]:.2f}' in text


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'clips': 0}, 'config.clips = 0: expected at least 1'),
        ({'horizon': 0}, 'config.horizon = 0: expected at least 1'),
        ({'batch_size': 0}, 'config.batch_size = 0: expected at least 1'),
        ({'guidance': -1.0}, 'config.guidance = -1.0'),
        ({'sampler_steps': -1}, 'config.sampler_steps = -1'),
        ({'probe': {'clips': 2, 'steps': 0, 'batch_size': 1}}, 'config.probe = .*expected at least 1 step'),
        ({'horizon': 20}, '30 frames at 17 frames per second are too few'),
        ({'split': 'night'}, "split 'night': the world has train, validation, test"),
        ({'source': 'records:/none'}, '/none: no prepared clips there'),
    ],
)
def test_settings_that_cannot_work_are_named(model, changes, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(model, config(**{'probe': NO_PROBE} | changes))


def test_the_command(micro_bundles, tmp_path):
    """With worker processes, as it is used; and a model that does not exist."""
    command = [sys.executable, '-m', 're2pix_jax.evaluate', '--config=configs/evaluate.py']
    little = ['--config.clips=3', '--config.horizon=1', '--config.batch_size=2', '--config.probe.clips=2',
              '--config.probe.steps=2', f'--config.model={micro_bundles}/re2pix', f'--workdir={tmp_path}/run']
    environment = os.environ | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}  # compiles several times faster
    done = subprocess.run(
        [*command, *little], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / 'run').iterdir()) == ['metrics.json', 'metrics.txt']
    report = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    assert report['model'] == f'{micro_bundles}/re2pix' and report['protocol']['clips'] == 3
    assert (tmp_path / 'run' / 'metrics.txt').read_text().strip() in done.stdout
    assert 'evaluate: 3/3 clips' in done.stderr
    done = subprocess.run([*command, '--config.model=none', f'--workdir={tmp_path}/other'],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: none: no such model') and done.stderr.count('\n') == 1
    assert not (tmp_path / 'other').exists()
