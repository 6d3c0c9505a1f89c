"""Bundles of format 1, which held each repeated layer by itself."""

import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from re2pix_jax import bundles
from re2pix_jax.bundles.naming import WEIGHTS
from re2pix_jax.bundles.stored import read_safetensors, write_safetensors
from re2pix_jax.errors import UserError


@pytest.fixture(params=['encoder', 'forecaster'])
def kind(request):
    return request.param


def as_format_1(kind, source, path):
    """The bundle at `source` as format 1 had it, at `path`."""
    bundles.save(path, bundles.load(source), storage='float16')
    apart = {}
    for name, tensor in read_safetensors(path / WEIGHTS).items():
        start, stack, rest = name.partition('/blocks/' if kind == 'encoder' else '/layers/')
        rows = [(f'{start}{stack[:-1]}_{i}/{rest}', row) for i, row in enumerate(np.array(tensor))]
        apart |= dict(rows) if stack else {name: np.array(tensor)}
    write_safetensors(path / WEIGHTS, apart, lambda _, array: array.dtype)
    config = json.loads((path / 'config.json').read_text())
    (path / 'config.json').write_text(json.dumps(config | {'format': 1}))
    return apart


def test_layers_by_themselves_open_as_a_stack(kind, micro_bundles, tmp_path):
    apart = as_format_1(kind, micro_bundles / kind, tmp_path / 'old')
    assert any('_1/' in name for name in apart)
    now, old = bundles.load(micro_bundles / kind), bundles.load(tmp_path / 'old')
    halved = jax.tree.map(lambda x: np.float32(np.float16(x)), now.params)
    jax.tree.map(np.testing.assert_array_equal, old.params, halved)
    assert bundles.digest(tmp_path / 'old') == bundles.identity(now)


def test_a_layer_that_is_missing_is_named(kind, micro_bundles, tmp_path):
    apart = as_format_1(kind, micro_bundles / kind, tmp_path / 'old')
    apart = {name: array for name, array in apart.items() if '_0/' not in name}
    write_safetensors(tmp_path / 'old' / WEIGHTS, apart, lambda _, array: array.dtype)
    with pytest.raises(UserError, match=r'left over params/(blocks|layers)_1/'):
        bundles.load(tmp_path / 'old')


def test_what_is_shipped_is_stacked():
    for kind in ('encoder', 'forecaster'):
        names = flatten_dict(bundles.load('tiny', kind).params, sep='/')
        assert not [name for name in names if '_0/' in name]
