"""Micro models that other packages wrote, with what they computed; how:
tests/convert/test_transformers.py.
"""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from re2pix_jax import bundles

DATA = pathlib.Path(__file__).parent / 'data'


@pytest.fixture
def micro_model(tmp_path):
    """Gives a function: name -> (file of its tensors, images [1, 1, H, W, 3], expected features [1,
    1, h, w, C]).

    `edit` may change the dict of tensors (float16 as committed) before it is written.
    """

    def open_one(name, edit=lambda tensors: None):
        tensors = load_file(DATA / f'{name}.safetensors')
        images, features = tensors.pop('input').transpose(0, 2, 3, 1), tensors.pop('output')
        edit(tensors)
        path = tmp_path / f'{name}.safetensors'
        save_file({key: np.asarray(array, order='C') for key, array in tensors.items()}, path)
        return path, jnp.asarray(images)[None], features[None]

    return open_one


def compare(name, ours, theirs):
    """Prints and returns the largest difference over the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f'{name}: largest relative error {error:.1e}')
    return error


@pytest.fixture
def check_numbers(tmp_path):
    """Gives a function: an imported encoder computes what was expected, in bfloat16 nearly, and as
    a bundle the same.
    """

    def check(name, encoder, images, expected):
        assert compare(name, encoder.encode(images), expected) < 1e-5
        half = encoder.replace(net=encoder.net.clone(dtype='bfloat16'))
        assert compare(f'{name} in bfloat16', half.encode(images), expected) < 2e-2
        bundles.save(tmp_path / 'bundle', encoder)
        loaded = bundles.load(tmp_path / 'bundle', 'encoder')
        assert loaded.net == encoder.net
        np.testing.assert_array_equal(loaded.encode(images), encoder.encode(images))

    return check


@pytest.fixture(name='compare')
def _compare():
    return compare
