"""What the VAE costs: PSNR of all frames and, by an encoder that is named, their features."""

import types

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.evaluation import evaluators
from tests.conftest import SIZE


def report(evaluator, truth, found):
    evaluator.open()
    view = types.SimpleNamespace(all_frames=found)
    batch = {'frames': truth, 'known': np.array([True, True, False])}
    state = evaluator.measure(evaluator.parts, view, {}, batch)
    return evaluator.report({'vae': state})['vae'][0]


def test_the_distance_is_one_less_the_cosine_of_known_frames(micro_bundles):
    rng = np.random.default_rng(0)
    truth, found = (rng.integers(0, 256, (3, 2, *SIZE, 3), np.uint8) for _ in range(2))
    named = {'type': 'reconstruction', 'encoder': str(micro_bundles / 'encoder')}
    (with_encoder,) = evaluators.create({'mine': named})
    (without,) = evaluators.create({'mine': {'type': 'reconstruction'}})
    encoder = bundles.load(micro_bundles / 'encoder')
    one, other = (np.asarray(encoder.encode(x[:2]), np.float64) for x in (truth, found))
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    scores = report(with_encoder, truth, found)
    assert scores['reconstruction_distance'] == pytest.approx(
        1 - ((one * other).sum(-1) / norms).mean(), rel=1e-4
    )
    assert report(without, truth, found) == {'reconstruction_psnr': scores['reconstruction_psnr']}
    assert report(with_encoder, truth, truth)['reconstruction_distance'] < 1e-6
