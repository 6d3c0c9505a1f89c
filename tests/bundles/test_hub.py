"""Bundles on a hub: put there by its own client, interrupted, fetched at a revision, offline, and
what is said when something is not there. The hub is a server on this machine.
"""

import json
import re
import sys

import jax
import numpy as np
import pytest
import yaml

from re2pix_jax import bundles
from re2pix_jax.bundles import hub, sharing
from re2pix_jax.encoder import Encoder
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster
from tests.bundles import hub_server

client = pytest.importorskip('huggingface_hub')
constants = pytest.importorskip('huggingface_hub.constants')
NAME = 'owner/streets'
# The client's own, of its HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub, and a client that knows no other."""
    with hub_server.serving() as served:
        monkeypatch.setenv('HF_TOKEN', 'hf_of_the_test')
        for name, value in (
            ('ENDPOINT', served.url),
            (
                'HUGGINGFACE_CO_URL_TEMPLATE',
                served.url + '/{repo_id}/resolve/{revision}/{filename}',
            ),
            ('HF_HUB_CACHE', str(tmp_path / 'cache')),
            ('HF_HUB_DISABLE_XET', True),
            ('HF_HUB_DISABLE_PROGRESS_BARS', True),
        ):
            monkeypatch.setattr(constants, name, value)
        yield served


@pytest.fixture(scope='module')
def folder(parts, tmp_path_factory):
    """A forecaster whose encoder lies beside it."""
    folder = tmp_path_factory.mktemp('bundles')
    bundles.save(folder / 'encoder', parts['encoder'], card='An encoder.\n')
    bundles.save(
        folder / 'forecaster',
        parts['forecaster'],
        parts={'encoder': folder / 'encoder'},
        card='# Streets\n',
    )
    (folder / 'forecaster' / 'notes.txt').write_text('mine')
    return folder


def push(folder, reference, out):
    sharing.pack(folder, out)
    sharing.write_card(out, 'cc-by-4.0', ['owner/clips'], {})
    return hub.upload(out, reference, False, 'first')


def same(one, other):
    return all(
        np.array_equal(*pair)
        for pair in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_a_bundle_goes_there_with_its_parts_and_comes_back(server, folder, parts, tmp_path):
    there = push(folder / 'forecaster', f'hf:{NAME}', tmp_path / 'packed')
    commit = server.heads[NAME]['main']
    assert there == f'hf:{NAME}@{commit}'
    _, files = server.files(NAME, 'main')
    assert {name for name in files if '/' not in name} == {
        *('.gitattributes', 'README.md', 'MODEL_CARD.md', 'config.json', 'weights.safetensors')
    }
    loaded = bundles.load(f'hf:{NAME}')
    assert isinstance(loaded, Forecaster) and same(loaded, parts['forecaster'])
    assert repr(loaded).startswith(f'Forecaster: from hf:{NAME}, ') and len(repr(loaded)) < 500
    assert same(bundles.load(f'hf:{NAME}/encoder'), parts['encoder'])
    assert bundles.digest(f'hf:{NAME}') == bundles.digest(folder / 'forecaster')
    _, block, card = files['README.md'].decode().split('---\n', 2)
    meta = yaml.safe_load(block)
    assert meta['license'] == 'cc-by-4.0' and meta['datasets'] == ['owner/clips']
    assert 're2pix_jax-forecaster' in meta['tags'] and card.strip() == '# Streets'


def test_a_revision_stays_what_it_was(server, folder, parts, tmp_path):
    first = push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'first')
    changed = parts['encoder'].replace(
        params=jax.tree.map(lambda x: x + 1, parts['encoder'].params)
    )
    bundles.save(tmp_path / 'changed', changed)
    push(tmp_path / 'changed', f'hf:{NAME}', tmp_path / 'second')
    assert same(bundles.load(f'hf:{NAME}'), changed)
    assert same(bundles.load(first), parts['encoder'])
    assert hub.pinned(first) == first != hub.pinned(f'hf:{NAME}') and hub.pinned('tiny') == 'tiny'
    # A bundle that is made of one on the hub remembers which it was.
    sharing.pack(tmp_path / 'first', tmp_path / 'again')
    bundles.save(tmp_path / 'made', parts['forecaster'], parts={'encoder': f'hf:{NAME}'})
    place = json.loads((tmp_path / 'made' / 'config.json').read_text())['parts']['encoder']
    assert place == hub.pinned(f'hf:{NAME}') and same(bundles.load(place), changed)


