"""Bundles: what is saved comes back, to the byte, and what is wrong is said in one line."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from re2pix_jax import bundles
from re2pix_jax.bundles import hub, kinds, naming, stored
from re2pix_jax.encoder import Encoder, Principal, VisionTransformer
from re2pix_jax.errors import UserError
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
        if name != 'tiny' or not file.startswith(('depth', 'normals'))
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


def test_the_hub_is_asked_and_its_failure_told(parts, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match='needs the huggingface_hub package.*pass the path'):
        bundles.load('hf:owner/repo')

    asked = []

    class Hub:
        @staticmethod
        def snapshot_download(name, allow_patterns):
            asked.append(allow_patterns)
            if name == 'owner/repo':
                return str(tmp_path / 'e')
            raise ConnectionError('no route\nto the hub')

    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', Hub)
    bundles.save(tmp_path / 'e', parts['encoder'])
    assert isinstance(bundles.load('hf:owner/repo'), Encoder)
    with pytest.raises(
        UserError, match=r'hf:owner/other: could not be fetched .*\(no route\).*pass the path'
    ):
        bundles.load('hf:owner/other')
    with pytest.raises(UserError, match='expected "hf:owner/repo"'):
        bundles.load('hf:owner')
    bundles.save(tmp_path / 'e' / 'inner', parts['encoder'])
    assert isinstance(bundles.load('hf:owner/repo/inner'), Encoder)
    assert asked == [None] * 3  # the parts of a bundle may lie beside it


def test_only_what_is_named_is_fetched(tmp_path, monkeypatch):
    asked = []

    class Hub:
        @staticmethod
        def snapshot_download(name, allow_patterns):
            asked.append(sorted(allow_patterns))
            return str(tmp_path)

    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', Hub)
    (tmp_path / 'a' / 'vae').mkdir(parents=True)
    (tmp_path / 'a' / 'vae' / 'w.bin').touch()
    (tmp_path / 'w.bin').touch()
    assert hub.fetch('hf:owner/repo', ['*.bin', '*.json']) == tmp_path and asked.pop() == [
        '*.bin',
        '*.json',
    ]
    assert hub.fetch('hf:owner/repo/a/vae', ['*.bin', '*.json']) == tmp_path / 'a' / 'vae'
    assert asked.pop() == ['a/vae/*.bin', 'a/vae/*.json']
    configs = ['config.json', 'preprocessor_config.json']
    assert hub.fetch('hf:owner/repo:w.bin') == tmp_path / 'w.bin' and asked.pop() == [
        *configs,
        'w.bin',
    ]
    for reference in (
        'hf:owner/repo/a/vae:w.bin',
        'hf:owner/repo/a:vae/w.bin',
        'hf:owner/repo:a/vae/w.bin',
    ):
        assert hub.fetch(reference, ['*.json']) == tmp_path / 'a' / 'vae' / 'w.bin'
        assert asked.pop() == [f'a/vae/{name}' for name in (*configs, 'w.bin')]
    with pytest.raises(
        UserError,
        match='hf:owner/repo/vae:w.bin: the repository has no vae/w.bin: check the name, or '
        'download',
    ):
        hub.fetch('hf:owner/repo/vae:w.bin')


@pytest.mark.parametrize(
    ('kind', 'inside'),
    [
        ('encoder', '/forecaster/encoder'),
        ('principal', '/forecaster/principal'),
        ('vae', '/vae'),
        ('head', '/head'),
        ('re2pix', ''),
    ],
)
def test_a_larger_bundle_serves_for_its_part(micro_bundles, monkeypatch, kind, inside):
    """By its folder, by a shipped name and by another bundle that refers to it."""
    monkeypatch.setattr(naming, 'SHIPPED', micro_bundles)
    folder = micro_bundles / 're2pix'
    for name in (folder, 're2pix'):
        assert str(bundles.find(name, kind)) == f'{name}{inside}'
        assert kinds.kind_of(bundles.load(name, kind)).name == kind
        assert bundles.digest(name, kind) == bundles.digest(f'{folder}{inside}')
    assert 'vae' not in bundles.part_digests('re2pix', 'forecaster')


def test_none_and_several_of_a_kind_are_refused(micro_bundles):
    vae, model = micro_bundles / 'vae', micro_bundles / 're2pix'
    for ask in (bundles.load, bundles.digest, bundles.part_digests):
        with pytest.raises(UserError, match='vae: holds kind vae, where kind head is needed'):
            ask(vae, 'head')
        with pytest.raises(
            UserError,
            match=f'several of kind encoder or vae: .*{model}/forecaster/encoder, {model}/vae$',
        ):
            ask(model, ('encoder', 'vae'))


def test_what_is_recorded_is_the_part(parts, micro_bundles, tmp_path, monkeypatch):
    """A bundle saved with a larger one for its part refers to the part, wherever that lies."""
    monkeypatch.setattr(naming, 'SHIPPED', micro_bundles)
    for name, recorded in (
        ('re2pix', 're2pix/forecaster/encoder'),
        (micro_bundles / 're2pix', '/re2pix/forecaster/encoder'),
    ):
        out = tmp_path / recorded.replace('/', '_')
        bundles.save(out, parts['principal'], parts={'encoder': name})
        assert bundles.read(out).parts['encoder'].endswith(recorded)
    with pytest.raises(UserError, match='holds kind vae, where kind encoder is needed'):
        bundles.save(tmp_path / 'x', parts['principal'], parts={'encoder': micro_bundles / 'vae'})


def test_a_bundle_that_refers_to_itself(parts, tmp_path):
    bundles.save(tmp_path / 'f', parts['forecaster'])
    edit(tmp_path / 'f', parts={'encoder': '.', 'principal': 'principal'})
    with pytest.raises(UserError, match='holds kind forecaster, where kind encoder is needed'):
        bundles.load(tmp_path / 'f')


def test_the_folder_of_a_run_is_told_apart(parts, tmp_path):
    (tmp_path / 'run' / 'checkpoints').mkdir(parents=True)
    (tmp_path / 'run' / 'config.json').write_text('{"task": "encoder"}')
    with pytest.raises(UserError, match='run: is the folder of a run .*: export it first: re2pix '):
        bundles.load(tmp_path / 'run', 'encoder')
    for overwrite in (False, True):
        with pytest.raises(UserError, match='run: already exists and is not a bundle'):
            bundles.save(tmp_path / 'run', parts['encoder'], overwrite=overwrite)
    assert (tmp_path / 'run' / 'checkpoints').is_dir()


def test_a_bundle_is_replaced_only_by_its_kind_and_when_asked(parts, tmp_path):
    bundles.save(tmp_path / 'b', parts['encoder'])
    before = files(tmp_path / 'b')
    with pytest.raises(UserError, match='already holds a bundle of kind encoder: .*--overwrite'):
        bundles.save(tmp_path / 'b', parts['encoder'], storage='float16')
    for overwrite in (False, True):
        with pytest.raises(
            UserError, match='holds a bundle of kind encoder, which one of kind hea'
        ):
            bundles.save(tmp_path / 'b', parts['head'], overwrite=overwrite)
    assert files(tmp_path / 'b') == before
    bundles.save(tmp_path / 'b', parts['encoder'], storage='float16', overwrite=True)
    assert bundles.read(tmp_path / 'b').storage == 'float16'
    assert [path.name for path in tmp_path.iterdir()] == ['b']


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'size': 'x'}, 'size: expected two positive integers, got "x"'),
        ({'fps': [1]}, r'fps: expected a positive number, got \[1\]'),
        ({'sampler_steps': 2.5}, 'sampler_steps: expected a positive integer, got 2.5'),
        ({'parts': {'vae': 7}}, r'parts\.vae: expected a line of text, got 7'),
        ({'parts': []}, r'parts: expected an object, got \[\]'),
        ({'network': 3}, 'network: expected an object, got 3'),
        ({'storage': 'int4'}, 'storage: expected "float32" or "float16", got "int4"'),
    ],
)
def test_what_a_config_says_is_held_against_its_declaration(micro_bundles, tmp_path, change, said):
    shutil.copytree(micro_bundles / 're2pix', tmp_path / 'm')
    edit(tmp_path / 'm', **change)
    with pytest.raises(UserError, match=f'm/config.json: {said}'):
        bundles.load(tmp_path / 'm')


def test_networks_too_large_to_describe_are_refused(parts, tmp_path):
    bundles.save(tmp_path / 'e', parts['encoder'])
    network = kinds.KINDS['encoder'].describe_net(parts['encoder'])
    for change in ({'depth': 10**6}, {'position_grid': [1 << 30, 1 << 30]}, {'width': 1 << 40}):
        edit(tmp_path / 'e', network=network | change)
        with pytest.raises(UserError, match=f'network: {next(iter(change))}: expected '):
            bundles.load(tmp_path / 'e')
