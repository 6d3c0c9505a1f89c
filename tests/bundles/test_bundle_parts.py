"""Bundles: which part a name means, and what is refused in one line."""

import shutil

import jax
import jax.numpy as jnp
import pytest

from re2pix_jax import bundles
from re2pix_jax.bundles import kinds, naming
from re2pix_jax.encoder import Encoder
from re2pix_jax.encoder.vit import VisionTransformer
from re2pix_jax.errors import UserError
from tests.bundles.test_bundle import edit, files
from tests.conftest import MICRO, random_variables


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


def test_nothing_is_compiled_for_each_shape_of_a_tensor(tmp_path):
    """It took a run that goes on seconds."""
    net = VisionTransformer(**MICRO['encoder'] | {'width': 30})  # of shapes that no one has seen
    params = random_variables(net, jnp.zeros((1, 32, 64, 3)))
    bundles.save(str(tmp_path / 'encoder'), Encoder(params=params, net=net))
    compiled = []
    listener = lambda name, *_, **__: compiled.append(name) if 'backend_compile' in name else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    bundles.load(str(tmp_path / 'encoder'))
    count = len(compiled)
    jnp.zeros((3, 5, 7)) + 1  # which is heard
    assert len(compiled) > count
    assert count <= 2, compiled


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
        ({'sampler': 'rk4'}, 'sampler: expected "euler" or "heun" or "ddim", got "rk4"'),
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