def test_a_branch_is_put_beside_main(server, folder, tmp_path):
    push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'first')
    before = server.files(NAME, 'main')
    push(folder / 'forecaster', f'hf:{NAME}@trial', tmp_path / 'second')
    assert server.files(NAME, 'main') == before
    assert isinstance(bundles.load(f'hf:{NAME}@trial'), Forecaster)
    assert isinstance(bundles.load(f'hf:{NAME}@main'), Encoder)


def test_what_travelled_does_not_travel_again(server, folder, tmp_path):
    server.fail_after = 1
    with pytest.raises(UserError, match=r'hf:owner/streets: could not be put .*again to go on$'):
        push(folder / 'forecaster', f'hf:{NAME}', tmp_path / 'packed')
    assert len(server.received) == 1 and list(server.files(NAME, 'main')[1]) == ['.gitattributes']
    server.fail_after = None
    hub.upload(tmp_path / 'packed', f'hf:{NAME}', False, 'again')
    files = (tmp_path / 'packed').rglob('*.safetensors')
    large = [file for file in files if file.stat().st_size > hub_server.LARGE]
    assert len(large) > 1 and len(server.received) == len(set(server.received)) == len(large)


def test_what_a_later_bundle_lacks_goes(server, folder, tmp_path):
    push(folder / 'forecaster', f'hf:{NAME}', tmp_path / 'first')
    push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'second')
    assert not any('/' in name for name in server.files(NAME, 'main')[1])


def test_offline_the_cache_is_enough(server, folder, parts, tmp_path, monkeypatch):
    push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'packed')
    bundles.load(f'hf:{NAME}')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    asked = server.files
    monkeypatch.setattr(server, 'files', None)  # whoever asks the server now fails
    assert same(bundles.load(f'hf:{NAME}'), parts['encoder'])
    with pytest.raises(UserError, match='hf:owner/else: could not be fetched'):
        bundles.load('hf:owner/else')
    monkeypatch.setattr(server, 'files', asked)


def test_what_is_not_there_is_said(server, folder, tmp_path):
    push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'packed')
    for reference, said in (
        (f'hf:{NAME}@v9', 'hf:owner/streets@v9: owner/streets has no revision v9: give a branch'),
        ('hf:owner/else', 'hf:owner/else: the hub shows no repository owner/else: check the name'),
        (f'hf:{NAME}/inner', 'hf:owner/streets/inner: the repository has no inner: check the name'),
        ('hf:owner', 'hf:owner: expected "hf:owner/repo", with "@revision"'),
        ('hf:owner/x/../..', 'hf:owner/x/../..: expected "hf:owner/repo"'),
        ('hf:owner/x@a b', 'expected "hf:owner/repo"'),
    ):
        with pytest.raises(UserError, match=re.escape(said)) as caught:
            bundles.load(reference)
        assert '\n' not in str(caught.value)
    with pytest.raises(UserError, match='hf:owner/streets/inner: expected a whole repository'):
        hub.upload(tmp_path / 'packed', f'hf:{NAME}/inner', False, '')


def test_a_damaged_file_is_no_bundle(server, folder, tmp_path):
    push(folder / 'encoder', f'hf:{NAME}', tmp_path / 'packed')
    whole = server.files(NAME, 'main')[1]['weights.safetensors']
    server.damage['weights.safetensors'] = whole[:1000]
    with pytest.raises(UserError, match=r'weights.safetensors: is not a whole safetensors file'):
        bundles.load(f'hf:{NAME}')


def test_without_the_client_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r'needs the huggingface_hub package: pip install'):
        bundles.load('hf:owner/repo')


def test_only_what_is_named_is_fetched(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append(sorted(allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(client, 'snapshot_download', snapshot_download)
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
