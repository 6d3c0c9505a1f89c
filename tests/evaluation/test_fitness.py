"""How well frozen parts take frames: against what can be said without them."""

import numpy as np
import pytest

import re2pix_jax
from re2pix_jax.evaluation import fitness
from re2pix_jax.evaluation.evaluators import image


@pytest.fixture(scope='module')
def model(micro_bundles):
    return re2pix_jax.load(str(micro_bundles / 're2pix'))


@pytest.fixture(scope='module')
def frames(model):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*model.size, 3)).astype(np.uint8) for _ in range(3)]


def test_the_mean_over_frames_of_what_the_vae_gives_back(model, frames):
    given_back = [model.vae.decode(model.vae.encode(x[None, None])) for x in frames]
    psnr = [float(image.psnr(y, x[None, None]).mean()) for x, y in zip(frames, given_back)]
    assert fitness.of_frozen(model, iter(frames))['psnr'] == pytest.approx(np.mean(psnr), rel=1e-4)


def test_the_share_of_the_variance_that_components_hold(model, frames):
    kept, encoder = model.forecaster.principal, model.forecaster.encoder
    features = [np.asarray(encoder.replace(image_size=None).encode(x[None, None])) for x in frames]
    whole = (np.stack(features) - kept.mean) / kept.std
    axes, moved = np.asarray(kept.components, np.float64), whole - kept.pca_mean
    lost = moved - moved @ axes.T @ axes
    expected = 1 - np.square(lost).mean() / np.square(whole).mean()
    assert fitness.of_frozen(model, frames)['explained'] == pytest.approx(expected, rel=1e-3)


def test_components_of_everything_lose_nothing(model, frames):
    channels = model.forecaster.principal.components.shape[1]
    principal = model.forecaster.principal.replace(
        components=np.eye(channels, dtype=np.float32), variance=np.ones(channels, np.float32)
    )
    whole = model.replace(forecaster=model.forecaster.replace(principal=principal))
    assert fitness.of_frozen(whole, frames[:1])['explained'] == pytest.approx(1, abs=1e-5)
