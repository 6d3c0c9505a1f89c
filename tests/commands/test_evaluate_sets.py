"""Evaluation of sets of frames and videos, networks that are not at hand, and what is refused."""

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import compatibility, held_out, tables
from re2pix_jax.evaluation.networks.lpips import LPIPS, AlexLPIPS
from re2pix_jax.generator import Generator
from tests.commands.test_evaluate import config, held_out_clips, rollout
from tests.commands.test_predict import stirred
from tests.conftest import random_variables


@pytest.fixture(scope='module')
def model(micro_bundles):
    return stirred(bundles.load(micro_bundles / 're2pix'))


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


@pytest.mark.long
def test_distances_in_the_encoders_features_by_hand(model):
    """Each method's frames (10 of 64 numbers) and its one window of two frames a clip, against the
    true ones.
    """
    frames = held_out_clips(5, 6)['frames']
    asked = config(probe=False)
    asked.evals = {name: dict(asked.evals[name]) for name in ('frames', 'video')}
    report = held_out.evaluate(model, asked)[0]['']
    compared = {
        're2pix': rollout(model, frames, 2)['frames'],
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
        overall = report['overall'][method]
        expected = plain_distance(*(described[name].reshape(10, -1) for name in (method, 'truth')))
        assert overall['frechet_frames'] == pytest.approx(expected, rel=5e-3)
        expected = plain_distance(*(video(leading[name]) for name in (method, 'truth')))
        assert overall['frechet_video'] == pytest.approx(expected, rel=5e-3)
        for step, row in enumerate(report['steps']):
            expected = plain_distance(described[method][:, step], described['truth'][:, step])
            assert row[method]['frechet_frames'] == pytest.approx(expected, rel=5e-3)
    assert report['warnings'] == [
        f'{title}: {count} samples of 64 dimensions have a singular covariance: the distance is '
        'taken between what there is of it, and is only comparable at this count; at least 65 '
        'samples are needed'
        for title, count in (('Fréchet frames', 10), ('Fréchet video', 5))
    ]


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


@pytest.mark.long
def test_a_baseline_without_head_and_components_through_networks(model, monkeypatch):
    """Judged by stand-ins for the networks; windows are also measured one by one."""
    net = model.generator.net.clone(components=0)
    latents = np.zeros((1, 4, 8, 16, 4), np.float32)
    params = random_variables(net, latents, latents, np.zeros(1, np.float32))
    plain = model.replace(head=None, generator=Generator(params=params, net=net))
    stand_ins = {'inception': Means(3), 'i3d': Means(), 'lpips': Means(), 'judge': Means()}
    monkeypatch.setattr(compatibility, 'open_network', lambda _, kind: stand_ins[kind])
    monkeypatch.setattr(
        compatibility, 'origin', lambda name: {'fvd': 'b', 'fid': 'a'}.get(name, 'c') * 64
    )
    asked = config(probe=False, clips=4, horizon=5, methods=('re2pix',))
    asked.evals.fid.network, asked.evals.fvd.network = 'fid', 'fvd'
    found = held_out.evaluate(plain, asked)[0]['']
    frames = held_out_clips(4, 9)['frames']
    predicted = np.asarray(rollout(plain, frames, 5)['frames'])
    means = [values.mean((2, 3)) for values in (predicted, frames[:, 4:])]
    overall = found['overall']['re2pix']
    expected = plain_distance(*(part.reshape(-1, 3) for part in means))
    assert overall['fid'] == pytest.approx(expected, rel=1e-2)
    clips = [np.concatenate([frames[:, :4].mean((2, 3)), part], 1).mean(1)[:, :2] for part in means]
    assert overall['fvd'] == pytest.approx(plain_distance(*clips), rel=1e-2)
    for step, row in enumerate(found['steps']):
        expected = np.abs(predicted[:, step] - 1.0 * frames[:, 4 + step]).mean()
        assert row['re2pix']['lpips'] == pytest.approx(expected, rel=1e-3)
        # Of the first and the last four frames.
        windows = {'frechet_video', 'frechet_judge', 'frechet_random3d'} if step >= 3 else set()
        frame = {'psnr', 'ssim', 'feature_error', 'error_ratio', 'lpips', 'frechet_frames'}
        frame |= {'sharpness', 'motion'}
        assert {name for name, value in row['re2pix'].items() if value is not None} == (
            (frame | windows) - ({'motion'} if step == 0 else set())
        )
        assert not {'copy_last', 'vae'} & set(row)
    evals = found['protocol']['evals']
    assert evals['fvd'] == {
        'network': 'fvd',
        'sha256': 'b' * 64,
        'dimensions': 2,
        'samples': 4,
        'sample': 'a clip of 4 context + 5 future frames each, resized to 224x224',
    }
    assert evals['fid']['samples'] == 20 and evals['video']['samples'] == 8
    assert any('the model has no such head' in line for line in found['left_out'])
    text = tables.describe(found)
    for words in ('FID', 'FVD', 'LPIPS', 'fvd: 4 samples of 2 dimensions, a clip of 4 context + 5'):
        assert words in text
    assert 'mIoU %' not in tables.by_method(found['overall'])


def test_fvd_of_too_few_frames_is_refused(model, monkeypatch):
    monkeypatch.setattr(compatibility, 'open_network', lambda *_: Means())
    words = (
        'FVD: clips of 6 frames, .*I3D takes at least 9, usual are 16: lengthen the horizon by 3'
    )
    with pytest.raises(UserError, match=words):
        held_out.evaluate(model, config(probe=False))


def test_networks_are_opened_or_what_they_take_is_named(model, micro_bundles, tmp_path):
    net, images = AlexLPIPS(), np.zeros((1, 32, 32, 3), np.float32)
    lpips = LPIPS(random_variables(net, images, images), net)
    bundles.save(tmp_path / 'lpips', lpips, about={'sha256': 'd' * 64})
    assert compatibility.origin(tmp_path / 'lpips') == 'd' * 64
    asked = config(probe=False, clips=1)
    asked.evals.lpips.network = str(tmp_path / 'lpips')
    asked.evals.fvd.network = str(tmp_path / 'nothing')
    evaluation = held_out.open_for(model, asked)
    try:
        evaluation.check(model)
        found = {one.name: one.left_out for one in evaluation.evaluators}
    finally:
        evaluation.close()
    assert found['lpips'] is None
    assert found['fid'] == (
        "FID: config.evals.fid.network = '' names no bundle; make one by `convert inception` from "
        'pt_inception-2015-12-05-6726825d.pth of pytorch-fid'
    )
    assert f"config.evals.fvd.network = '{tmp_path}/nothing' names no bundle" in found['fvd']
    asked.evals.fid.network = str(micro_bundles / 'head')
    with pytest.raises(UserError, match='holds kind head, where kind inception is needed'):
        held_out.open_for(model, asked)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'clips': -1}, 'config.clips = -1: expected at least 0'),
        ({'horizon': 0}, 'config.horizon = 0: expected at least 1'),
        ({'batch_size': 0}, 'config.batch_size = 0: expected at least 1'),
        ({'guidance': -1.0}, 'config.guidance = -1.0'),
        ({'sampler_steps': -1}, 'config.sampler_steps = -1'),
        ({'channels': -1}, 'config.channels = -1: expected at least 0'),
        ({'guidance_channels': 0}, 'config.guidance_channels = 0: expected at least 1'),
        ({'horizon': 20}, '30 frames at 17 frames per second are too few'),
        ({'split': 'night'}, "split 'night': the world has train, validation, test"),
        ({'source': 'records:/none'}, '/none: no prepared clips there'),
        ({'methods': ('re2pix', 'foo')}, "methods: 'foo' is none of re2pix, oracle, copy_last, "),
    ],
)
def test_settings_that_cannot_work_are_named(model, changes, message):
    with pytest.raises(UserError, match=message) as error:
        held_out.evaluate(model, config(**{'probe': False} | changes))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'entry, message',
    [
        ({'type': 'psnr'}, "config.evals.mine.type = 'psnr': expected one of reconstruction, "),
        ({'type': 'image', 'crop': 3}, 'config.evals.mine has no option crop: type image takes'),
        ({'type': 'frechet', 'of': 'cars'}, "config.evals.mine.of = 'cars': expected one of frame"),
        ({'type': 'image', 'methods': ('va',)}, "methods: 'va' is none of re2pix, oracle, cop"),
        ({'type': 'probe', 'steps': 0}, 'config.evals.mine = .*expected at least 1 clip, 1 step'),
    ],
)
def test_evaluators_that_cannot_work_are_named(model, entry, message):
    asked = config(probe=False)
    asked.evals = {'mine': entry}
    with pytest.raises(UserError, match=message):
        held_out.evaluate(model, asked)


def test_a_clip_that_is_too_short_ends_an_evaluation_before_it_begins_or_is_left_out(
    model, micro_bundles
):
    """The clips have 22 frames; from frame 5 on, 18 are too few for six of them at stride 3."""
    asked = config(probe=False, source=f'records:{micro_bundles}/clips', start=5, horizon=3)
    with pytest.raises(UserError, match='validation/000000.*too few'):
        held_out.evaluate(model, asked)
