"""Bundles: what is saved comes back, to the byte, and what is wrong is said in one line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from re2pix_jax import bundles
from re2pix_jax.bundles import kinds, naming, stored
from re2pix_jax.encoder import Encoder, Principal
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster

KINDS = ('encoder', 'principal', 'forecaster', 'head')


def files(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


def edit(folder, **changes):
    file = folder / 'config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('storage', ['float32', 'float16'])
def test_round_trip(parts, tmp_path, kind, storage):
    bundles.save(tmp_path / 'one', parts[kind], storage=storage, about={'data': 'none'})
    loaded = bundles.load(tmp_path / 'one')
    assert type(loaded) is type(parts[kind])
    assert jax.tree.structure(loaded) == jax.tree.structure(parts[kind])  # static fields too
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(parts[kind])):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(
            ours, theirs, rtol=0 if storage == 'float32' else 1e-3, atol=1e-6
        )
    assert bundles.read(tmp_path / 'one').storage == storage
    bundles.save(tmp_path / 'two', loaded, storage=storage, about={'data': 'none'})
    assert files(tmp_path / 'one') == files(tmp_path / 'two')


@pytest.mark.parametrize('name', ['tiny', 'tiny/depth', 'tiny/normals', 'tiny/forecaster'])
def test_a_shipped_bundle_is_saved_like_it_was(name, tmp_path):
    bundles.save(tmp_path / 'again', bundles.load(name), like=name)
    shipped, again = files(bundles.resolve(name)), files(tmp_path / 'again')
    assert again == {
        file: shipped[file]
        for file in shipped
        if name != 'tiny' or not file.startswith(('depth', 'normals', 'judge'))
    }


def test_saved_like_another(parts, tmp_path):
    """Notes, storage and a card that was written are kept, unless others are given; a card that was
    made is made anew.
    """
    bundles.save(
        tmp_path / 'e', parts['encoder'], storage='float16', card='# Mine', about={'data': 'x'}
    )
    bundles.save(tmp_path / 'p', parts['principal'], storage='float16')
    bundles.save(
        tmp_path / 'f',
        parts['forecaster'],
        {'encoder': tmp_path / 'e', 'principal': tmp_path / 'p'},
        'float16',
        about={'a': [1]},
    )
    loaded = bundles.load(tmp_path / 'f')
    bundles.save(tmp_path / 'g', loaded, like=tmp_path / 'f')
    assert files(tmp_path / 'g' / 'encoder') == files(tmp_path / 'e') and files(
        tmp_path / 'g' / 'principal'
    ) == files(tmp_path / 'p')
    assert bundles.read(tmp_path / 'g').extras == {'about': {'a': [1]}}
    bundles.save(tmp_path / 'h', loaded, like=tmp_path / 'g', storage='float32', about={'b': 2})
    again = bundles.read(tmp_path / 'h')
    assert again.extras == {'about': {'b': 2}} and 'stored in float32' in again.card
    assert (
        bundles.read(tmp_path / 'h' / 'encoder').card == '# Mine'
        and bundles.read(tmp_path / 'h' / 'encoder').storage == 'float32'
    )
    changed = loaded.encoder.replace(net=loaded.encoder.net.clone(norm_eps=1e-3))
    bundles.save(tmp_path / 'i', changed, like=tmp_path / 'e')
    assert bundles.read(tmp_path / 'i').network['norm_eps'] == 1e-3


def test_every_kind_of_the_package_round_trips(micro_bundles, tmp_path):
    large = {
        'inception',
        'i3d',
        'lpips',
    }  # of one published size each: tests/evaluation/test_networks.py
    for kind in set(kinds.KINDS) - large:
        part = bundles.load(micro_bundles / kind)
        bundles.save(tmp_path / kind, part)
        assert files(tmp_path / kind) == files(micro_bundles / kind)
        assert kinds.kind_of(part).name == kind


def test_parts_are_named_or_nested(parts, tmp_path, monkeypatch):
    bundles.save(tmp_path / 'a' / 'encoder', parts['encoder'])
    bundles.save(
        tmp_path / 'a' / 'principal',
        parts['principal'],
        parts={'encoder': tmp_path / 'a' / 'encoder'},
    )
    monkeypatch.chdir(tmp_path)
    bundles.save(
        'a/forecaster',
        parts['forecaster'],
        parts={'encoder': 'a/encoder', 'principal': 'a/principal', 'vae': ''},
    )
    config = json.loads((tmp_path / 'a/forecaster/config.json').read_text())
    assert config['parts'] == {'encoder': '../encoder', 'principal': '../principal'}
    bundles.save('a/whole', parts['forecaster'])
    shutil.move('a', 'b')  # relative references move along
    edit(
        tmp_path / 'b/whole',
        parts={'encoder': str(tmp_path / 'b/encoder'), 'principal': 'principal'},
    )
    for name in ('b/forecaster', 'b/whole'):
        loaded = bundles.load(name)
        for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(parts['forecaster'])):
            np.testing.assert_array_equal(ours, theirs)
    assert bundles.digest('b/forecaster') == bundles.digest('b/whole')


def test_saving_over_a_bundle_keeps_the_parts_inside_it(parts, tmp_path):
    bundles.save(tmp_path / 'f', parts['forecaster'])
    before = files(tmp_path / 'f')
    bundles.save(
        tmp_path / 'f',
        parts['forecaster'],
        parts={'encoder': tmp_path / 'f' / 'encoder'},
        overwrite=True,
    )
    assert files(tmp_path / 'f') == before
    assert [path.name for path in tmp_path.iterdir()] == ['f']


def test_shipped_names(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(naming, 'SHIPPED', tmp_path)
    bundles.save(tmp_path / 'tiny', parts['forecaster'])
    assert isinstance(bundles.load('tiny'), Forecaster) and isinstance(
        bundles.load('tiny/encoder'), Encoder
    )
    with pytest.raises(
        UserError, match=r"tinny: no such model, did you mean 'tiny'.*shipped name \(tiny\)"
    ):
        bundles.load('tinny')


def test_unmatched_tensors_are_all_in_one_message(parts, tmp_path):
    tree = jax.device_get(parts['encoder'].params)['params']
    tree = {**tree, 'norm': {'scale': np.zeros(7, np.float32)}, 'extra': np.zeros(3, np.float32)}
    bundles.save(tmp_path / 'e', parts['encoder'])
    stored.write_safetensors(
        tmp_path / 'e' / 'weights.safetensors',
        flatten_dict({'params': tree}, sep='/'),
        lambda *_: np.float32,
    )
    with pytest.raises(UserError) as caught:
        bundles.load(tmp_path / 'e')
    message = str(caught.value)
    for text in (
        '3 tensors do not match',
        'missing params/norm/bias [12]',
        'left over params/extra [3]',
        'params/norm/scale has shape [7] and not [12]',
    ):
        assert text in message
    assert '\n' not in message


def test_damaged_bundles(parts, tmp_path):
    def fresh():
        shutil.rmtree(tmp_path / 'e', ignore_errors=True)
        bundles.save(tmp_path / 'e', parts['encoder'])
        return tmp_path / 'e'

    def refused(match):
        with pytest.raises(UserError, match=match) as caught:
            bundles.load(tmp_path / 'e')
        assert '\n' not in str(caught.value)

    file = fresh() / 'weights.safetensors'
    file.write_bytes(file.read_bytes()[:-9])
    refused('weights.safetensors: is not a whole safetensors file')
    (fresh() / 'weights.safetensors').unlink()
    refused('cannot be read')
    (fresh() / 'config.json').write_text('{"format": 1')
    refused('config.json: is not readable JSON')
    (fresh() / 'config.json').write_text('[]')
    refused(r'config.json: expected an object, got \[\]: fetch or export the bundle again')
    edit(fresh(), format=3)
    refused('has format 3 and this version reads up to 2: update')
    edit(fresh(), kind='wheel')
    refused('config.json: kind: expected "encoder" or .* or "re2pix", got "wheel"')
    edit(fresh(), size=3)
    refused('unknown entries size; kind encoder may have image_size')
    edit(fresh(), network={'width': 12, 'colour': 3})
    refused(r'unknown fields \[colour\] and lacks \[depth, heads, layers')
    edit(fresh(), network=kinds.KINDS['encoder'].describe_net(parts['encoder']) | {'heads': 5})
    refused('cannot be built of these network fields')
    edit(fresh(), parts={'vae': 'vae'})
    refused('unknown: vae')
    with pytest.raises(UserError, match='holds kind encoder, where kind head is needed'):
        fresh()
        bundles.load(tmp_path / 'e', 'head')
    with pytest.raises(UserError, match='folder without config.json'):
        bundles.load(tmp_path)


def test_parts_that_do_not_fit(parts, tmp_path):
    small = Principal(*(jnp.ones(shape) for shape in ((24,), (24,), (24,), (4, 24), (4,))))
    bundles.save(tmp_path / 'f', parts['forecaster'].replace(principal=small))
    with pytest.raises(UserError, match='turn 24 into 4, the forecaster takes 6'):
        bundles.load(tmp_path / 'f')


def test_nothing_half_written_remains(parts, tmp_path):
    big = parts['principal'].replace(mean=jnp.full(24, 1e6))
    with pytest.raises(UserError, match='tensor mean holds values beyond float16'):
        bundles.save(tmp_path / 'p', big, storage='float16')
    with pytest.raises(UserError, match='gone: no such model'):
        bundles.save(tmp_path / 'f', parts['forecaster'], parts={'encoder': tmp_path / 'gone'})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'letter').write_text('x')
    with pytest.raises(UserError, match='already exists and is not a bundle'):
        bundles.save(tmp_path / 'mine', parts['encoder'])
    assert (tmp_path / 'mine' / 'letter').read_text() == 'x'
