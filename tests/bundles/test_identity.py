"""One identity of a network, in memory and on disk, however it is stored; another for another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.bundles import kinds
from re2pix_jax.bundles.identity import contents

KINDS = ('encoder', 'principal', 'vae', 'forecaster', 'head', 'generator', 'judge', 're2pix')


@pytest.mark.parametrize('kind', KINDS)
def test_copies_of_any_precision_have_one_identity(micro_bundles, tmp_path, kind):
    part = bundles.load(micro_bundles / kind)
    for storage in ('float32', 'float16'):
        bundles.save(tmp_path / storage, part, storage=storage, card='# Other', about={'a': 1})
    half = bundles.load(tmp_path / 'float16')
    assert any((ours != theirs).any() for ours, theirs in zip(*map(jax.tree.leaves, (part, half))))
    identities = {
        bundles.identity(part),
        bundles.identity(half),
        *(bundles.digest(tmp_path / storage) for storage in ('float32', 'float16')),
        bundles.digest(micro_bundles / kind),
    }
    assert len(identities) == 1


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [
        ('vae', {'scaling_factor': 2.0}),
        ('vae', {'tile': 8}),
        ('head', {'reads': 'depth', 'depth_range': (1.0, 200.0)}),
        ('generator', {'target': 'v'}),
        ('re2pix', {'sampler_steps': 3}),
        ('re2pix', {'fps': 10}),
    ],
)
def test_static_fields_of_a_part_are_part_of_it(micro_bundles, tmp_path, kind, changes):
    part = bundles.load(micro_bundles / kind)
    other = part.replace(**changes)
    bundles.save(tmp_path / 'other', other)
    assert bundles.identity(part) != bundles.identity(other) == bundles.digest(tmp_path / 'other')


def test_what_says_how_and_not_what_is_not(micro_bundles):
    for kind, changes in (
        ('encoder', {'image_size': (16, 32)}),
        ('vae', {'frames_at_once': 2}),
        ('head', {'encoder': '0' * 64}),
    ):
        part = bundles.load(micro_bundles / kind)
        assert bundles.identity(part) == bundles.identity(part.replace(**changes))
    for kind in ('encoder', 'generator'):
        part = bundles.load(micro_bundles / kind)
        other = part.replace(net=part.net.clone(dtype='bfloat16'))
        assert bundles.identity(part) == bundles.identity(other)


def test_networks_and_parameters_are(micro_bundles):
    encoder = bundles.load(micro_bundles / 'encoder')
    bundles_of = {
        bundles.identity(encoder),
        bundles.identity(encoder.replace(net=encoder.net.clone(norm_eps=1e-3))),
        bundles.identity(
            encoder.replace(params=jax.tree.map(lambda leaf: 2 * leaf, encoder.params))
        ),
    }
    forecaster = bundles.load(micro_bundles / 'forecaster')
    moved = forecaster.principal.replace(mean=forecaster.principal.mean + 1)
    bundles_of |= {
        bundles.identity(forecaster),
        bundles.identity(forecaster.replace(principal=moved)),
    }
    assert len(bundles_of) == 5
    assert bundles.part_digests(micro_bundles / 'forecaster') == {
        'encoder': bundles.identity(encoder),
        'principal': bundles.identity(forecaster.principal),
    }


def test_fields_at_their_default_and_whole_numbers_are_no_difference(micro_bundles, monkeypatch):
    part = bundles.load(micro_bundles / 'forecaster')
    net = part.net
    assert bundles.identity(part) == bundles.identity(
        part.replace(net=net.clone(mlp_ratio=float(net.mlp_ratio)))
    )
    fields = kinds.KINDS['forecaster'].fields_of(net, changed=True)
    assert 'components' in fields and 'mlp_ratio' not in fields


def test_layers_apart_and_stacked_are_one_network():
    random = np.random.default_rng(0)
    layers = [{'kernel': random.normal(size=(3, 4)), 'bias': np.ones(4)} for _ in range(12)]
    apart = {
        f'params/blocks_{index}/mlp/{name}': array
        for index, layer in enumerate(layers)
        for name, array in layer.items()
    }
    stacked = {
        f'params/blocks/mlp/{name}': jnp.asarray(np.stack([layer[name] for layer in layers]))
        for name in layers[0]
    }
    swapped = {name: array[::-1] for name, array in stacked.items()}
    assert contents(apart) == contents(stacked)
    assert contents(apart) == contents(dict(reversed(apart.items())))
    assert contents(apart) != contents(swapped)


def test_a_bundle_that_is_written_anew_is_read_anew(micro_bundles, tmp_path):
    head = bundles.load(micro_bundles / 'head')
    bundles.save(tmp_path / 'head', head)
    before = bundles.digest(tmp_path / 'head')
    other = head.replace(params=jax.tree.map(lambda leaf: leaf + 1, head.params))
    bundles.save(tmp_path / 'head', other, overwrite=True)
    assert before != bundles.digest(tmp_path / 'head') == bundles.identity(other)
