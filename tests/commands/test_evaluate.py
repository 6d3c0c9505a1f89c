"""Evaluation: every number against a plain recomputation, whatever the batch size; and the
command.
"""

import importlib.util
import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from re2pix_jax.evaluation.judges import Judges

from re2pix_jax import bundles
from re2pix_jax.data import loader
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import model as evaluation
from re2pix_jax.evaluation import totals
from re2pix_jax.evaluation.evaluators import features, image
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.segmentation import Confusion
from re2pix_jax.evaluation.networks.lpips import LPIPS, AlexLPIPS
from re2pix_jax.generator import Generator
from re2pix_jax.heads import Head
from re2pix_jax.heads.dpt import DPTHead
from tests.commands.test_predict import stirred
from tests.conftest import MICRO, ROOT, SIZE, random_variables
from tests.running import outcomes

NO_PROBE = {'clips': 0, 'steps': 1, 'batch_size': 1}


def config(**changes):
    """configs/evaluate.py with little work, in this process."""
    spec = importlib.util.spec_from_file_location(
        'evaluate_config', ROOT / 'configs' / 'evaluate.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config()
    found.update(clips=5, horizon=2, batch_size=2, workers=0)
    found.probe.update(clips=6, steps=4, batch_size=2)
    found.update(changes)
    return found


@pytest.fixture(scope='module')
def model(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix'))


@pytest.fixture(scope='module')
def depth_head():
    net = DPTHead(classes=16, **MICRO['head'])
    params = random_variables(net, np.zeros((1, 4, 8, 96), np.float32))
    return Head(params=params, net=net, reads='depth', depth_range=(1.0, 100.0))


@pytest.fixture(scope='module')
def report(model, depth_head):
    return evaluation.evaluate(model, config(), Judges(heads={'depth': depth_head}))


@pytest.fixture(scope='module')
def clips():
    """The five held-out clips that the config names, as one batch of the loader's."""
    data = {
        'sources': ('world',),
        'split': 'validation',
        'size': SIZE,
        'frames': 6,
        'strides': (3,),
        'clips': 5,
    }
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
        # Other batch sizes may round 8-bit frames differently, which moves single pixels by one
        # level.
        assert first == pytest.approx(second, rel=2e-3, abs=2e-3), path
    else:
        assert first == second, path


def test_protocol_stands_beside_the_numbers(report):
    protocol = dict(report['protocol'])
    features = protocol.pop('features')
    assert protocol == {
        'source': 'world',
        'split': 'validation',
        'clips': 5,
        'start_frame': 0,
        'stride': 3,
        'fps': 17 / 3,
        'size': list(SIZE),
        'context_frames': 4,
        'horizon': 2,
        'sampler': 'euler',
        'sampler_steps': 2,
        'guidance': 0.0,
        'guidance_channels': 8,
        'channels': 0,
        'seed': 0,
        'probe': {'clips': 6, 'steps': 4, 'batch_size': 2, 'split': 'train'},
    }
    assert [(name, found['samples'], found['dimensions']) for name, found in features.items()] == [
        ('frechet_frames', 10, 64),
        ('frechet_video', 5, 64),
    ]
    assert all(len(found['sha256']) == 64 for found in features.values())
    json.dumps(report, allow_nan=False)


def test_copy_last_and_the_vae_by_hand(report, model, depth_head, clips):
    frames, labels = clips['frames'], clips['labels']
    reconstructed = np.asarray(model.vae.decode(model.vae.encode(frames)))
    components = np.asarray(model.forecaster.encode(frames))
    assert report['vae'] == {
        'reconstruction_psnr': pytest.approx(image.psnr(reconstructed, frames).mean(), abs=0.02),
        'frames': 30,
    }
    for step, row in enumerate(report['steps']):
        truth, last = frames[:, 4 + step], frames[:, 3]
        assert row['copy_last']['psnr'] == pytest.approx(image.psnr(last, truth).mean())
        assert row['copy_last']['ssim'] == pytest.approx(image.ssim(last, truth).mean(), abs=1e-5)
        assert row['vae']['psnr'] == pytest.approx(
            image.psnr(reconstructed[:, 4 + step], truth).mean(), abs=0.02
        )
        error = float(features.smooth_l1(components[:, 3], components[:, 4 + step]).mean())
        assert report['forecaster']['steps'][step]['copy_last'] == pytest.approx(error, rel=1e-3)
        for method, compared in (('copy_last', last), ('truth', truth)):
            guessed = model.segment(compared[:, None])[:, 0]
            scores = Confusion.create().update(labels[:, 4 + step], guessed).scores()
            assert row[method]['miou'] == pytest.approx(scores.miou, abs=1e-3)
            assert row[method]['moving_miou'] == pytest.approx(scores.moving_miou, abs=1e-3)
            seen = model.forecaster.features(model.forecaster.encode(compared[:, None]))
            scores = (
                DepthErrors.create()
                .update(clips['depth'][:, 4 + step], depth_head.depth(seen, SIZE)[:, 0])
                .scores()
            )
            assert row[method]['abs_rel'] == pytest.approx(scores.abs_rel, rel=1e-3)
            assert row[method]['delta1'] == pytest.approx(scores.delta1, abs=1e-3)


def test_the_model_by_hand(report, model, clips):
    """A clip's key is the seed's, folded with its record number; the head reads the predicted
    frame.
    """
    frames, labels = clips['frames'], clips['labels']
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(
        clips['record'].astype(np.uint32)
    )
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
        error = float(
            features.smooth_l1(out['components'][:, step], components[:, 4 + step]).mean()
        )
        assert stage['smooth_l1'] == pytest.approx(error, rel=1e-3)
        assert stage['ratio'] == pytest.approx(stage['smooth_l1'] / stage['copy_last'])
        seen = float(
            features.smooth_l1(
                model.forecaster.encode(out['frames'])[:, step], components[:, 4 + step]
            ).mean()
        )
        assert row['re2pix']['feature_error'] == pytest.approx(seen, rel=2e-3)


def plain_distance(one, other):
    """Fréchet distance of two sets [N, D], by the eigenvalues of the product of their
    covariances.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    covariances = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return (
        ((one.mean(0) - other.mean(0)) ** 2).sum()
        + np.trace(covariances[0])
        + np.trace(covariances[1])
        - 2 * roots
    )


def test_distances_in_the_encoders_features_by_hand(report, model, clips):
    """Each method's frames (10 of 64 numbers) and its one window of two frames a clip, against the
    true ones.
    """
    frames = clips['frames']
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(
        clips['record'].astype(np.uint32)
    )
    compared = {
        're2pix': model.rollout(frames[:, :4], keys, 2)['frames'],
        'copy_last': np.repeat(frames[:, 3:4], 2, 1),
        'vae': np.asarray(model.vae.decode(model.vae.encode(frames)))[:, 4:],
        'truth': frames[:, 4:],
    }
    leading = {
        name: np.asarray(model.forecaster.encode(np.concatenate([frames[:, 3:4], found], 1)))[
            ..., :32
        ]
        for name, found in compared.items()
    }

    def video(components):
        part = components[..., :8]
        values = [part[:, 1:], np.abs(np.diff(part, axis=1))]
        return np.concatenate(
            [half.mean((2, 3)) for kind in values for half in (kind[..., :4, :], kind[..., 4:, :])],
            -1,
        ).reshape(5, -1)

    described = {
        name: np.concatenate([found[:, 1:].mean((2, 3)), found[:, 1:].std((2, 3))], -1)
        for name, found in leading.items()
    }
    for method in ('re2pix', 'copy_last', 'vae'):
        expected = plain_distance(*(described[name].reshape(10, -1) for name in (method, 'truth')))
        assert report['distances']['frechet_frames'][method] == pytest.approx(expected, rel=5e-3)
        expected = plain_distance(*(video(leading[name]) for name in (method, 'truth')))
        assert report['distances']['frechet_video'][method] == pytest.approx(expected, rel=5e-3)
        for step, row in enumerate(report['steps']):
            expected = plain_distance(described[method][:, step], described['truth'][:, step])
            assert row[method]['frechet_frames'] == pytest.approx(expected, rel=5e-3)
    assert report['warnings'] == [
        f'{name}: {count} samples of 64 dimensions have a singular covariance: the distance is '
        'taken between what there is of it, and is '
        f'only comparable at this count; at least 65 samples are needed'
        for name, count in (('frechet_frames', 10), ('frechet_video', 5))
    ]


def test_windows_are_also_measured_one_by_one():
    """Six frames are two windows, the second from the third frame on: each against the true ones,
    at its last frame.
    """
    random, measured = np.random.default_rng(0), totals.Totals(6)
    sets = {
        method: random.normal(scale=scale, size=(40, 2, 5))
        for method, scale in (('truth', (1.0,)), ('re2pix', ((1.0,), (3.0,))))
    }
    for part in (slice(0, 16), slice(16, 40)):
        seen = {method: {'frechet_video': values[part]} for method, values in sets.items()}
        measured.add(seen, np.ones(part.stop - part.start, bool), 4)
    report = measured.report(5.0, True, [])
    found = [row['re2pix'].get('frechet_video') for row in report['steps']]
    assert found == [
        None,
        None,
        None,
        pytest.approx(plain_distance(sets['re2pix'][:, 0], sets['truth'][:, 0])),
        None,
        pytest.approx(plain_distance(sets['re2pix'][:, 1], sets['truth'][:, 1])),
    ]
    assert found[5] > 3 * found[3]
    together = plain_distance(*(sets[method].reshape(-1, 5) for method in ('re2pix', 'truth')))
    assert report['distances']['frechet_video'] == {'re2pix': pytest.approx(together)}


def test_the_head_and_both_probes_are_scored_over_all_steps(report, model, clips):
    encoded = model.forecaster.encoder.encode(clips['frames'])[:, 4:]
    guessed = model.head.labels(encoded, SIZE)
    expected = Confusion.create().update(clips['labels'][:, 4:], guessed).scores().to_dict()
    assert_close(report['head']['true_features'], expected)
    fitted = evaluation.fit_probes(model, config())
    for kind, one in fitted.items():
        scores = (
            Confusion.create()
            .update(clips['labels'][:, 4:], one.labels(encoded))
            .scores()
            .to_dict()
        )
        assert_close(report['encoder'][kind], scores)
    assert set(fitted) == {'probe_bilinear', 'probe_subpixel'}


class Means(flax.struct.PyTreeNode):
    """Stands for a network of FID, FVD or LPIPS, whose numbers are then known: features are means
    over space and time.
    """

    classes: int = flax.struct.field(pytree_node=False, default=2)

    def features(self, frames):
        means = jnp.asarray(frames, jnp.float32).mean((2, 3))
        return means if self.classes == 3 else means.mean(1)[..., : self.classes]

    def distance(self, frames, truth):
        return jnp.abs(frames.astype(jnp.float32) - truth).mean((2, 3, 4))


def test_a_baseline_without_head_and_references_through_networks(model, clips):
    """A generator without components, judged by stand-ins for the networks, and nothing that is the
    same for any generator.
    """
    net = model.generator.net.clone(components=0)
    latents = np.zeros((1, 4, 8, 16, 4), np.float32)
    generator = Generator(
        params=random_variables(net, latents, latents, np.zeros(1, np.float32)), net=net
    )
    plain = model.replace(head=None, generator=generator)
    origins = (
        ('inception', 'bundles/fid', 'a' * 64),
        ('i3d', 'bundles/fvd', 'b' * 64),
        ('lpips', 'bundles/lpips', 'c' * 64),
    )
    judges = Judges(
        networks={'inception': Means(3), 'i3d': Means(), 'lpips': Means()},
        origins=origins,
        left_out=('one reason',),
    )
    found = evaluation.evaluate(
        plain, config(clips=4, horizon=5, references=False, probe=NO_PROBE), judges
    )
    frames = next(
        loader.create(
            {
                'sources': ('world',),
                'split': 'validation',
                'size': SIZE,
                'frames': 9,
                'strides': (3,),
                'clips': 4,
            },
            4,
            training=False,
        )
    )['frames']
    keys = jax.vmap(lambda record: jax.random.fold_in(jax.random.key(0), record))(
        np.arange(4, dtype=np.uint32)
    )
    predicted = np.asarray(plain.rollout(frames[:, :4], keys, 5)['frames'])
    means = [values.mean((2, 3)) for values in (predicted, frames[:, 4:])]
    assert found['distances']['fid'] == {
        're2pix': pytest.approx(plain_distance(*(part.reshape(-1, 3) for part in means)), rel=1e-2)
    }
    whole = [np.concatenate([frames[:, :4].mean((2, 3)), part], 1).mean(1)[:, :2] for part in means]
    assert found['distances']['fvd'] == {'re2pix': pytest.approx(plain_distance(*whole), rel=1e-2)}
    for step, row in enumerate(found['steps']):
        assert row['re2pix']['lpips'] == pytest.approx(
            np.abs(predicted[:, step] - 1.0 * frames[:, 4 + step]).mean(), rel=1e-3
        )
        windows = (
            {'frechet_video'} if step >= 3 else set()
        )  # of the first four frames and of the last four
        assert (
            set(row['re2pix'])
            == {'psnr', 'ssim', 'feature_error', 'lpips', 'frechet_frames'} | windows
        )
        assert not row['copy_last'] and not row['vae']
    features = found['protocol']['features']
    assert features['fvd'] == {
        'network': 'bundles/fvd',
        'sha256': 'b' * 64,
        'dimensions': 2,
        'samples': 4,
        'sample': 'a clip of 4 context + 5 future frames each, resized to 224x224',
    }
    assert features['fid']['samples'] == 20 and features['frechet_video']['samples'] == 8
    assert found['left_out'] == ['one reason', 'mIoU: the model has no head for labels']
    assert found['head'] == {'true_features': None, 'true_principal_features': None}
    assert found['encoder'] == {'probe_bilinear': None, 'probe_subpixel': None}
    assert 'forecaster' not in found and 'vae' not in found
    text = evaluation.describe(found)
    for words in (
        'FID',
        'FVD',
        'LPIPS',
        'fvd: 4 samples of 2 dimensions, a clip of 4 context + 5 future frames each, resized to '
        '224x224; '
        'network bundles/fvd, sha256 bbbbbbbbbbbb',
        'left out: one reason',
    ):
        assert words in text
    assert 'mIoU %' not in text and 'copy' not in text.split('Fréchet distances')[1]


def test_fvd_of_too_few_frames_is_refused(model):
    with pytest.raises(
        UserError,
        match='FVD: clips of 6 frames, .*I3D takes at least 9, usual are 16: lengthen the horizon '
        'by 3',
    ):
        evaluation.evaluate(model, config(probe=NO_PROBE), Judges(networks={'i3d': Means()}))


def test_what_measures_frames_is_loaded_or_named(model, depth_head, micro_bundles, tmp_path):
    bundles.save(tmp_path / 'depth', depth_head)
    lpips = AlexLPIPS()
    images = np.zeros((1, 32, 32, 3), np.float32)
    bundles.save(
        tmp_path / 'lpips',
        LPIPS(random_variables(lpips, images, images), lpips),
        about={'sha256': 'd' * 64},
    )
    found = Judges.load(
        config(
            heads={'depth': str(tmp_path / 'depth')},
            lpips=str(tmp_path / 'lpips'),
            i3d=str(tmp_path / 'nothing'),
        )
    )
    assert set(found.heads) == {'depth'} and set(found.networks) == {'lpips'}
    assert found.origins == (('lpips', str(tmp_path / 'lpips'), 'd' * 64),)
    assert found.left_out == (
        "FID: config.inception = '' names no bundle; make one by `convert inception` from "
        'pt_inception-2015-12-05-6726825d.pth of '
        'pytorch-fid',
        f"FVD: config.i3d = '{tmp_path}/nothing' names no bundle; make one by `convert i3d` from "
        'rgb_imagenet.pt of pytorch-i3d',
    )
    assert set(found.fitting(model, config()).heads) == {'depth', 'segmentation'}
    other = Judges(
        heads={
            'depth': depth_head.replace(
                params=random_variables(depth_head.net, np.zeros((1, 4, 8, 64), np.float32))
            )
        }
    )
    fitted = other.fitting(model, config())
    assert set(fitted.heads) == {'segmentation'}
    assert fitted.left_out == (
        "depth errors: config.heads.depth = 'tiny/depth' takes features of 64 channels and the "
        "model's encoder "
        'gives 96; name a head that was trained for it',
    )
    with pytest.raises(
        UserError, match='config.heads.depth: reads segmentation; expected a head that reads depth'
    ):
        Judges(heads={'depth': model.head}).fitting(model, config())
    with pytest.raises(UserError, match='holds kind head, where kind inception is needed'):
        Judges.load(config(inception=str(micro_bundles / 'head')))
    none = Judges.load(config(heads={'depth': ''})).left_out
    assert len(none) == 4 and none[0].startswith(
        "depth errors: config.heads.depth = '' names no bundle of a depth head; train one"
    )


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
    protocol = (
        'micro on 5 clips of world, split validation',
        'stride 3',
        '32x64 pixels',
        '2 sampler steps',
        'seed 0',
    )
    for words in (
        *protocol,
        'PSNR of reconstruction (30 frames)',
        'linear probe, logits a patch',
        'ratio',
        '+0.35 s',
    ):
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
        ({'channels': -1}, 'config.channels = -1: expected none below 0'),
        ({'guidance_channels': 0}, 'config.guidance_channels = 0: expected at least 1'),
        (
            {'probe': {'clips': 2, 'steps': 0, 'batch_size': 1}},
            'config.probe = .*expected at least 1 step',
        ),
        ({'horizon': 20}, '30 frames at 17 frames per second are too few'),
        ({'split': 'night'}, "split 'night': the world has train, validation, test"),
        ({'source': 'records:/none'}, '/none: no prepared clips there'),
    ],
)
def test_settings_that_cannot_work_are_named(model, changes, message):
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(model, config(**{'probe': NO_PROBE} | changes))


def test_the_command_on_eight_devices(model, depth_head, report, tmp_path):
    """One batch of eight, a clip a device, gives the numbers of batches of two on one; with worker
    processes, as it is used.
    """
    bundles.save(tmp_path / 'model', model)
    bundles.save(tmp_path / 'depth', depth_head)
    settings = [
        '--config.clips=5',
        '--config.horizon=2',
        '--config.batch_size=8',
        '--config.probe.clips=0',
        f'--config.heads.depth={tmp_path}/depth',
    ]
    commands = {
        'run': [
            '--config=configs/evaluate.py',
            *settings,
            f'--config.model={tmp_path}/model',
            f'--workdir={tmp_path}/run',
        ],
        'none': [
            '--config=configs/evaluate.py',
            '--config.model=none',
            f'--workdir={tmp_path}/other',
        ],
    }
    done = outcomes('evaluate', commands, XLA_FLAGS='--xla_force_host_platform_device_count=8')
    status, out, err = done['run']
    assert status == 0, err
    assert sorted(file.name for file in (tmp_path / 'run').iterdir()) == [
        'metrics.json',
        'metrics.txt',
    ]
    found = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    assert found.pop('model') == f'{tmp_path}/model' and found['protocol']['clips'] == 5
    assert [line.split(':')[0] for line in found['left_out']] == ['FID', 'FVD', 'LPIPS']
    compared = ('vae', 'head', 'forecaster', 'steps', 'distances', 'warnings')
    assert_close(
        *({name: one[name] for name in compared} for one in (found, json.loads(json.dumps(report))))
    )
    assert (tmp_path / 'run' / 'metrics.txt').read_text().strip() in out
    assert 'evaluate: 5/5 clips' in err
    status, _, err = done['none']
    assert status == 2 and err.startswith('error: none: no such model') and err.count('\n') == 1
    assert not (tmp_path / 'other').exists()
