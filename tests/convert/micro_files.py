"""Micro files of DINO-Foresight's kinds, of random numbers, pickled without torch."""

import pathlib

import numpy as np
from safetensors.numpy import load_file

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import dino_foresight
from re2pix_jax.forecaster import MaskedFeatureTransformer
from tests.convert import torch_pickles
from tests.convert.torch_pickles import entries, literal

DATA = pathlib.Path(__file__).parent / 'data'
CHANNELS = 16  # of the micro DINOv2 in DATA: two layers of 8


def published(name):
    """The tensors of a micro model in DATA, without its input and output."""
    return {
        key: array
        for key, array in load_file(DATA / f'{name}.safetensors').items()
        if key not in ('input', 'output')
    }


def forecaster_tensors(components=6, encoder=True):
    """A state dict as DINO-Foresight trains it: transformer, principal components, and the micro
    DINOv2 (width 8, 2 heads).
    """
    rng = np.random.default_rng(0)
    net = MaskedFeatureTransformer(
        components=components, width=12, depth=1, heads=2, frames=3, grid=(2, 3)
    )
    tensors = {}
    expected = KINDS['forecaster'].expected(net, {}, {}, 'here')
    for key, path, shape in dino_foresight.TABLE.sources(expected):
        shape = (
            shape[::-1]
            if 'kernel' in path
            else (1, 1, *shape)
            if path.endswith('replace_vector')
            else shape
        )
        tensors[key] = rng.normal(size=shape).astype(np.float32)
    ones = np.ones(CHANNELS, np.float32)
    tensors |= {
        'mean': 0 * ones,
        'std': ones,
        'pca_mean': 0 * ones,
        'pca_components': np.eye(CHANNELS, dtype=np.float32)[:components],
    }
    return tensors | {
        f'dino_v2.{key}': array.astype(np.float32)
        for key, array in (published('dinov2') if encoder else {}).items()
    }


def principal_file(path, components, channels):
    """A PCA file as the authors write it."""
    arrays = {'mean_': np.zeros(channels), 'components_': np.eye(channels)[:components]}
    model = b'csklearn.decomposition._pca\nPCA\n)\x81' + literal(arrays) + b'b'
    return torch_pickles.write(
        path,
        entries(pca_model=model, mean=literal(np.zeros(channels)), std=literal(np.ones(channels))),
    )
