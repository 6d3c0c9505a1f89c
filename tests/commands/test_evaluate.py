"""Evaluation: every number against a plain recomputation, whatever the batch size; and the
command.
"""

import json

import jax
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.data import loader
from re2pix_jax.evaluation import held_out, tables
from re2pix_jax.evaluation.evaluators import components as component_errors
from re2pix_jax.evaluation.evaluators import image
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.segmentation import Confusion
from tests.commands import stage1
from tests.commands.test_predict import stirred
from tests.conftest import SIZE, load_config
from tests.running import environment, outcomes


def config(depth='', probe=True, **changes):
    """configs/evaluate.py with little work; depth: bundle of a head."""
    found = load_config('evaluate')
    if depth:
        found.evals.depth.head = str(depth)
    else:
        del found.evals.depth
    if probe:
        found.evals.probe.update(clips=6, steps=4, batch_size=2)
    else:
        del found.evals.probe
    found.update({'clips': 5, 'horizon': 2, 'batch_size': 2, 'workers': 0} | changes)
    return found


@pytest.fixture(scope='module')
def model(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix'))


@pytest.fixture(scope='module')
def depth(tmp_path_factory):
    path = tmp_path_factory.mktemp('head') / 'depth'
    bundles.save(path, stage1.head('depth'))
    return path


@pytest.fixture(scope='module')
def report(model, depth):
    return held_out.evaluate(model, config(depth))[0]['']


@pytest.fixture(scope='module')
def clips():
    """The five held-out clips that the config names, as one batch of the loader's."""
    return held_out_clips(5, 6)


def held_out_clips(count, frames):
    data = {'sources': ('world',), 'split': 'validation', 'size': SIZE, 'strides': (3,)}
    return next(loader.create({**data, 'frames': frames, 'clips': count}, count, training=False))


def rollout(model, frames, horizon):
    """A clip's key is the seed's, folded with its record number."""
    records = np.arange(len(frames), dtype=np.uint32)
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(records)
    return model.rollout(frames[:, :4], keys, horizon)


def smooth_l1(one, other):
    return float(component_errors.smooth_l1(one, other).mean())


def test_protocol_stands_beside_the_numbers(report):
    protocol = dict(report['protocol'])
    evals = protocol.pop('evals')
    assert protocol == {
        'model': config().model,
        'source': 'world',
        'split': 'validation',
        'clips': 5,
        'start_frame': 0,
        'window': 'start',
        'target': [],
        'context': [],
        'stride': 3,
        'fps': 17 / 3,
        'rates': (),
        'size': list(SIZE),
        'label_size': list(SIZE),
        'context_frames': 4,
        'horizon': 2,
        'last': False,
        'sampler': 'euler',
        'sampler_steps': 2,
        'sampler_grid': 'even',
        'context_noise': 0.0,
        'guidance': 0.0,
        'guidance_channels': 8,
        'channels': 0,
        'seed': 0,
        'name': '',
        'departures': [],
        'dataset': 'world',
        'contents': '',
    }
    assert evals['probe'] == {'clips': 6, 'steps': 4, 'batch_size': 2, 'split': 'train'}
    for name, samples in (('frames', 10), ('video', 5)):
        assert (evals[name]['samples'], evals[name]['dimensions']) == (samples, 64)
    assert all(len(evals[name]['sha256']) == 64 for name in ('frames', 'video', 'depth'))
    json.dumps(report, allow_nan=False)


def test_copy_last_and_the_vae_by_hand(report, model, depth, clips):
    frames, labels, head = clips['frames'], clips['labels'], bundles.load(depth)
    reconstructed = np.asarray(model.vae.decode(model.vae.encode(frames)))
    components = np.asarray(model.forecaster.encode(frames))
    expected = float(image.psnr(reconstructed, frames).mean())
    assert report['overall']['vae']['reconstruction_psnr'] == pytest.approx(expected, abs=0.02)
    for step, row in enumerate(report['steps']):
        truth, last = frames[:, 4 + step], frames[:, 3]
        copied = row['copy_last']
        assert copied['psnr'] == pytest.approx(float(image.psnr(last, truth).mean()))
        assert copied['ssim'] == pytest.approx(float(image.ssim(last, truth).mean()), abs=1e-5)
        expected = float(image.psnr(reconstructed[:, 4 + step], truth).mean())
        assert row['vae']['psnr'] == pytest.approx(expected, abs=0.02)
        error = smooth_l1(components[:, 3], components[:, 4 + step])
        assert copied['feature_error'] == pytest.approx(error, rel=1e-3)
        for method, compared in (('copy_last', last), ('truth', truth)):
            guessed = model.segment(compared[:, None])[:, 0]
            scores = Confusion.empty().update(labels[:, 4 + step], guessed).compute()
            assert row[method]['miou'] == pytest.approx(scores.miou, abs=1e-3)
            assert row[method]['moving_miou'] == pytest.approx(scores.moving_miou, abs=1e-3)
            features = model.forecaster.features(model.forecaster.encode(compared[:, None]))
            read = head.depth(features, SIZE)[:, 0]
            scores = DepthErrors.empty().update(clips['depth'][:, 4 + step], read).compute()
            assert row[method]['abs_rel'] == pytest.approx(scores['abs_rel'], rel=1e-3)
            assert row[method]['delta1'] == pytest.approx(scores['delta1'], abs=1e-3)
            assert 'rmse' not in row[method]  # the config asks for two columns


def test_the_model_by_hand(report, model, clips):
    """The head reads the predicted frame."""
    frames, labels = clips['frames'], clips['labels']
    out = rollout(model, frames, 2)
    components = np.asarray(model.forecaster.encode(frames))
    for step, row in enumerate(report['steps']):
        truth = frames[:, 4 + step]
        predicted = np.asarray(out['frames'])[:, step]
        expected = float(image.psnr(predicted, truth).mean())
        assert row['re2pix']['psnr'] == pytest.approx(expected, abs=0.02)
        guessed = model.segment(predicted[:, None])[:, 0]
        scores = Confusion.empty().update(labels[:, 4 + step], guessed).compute()
        assert row['re2pix']['miou'] == pytest.approx(scores.miou, abs=2e-3)
        stage = row['forecast']
        error = smooth_l1(out['components'][:, step], components[:, 4 + step])
        assert stage['feature_error'] == pytest.approx(error, rel=1e-3)
        ratio = error / smooth_l1(components[:, 3], components[:, 4 + step])
        assert stage['error_ratio'] == pytest.approx(ratio, rel=2e-3)
        encoded = model.forecaster.encode(out['frames'])[:, step]
        error = smooth_l1(encoded, components[:, 4 + step])
        assert row['re2pix']['feature_error'] == pytest.approx(error, rel=2e-3)


def test_the_head_and_both_probes_are_scored_over_all_steps(report, model, clips):
    encoded = model.forecaster.encoder.encode(clips['frames'])[:, 4:]
    labels = clips['labels'][:, 4:]
    scores = Confusion.empty().update(labels, model.head.labels(encoded, SIZE)).compute()
    found = report['overall']['encoder']
    assert found['miou'] == pytest.approx(scores.miou, abs=2e-3)
    assert {'probe_bilinear', 'probe_subpixel'} <= found.keys()
    assert all(0 < found[f'probe_{kind}'] < 1 for kind in ('bilinear', 'subpixel'))


def test_a_forecaster_by_itself_has_the_same_errors(report, model):
    found = held_out.evaluate(model.forecaster, config(probe=False))[0]['']
    assert found['protocol']['size'] == list(SIZE) and found['protocol']['stride'] == 3
    for row, of_model in zip(found['steps'], report['steps'], strict=True):
        for name, value in row['forecast'].items():
            assert value == pytest.approx(of_model['forecast'][name], rel=1e-4)
    assert not {'re2pix', 'vae'} & found['overall'].keys()
    assert 'reconstruction' not in tables.by_method(found['overall'])


def test_the_text_names_protocol_and_steps(report):
    text = tables.describe(report)
    for words in (
        'on 5 clips of world, split validation',
        'at stride 3',
        '32x64 pixels',
        '2 sampler steps (euler, even grid)',
        'seed 0',
        'PSNR of reconstruction dB',
        'mIoU of linear probe, logits a patch',
        '+0.35 s',
        'left out: FID: ',
    ):
        assert words in text, words
    assert f'{report["steps"][1]["copy_last"]["psnr"]:.2f}' in text


@pytest.mark.slow
def test_the_command_on_eight_devices(model, depth, report, tmp_path):
    """One batch of eight, a clip a device, gives the numbers of batches of two on one; with worker
    processes, as it is used.
    """
    bundles.save(tmp_path / 'model', model)
    command = [
        '--config=evaluate',
        '--config.clips=5',
        '--config.horizon=2',
        '--config.batch_size=8',
        '--config.evals.probe.clips=6',
        '--config.evals.probe.steps=4',
        '--config.evals.probe.batch_size=2',
        f'--config.evals.depth.head={depth}',
        f'--config.model={tmp_path}/model',
        f'--workdir={tmp_path}/run',
    ]
    other = ['--config=evaluate', '--config.model=none', f'--workdir={tmp_path}/other']
    done = outcomes('evaluate', {'run': command, 'none': other}, **environment(8))
    status, out, err = done['run']
    assert status == 0, err
    written = sorted(file.name for file in (tmp_path / 'run').iterdir())
    assert written == ['metrics.json', 'metrics.txt']
    found = json.loads((tmp_path / 'run' / 'metrics.json').read_text())['']
    assert found['protocol']['model'] == f'{tmp_path}/model'
    assert [line.split(':')[0] for line in found['left_out']] == ['FID', 'FVD', 'LPIPS']
    assert found['overall'].keys() == report['overall'].keys()
    for method, columns in found['overall'].items():
        # Other batch sizes may round 8-bit frames differently, which moves single pixels by one.
        assert columns == pytest.approx(report['overall'][method], rel=3e-3, abs=3e-3), method
    assert (tmp_path / 'run' / 'metrics.txt').read_text().strip() in out
    assert 'evaluate: 5/5 clips' in err
    status, _, err = done['none']
    assert status == 2 and err.startswith('error: none: no such model') and err.count('\n') == 1
    assert not (tmp_path / 'other').exists()
