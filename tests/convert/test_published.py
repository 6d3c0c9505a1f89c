"""Numbers that the authors' own PyTorch code gave for small random weights, against ours from the
same files.

The files lie beside the repository (../shared/golden/dino_foresight_small) and not in it: without
them this is skipped.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.convert import dino_foresight, dinov2, dpt, torch_file
from re2pix_jax.encoder import principal
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import smooth_l1

GOLDEN = pathlib.Path(__file__).parents[2].parent / 'shared' / 'golden' / 'dino_foresight_small'
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the authors' numbers are not at {GOLDEN}"
)
LIMIT = 1e-5  # largest difference over largest value; asked: 1e-4


def compare(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f'largest relative error {error:.1e}')
    assert error < LIMIT


@pytest.fixture(scope='module')
def expected():
    return dict(np.load(GOLDEN / 'expected.npz'))


@pytest.fixture(scope='module')
def images(expected):
    return jnp.asarray(expected['images_bt3hw'].transpose(0, 1, 3, 4, 2))


@pytest.fixture(scope='module')
def forecaster():
    return dino_foresight.convert(GOLDEN / 'dinof.ckpt', encoder_heads=3)


def test_encoder_features(expected, images):
    encoder = dinov2.convert(GOLDEN / 'dinov2_reg.pth', heads=3)
    compare(encoder.encode(images).reshape(10, 32, 96), expected['encoder_features_bnc'])


def test_principal_components_and_back(expected):
    part = dino_foresight.convert_principal(GOLDEN / 'pca.pth')
    features = expected['encoder_features_bnc'].reshape(2, 5, 4, 8, 96)
    compare(part.project(jnp.asarray(features)), expected['pca_features_bthwc'])
    compare(
        part.reconstruct(jnp.asarray(expected['predicted_pca_bthwc'])),
        expected['predicted_features_bthwc'],
    )
    assert part.num_components == 36 and 0 < float(part.variance.sum()) <= 1


def test_principal_components_fit():
    data = np.load(GOLDEN / 'pca_fit.npz')
    part = principal.fit(principal.Moments().update(jnp.asarray(data['features'])), 36)
    compare(part.variance, data['explained_variance_ratio'])


def test_prediction_and_loss(expected, images, forecaster):
    components = forecaster.encode(images)
    compare(components, expected['pca_features_bthwc'])
    prediction = jax.jit(forecaster.net.apply)(forecaster.params, components[:, :-1])
    compare(prediction, expected['predicted_pca_bthwc'][:, -1])
    compare(forecaster.features(prediction), expected['predicted_features_bthwc'][:, -1])
    compare(smooth_l1(prediction, components[:, -1]).mean(), expected['masked_smooth_l1'])


def test_three_steps(expected, images, forecaster):
    components = forecaster.encode(images)
    rolled = forecaster.features(forecaster.forecast(components[:, :4], 3))
    window = expected['unrolled_features_bthwc']  # frame 4, predictions 1, 2, 3, and 3 again
    compare(forecaster.features(components[:, 3]), window[:, 0])
    compare(rolled, window[:, 1:4])
    compare(rolled[:, 2], window[:, 4])
    compare(
        smooth_l1(rolled[:, -1], forecaster.encoder.encode(images)[:, -1]).mean(),
        expected['unrolled_loss'],
    )


def test_head(expected):
    head = dpt.convert(GOLDEN / 'head_segm.ckpt')
    logits = head.logits(jnp.asarray(expected['predicted_features_bthwc'][:, -1:]))
    compare(logits[:, 0].transpose(0, 3, 1, 2), expected['segm_logits_bkhw'])


def test_converted_parts_survive_a_bundle(expected, images, forecaster, tmp_path):
    bundles.save(tmp_path / 'forecaster', forecaster)
    loaded = bundles.load(tmp_path / 'forecaster')
    np.testing.assert_array_equal(loaded.encode(images), forecaster.encode(images))
    assert loaded.net == forecaster.net and loaded.encoder.image_size == (56, 112)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(
        UserError,
        match=r'dinov2_reg.pth: width 24 and depth 12 are not those of a published DINOv2',
    ):
        dinov2.convert(GOLDEN / 'dinov2_reg.pth')
    with pytest.raises(UserError, match='expected a dict of .pca_model., .mean. and .std.'):
        dino_foresight.convert_principal(GOLDEN / 'dinov2_reg.pth')
    with pytest.raises(UserError, match='no tensor scratch.layer1_rn.weight'):
        dpt.convert(GOLDEN / 'dinov2_reg.pth')
    with pytest.raises(UserError, match="no 'hyper_parameters'"):
        dino_foresight.convert(GOLDEN / 'dinov2_reg.pth')
    cut = tmp_path / 'cut.ckpt'
    cut.write_bytes((GOLDEN / 'dinof.ckpt').read_bytes()[:-5000])
    with pytest.raises(UserError, match='cut.ckpt: is not a whole zip file'):
        dino_foresight.convert(cut)


def test_every_unmatched_tensor_is_in_one_message():
    tensors = torch_file.tensors(GOLDEN / 'dinov2_reg.pth')
    del tensors['norm.bias'], tensors['blocks.3.attn.qkv.weight']
    tensors['head.weight'] = np.zeros((2, 2), np.float32)
    tensors['blocks.0.ls1.gamma'] = np.zeros(7, np.float32)
    with pytest.raises(UserError) as caught:
        dinov2.encoder_of(tensors, 'here', heads=3)
    for text in (
        '4 tensors',
        'missing norm.bias',
        'missing blocks.3.attn.qkv.weight',
        'left over head.weight [2, 2]',
        'blocks.0.ls1.gamma has shape [7]',
    ):
        assert text in str(caught.value)
