"""The lists beside each network: what may be cut over devices, and what muon takes."""

import re
import sys

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict

from re2pix_jax.encoder import VisionTransformer
from re2pix_jax.forecaster import MaskedFeatureTransformer
from re2pix_jax.generator import backbone
from re2pix_jax.heads import DPTHead
from re2pix_jax.vae import AutoencoderKL
from tests.conftest import MICRO

VIT = {**MICRO['encoder'], 'registers': 0}
UNET = dict(latent_channels=2, latent_grid=(4, 8), components=8, width=32, blocks=1)
NETS = {
    'vit': (VisionTransformer(**VIT), (1, 32, 64, 3)),
    'vit of SwiGLU': (VisionTransformer(**VIT, ffn='swiglu'), (1, 32, 64, 3)),
    'forecaster': (MaskedFeatureTransformer(**MICRO['forecaster'], frames=5), (1, 4, 4, 8, 32)),
    'vae': (AutoencoderKL(**MICRO['autoencoder']), (1, 32, 64, 3)),
    'head': (DPTHead(classes=19, **MICRO['head']), (1, 4, 8, 32)),
    'dit': (
        backbone.create(**MICRO['generator'], patch_size=2, context_frames=4, future_frames=4),
        None,
    ),
    'unet': (backbone.create('unet', **UNET, context_frames=4, future_frames=4), None),
}


@pytest.fixture(params=NETS)
def shapes_and_lists(request):
    """({path: shape}, SHARDING, MUON) of a network."""
    net, shape = NETS[request.param]
    inputs = net.example() if shape is None else (jnp.zeros(shape),)
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)['params']
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep='/').items()}
    module = sys.modules[type(net).__module__]
    return shapes, module.SHARDING, getattr(module, 'MUON', ())


def test_every_parameter_has_a_rule_that_fits_it(shapes_and_lists):
    shapes, rules, _ = shapes_and_lists
    for path, shape in shapes.items():
        spec = next(spec for pattern, spec in rules if re.search(pattern, path))
        # An axis before the kernel's own two is one of layers, or of a convolution's window.
        assert len(spec) <= (2 if path.endswith('kernel') else 0) <= len(shape), path
        if re.search(r'(qkv|w12|linear|time_shift_scale)/kernel$', path):
            assert spec[-1] is None, path


def test_muon_takes_matrices_of_repeated_layers(shapes_and_lists):
    shapes, _, patterns = shapes_and_lists
    taken = {path for path in shapes if any(re.search(rule, path) for rule in patterns)}
    if not patterns:
        return
    assert any(path.endswith('qkv/kernel') for path in taken)
    for path in shapes:
        of_a_layer = re.match(r'(layers|blocks|(down|middle|up)_\d)', path)
        matrix = path.endswith('/kernel') and '/conv' not in path
        assert (path in taken) == bool(of_a_layer and matrix), path
