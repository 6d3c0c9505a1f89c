"""Parts of every kind that the tests of bundles save."""

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax.encoder import Encoder, Principal, VisionTransformer
from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer
from re2pix_jax.heads import DPTHead, Head

KINDS = ('encoder', 'principal', 'forecaster', 'head')


@pytest.fixture(scope='module')
def parts():
    keys = iter(jax.random.split(jax.random.key(0), 9))
    net = VisionTransformer(
        patch_size=4, width=12, depth=2, heads=2, registers=1, layers=(0, 1), position_grid=(2, 3)
    )
    encoder = Encoder(
        jax.jit(net.init)(next(keys), jnp.zeros((1, 8, 12, 3))), net, image_size=(8, 12)
    )
    principal = Principal(
        *(jax.random.normal(next(keys), shape) for shape in ((24,), (24,), (24,), (6, 24), (6,)))
    )
    net = MaskedFeatureTransformer(components=6, width=12, depth=1, heads=2, frames=3, grid=(2, 3))
    forecaster = Forecaster(
        jax.jit(net.init)(next(keys), jnp.zeros((1, 2, 2, 3, 6))), net, encoder, principal
    )
    net = DPTHead(classes=5, features=4, channels=(4, 4, 4, 4))
    head = Head(jax.jit(net.init)(next(keys), jnp.zeros((1, 2, 3, 24))), net)
    return {'encoder': encoder, 'principal': principal, 'forecaster': forecaster, 'head': head}
