"""Buckets: names, copies brought up to date, uploads, what is said when something is wrong; bundles
and prepared clips in them.
"""

import os

import numpy as np
import pytest

import re2pix_jax
from re2pix_jax import bundles, files, remote
from re2pix_jax.data import frame_records, loader, prepare, records
from re2pix_jax.data.sources.world import World
from re2pix_jax.errors import Interrupted, UserError
from tests import store
from tests.conftest import SIZE

ROOT = f'gs://{store.BUCKET}'


@pytest.fixture(scope='module')
def bucket():
    with store.google() as variables:
        yield variables


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def test_names():
    assert remote.is_remote('gs://b/c') and remote.is_remote('s3:/b')
    assert not any(map(remote.is_remote, ('runs/gs', '/gs:', 'hf:owner/repo', 'gs:', 'C:/x')))
    assert remote.address('gs:/bucket//a/../b/') == 'gs://bucket/b'
    assert remote.join('gs://bucket/a', '..', 'b') == 'gs://bucket/b'
    assert remote.join('runs', 'a') == os.path.join('runs', 'a')
    assert remote.relative('gs://bucket/a/b', 'gs://bucket/c') == '../a/b'
    assert remote.relative('gs://bucket/c/b', 'gs://bucket/c') is None
    assert remote.relative('gs://other/a', 'gs://bucket/c') is None


@pytest.mark.parametrize(
    ('place', 'message'),
    [
        ('ftp://host/x', 'ftp://host/x: no such place; a path of this machine, gs://BUCKET/...'),
        ('gs://', 'gs://: no such place'),
        ('gs:bucket/x', 'gs:bucket/x: no such place'),
        ('s4://bucket/x', 's4://bucket/x: no such place'),
    ],
)
def test_addresses_that_lead_nowhere(place, message):
    with pytest.raises(UserError, match=message):
        remote.check(place)
    with pytest.raises(UserError, match=message):
        bundles.load(place)


def test_a_client_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(remote.CLIENTS, 'gs', ('no_such_client', 'gcs'))
    with pytest.raises(UserError, match=r'needs the no_such_client package: pip install "re2pix_'):
        remote.check('gs://bucket/x', '--out')


@store.needed
def test_a_copy_is_brought_up_to_date(bucket):
    place = f'{ROOT}/copied'
    assert not remote.local(place).exists() and remote.read(f'{place}/a') is None
    files.write_text(f'{place}/a', 'one')
    files.write_text(f'{place}/b/c', 'two')
    copy = remote.local(place)
    assert (copy / 'a').read_text() == 'one' and (copy / 'b' / 'c').read_text() == 'two'
    assert remote.origin(copy / 'b') == f'{place}/b' and remote.origin('/tmp') is None
    before = (copy / 'b' / 'c').stat().st_ino
    files.write_text(f'{place}/a', 'uno')  # as long as the first
    assert (remote.local(place) / 'a').read_text() == 'uno'
    assert (copy / 'b' / 'c').stat().st_ino == before  # not fetched once more
    (copy / 'a').write_text('damaged')
    assert remote.local(f'{place}/a').read_text() == 'uno'
    remote.remove(f'{place}/b/c')
    remote.local(place, lambda name: name == 'a')  # nothing is asked of the others
    assert (copy / 'b' / 'c').exists()
    remote.local(place)
    assert (copy / 'a').exists() and not (copy / 'b' / 'c').exists()


@store.needed
def test_a_file_that_comes_over_cut_is_refused_and_not_kept(bucket, monkeypatch):
    place = f'{ROOT}/cut'
    files.write_text(f'{place}/a', 'all of it')
    listed = remote.names(place)
    monkeypatch.setattr(
        remote, 'names', lambda *_: {name: (size + 1, at) for name, (size, at) in listed.items()}
    )
    with pytest.raises(UserError, match=r'cut/a: 9 of 10 bytes came over; give the same command'):
        remote.local(place)
    monkeypatch.undo()
    assert remote.local(f'{place}/a').read_text() == 'all of it'


def test_a_name_that_leads_out_of_the_copy_is_refused(monkeypatch):
    monkeypatch.setitem(remote.CLIENTS, 'gs', ('json', 'gcs'))
    monkeypatch.setattr(remote, 'names', lambda path: {'a/../../x': (0, 0.0)})
    with pytest.raises(UserError, match="bucket/a: holds 'a/../../x', which is no name of a file"):
        remote.local('gs://bucket/a')


@store.needed
def test_a_folder_is_replaced_and_known_by_its_json_last(bucket, monkeypatch):
    place = f'{ROOT}/replaced'
    with files.replacing_folder(place) as folder:
        (folder / 'config.json').write_text('1')
        (folder / 'old').write_text('1')
    done = []
    system = remote._system(place)
    for name in ('put_file', 'rm_file'):
        action = getattr(system, name)
        monkeypatch.setattr(
            system, name, lambda *at, action=action: (done.append(at[-1]), action(*at))
        )
    with files.replacing_folder(place) as folder:
        (folder / 'config.json').write_text('2')
        (folder / 'new').write_text('2')
    names = [f'{place}/{name}' for name in ('config.json', 'new', 'config.json', 'old')]
    assert done == names
    assert set(remote.names(place)) == {'config.json', 'new'}


@store.needed
def test_what_fails_leaves_the_bucket_as_it_was(bucket):
    place = f'{ROOT}/kept'
    files.write_text(f'{place}/a', 'one')
    for failing in (files.replacing(f'{place}/a'), files.replacing_folder(place)):
        with pytest.raises(RuntimeError), failing as partial:
            (partial / 'x' if partial.is_dir() else partial).write_text('half')
            raise RuntimeError
    with pytest.raises(RuntimeError), files.staging(place) as folder:
        (folder / 'x').write_text('half')
        raise RuntimeError
    assert list(remote.names(place)) == ['a'] and remote.read(f'{place}/a') == b'one'
    with pytest.raises(UserError, match='gs://nowhere/x.*check the name of the bucket'):
        files.write_text('gs://nowhere/x', '')


@store.needed
def test_a_run_waits_for_a_bucket_that_is_away(monkeypatch, capsys):
    import aiohttp

    monkeypatch.setattr(remote, '_PAUSE', 0.0)
    left = []

    def action(*errors):
        left[:] = errors

        def fails():
            if left:
                with remote.talking(f'{ROOT}/run'):
                    raise left.pop()
            return 'done'

        return fails

    away = aiohttp.ServerDisconnectedError()
    assert remote.patiently(f'{ROOT}/run', action(away, away, away)) == 'done'
    assert capsys.readouterr().err == f'{ROOT}/run does not answer: waiting for it\n'
    with pytest.raises(UserError, match='Forbidden') as refused:  # waiting would not help
        remote.patiently(f'{ROOT}/run', action(OSError('Forbidden: b/run')))
    assert not left and 'does not answer' not in str(refused.value)
    monkeypatch.setattr(remote, 'PATIENCE', 0.0)
    with pytest.raises(Interrupted, match=f'{ROOT}/run has not answered for 0 minutes'):
        remote.patiently(f'{ROOT}/run', action(*[away] * 9))


@store.needed
def test_bundles_lie_in_a_bucket(bucket, micro_bundles):
    place = f'{ROOT}/bundles'
    for name in ('encoder', 'principal'):
        bundles.save(f'{place}/{name}', bundles.load(micro_bundles / name))
        assert bundles.digest(f'{place}/{name}') == bundles.digest(micro_bundles / name)
    forecaster = bundles.load(micro_bundles / 'forecaster')
    parts = {'encoder': f'{place}/encoder', 'principal': str(micro_bundles / 'principal')}
    bundles.save(f'{place}/runs/forecaster', forecaster, parts=parts)
    found = bundles.read(f'{place}/runs/forecaster')
    # What lies beside it is named; what lies on this machine is copied.
    assert found.parts == {'encoder': '../../encoder', 'principal': 'principal'}
    opened = re2pix_jax.load(f'{place}/runs/forecaster')
    assert bundles.identity(opened) == bundles.digest(micro_bundles / 'forecaster')
    assert bundles.identity(bundles.load(f'{place}/runs/forecaster', 'encoder'))
    with pytest.raises(UserError, match='already holds a bundle of kind encoder'):
        bundles.check_place(f'{place}/encoder', 'encoder')
    with pytest.raises(UserError, match='holds a bundle of kind encoder, which one of kind vae'):
        bundles.check_place(f'{place}/encoder', 'vae', overwrite=True)
    with pytest.raises(UserError, match='already exists and is not a bundle'):
        bundles.check_place(place, 'encoder')
    bundles.check_place(f'{place}/encoder', 'encoder', overwrite=True)
    with pytest.raises(UserError, match='bundles/none: no such model; nothing is there'):
        bundles.load(f'{place}/none')
    with pytest.raises(UserError, match=f'{place}: is a folder without config.json'):
        bundles.load(place)
    files.write_text(f'{place}/run/checkpoints/5/state', '')
    with pytest.raises(UserError, match='is the folder of a run and not a bundle'):
        bundles.load(f'{place}/run')


@store.needed
def test_what_is_left_of_a_bundle_whose_upload_was_cut_is_no_obstacle(bucket, micro_bundles):
    place, encoder = f'{ROOT}/half', bundles.load(micro_bundles / 'encoder')
    for name in ('weights.safetensors', '.probe-1234'):
        files.write_text(f'{place}/{name}', 'half')
    bundles.save(place, encoder)
    assert bundles.digest(place) == bundles.digest(micro_bundles / 'encoder')
    remote.remove(f'{place}/config.json')
    files.write_text(f'{place}/notes.txt', 'mine')
    with pytest.raises(UserError, match='already exists and is not a bundle'):
        bundles.check_place(place, 'encoder')


def clips():
    return {'train': World('train', 18, 6, SIZE), 'validation': World('validation', 2, 6, SIZE)}


def batches(source, workers=0):
    data = {'sources': (source,), 'size': SIZE, 'frames': 3, 'strides': (1,), 'workers': workers}
    found = loader.create(data, 2, share=((0,), 1))
    try:
        return [next(found) for _ in range(2)]
    finally:
        found.close()


@pytest.mark.long
@store.needed
def test_clips_are_prepared_to_a_bucket_and_read_from_it(bucket, tmp_path):
    place = f'{ROOT}/data/world'
    written = frame_records.write_frames(place, clips())
    assert written == frame_records.write_frames(tmp_path / 'world', clips())
    assert prepare.check(place) == f'{place}: 18 train clips, 2 validation clips, all as the ' + (
        'manifest says'
    )
    for name in remote.names(place):
        if 'array_record' in name or name == records.MANIFEST:
            assert remote.read(f'{place}/{name}') == (tmp_path / 'world' / name).read_bytes()
    for here, there in zip(batches(f'records:{tmp_path}/world'), batches(f'records:{place}')):
        for field in here:
            np.testing.assert_array_equal(here[field], there[field])
    with pytest.raises(UserError, match='data/world: exists already; remove it or choose'):
        frame_records.write_frames(place, clips())
    with pytest.raises(UserError, match='data/none: no prepared clips there'):
        records.Records(f'{ROOT}/data/none', 'train')


@store.needed
def test_only_the_shards_of_a_split_are_copied(bucket, tmp_path):
    place = f'{ROOT}/data/splits'
    frame_records.write_frames(place, clips())
    assert len(records.Records(place, 'validation')) == 2
    copies = {file.name for file in (tmp_path / 'cache').rglob('*.array_record-*')}
    assert copies == {'driving_clips-validation.array_record-00000-of-00001'}


@store.needed
def test_preparing_to_a_bucket_goes_on(bucket, monkeypatch, tmp_path):
    """Cut off while it encodes, and again while its files get their names; on another machine."""
    place, encoded = f'{ROOT}/data/cut', []
    read = World.read

    def counted(self, index, *given, **named):
        encoded.append(self.name(index))
        if len(encoded) == 18:  # in the second file
            raise KeyboardInterrupt
        return read(self, index, *given, **named)

    monkeypatch.setattr(World, 'read', counted)
    with pytest.raises(KeyboardInterrupt):
        frame_records.write_frames(place, clips())
    assert not remote.names(place)
    for cut_at in ('driving_clips-train.array_record-00001-of-00002', 'manifest.json'):
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / cut_at))
        with monkeypatch.context() as patched:
            for module, name in ((remote, 'move'), (files, 'write_text'), (remote, 'remove')):
                patched.setattr(module, name, cut(getattr(module, name), cut_at))
            with pytest.raises(UserError, match='the network is gone'):
                frame_records.write_frames(place, clips())
        assert f'{cut_at}' not in remote.names(place)
        assert len(encoded[18:]) == 4 and encoded[18:20] == encoded[16:18]  # the second file, on
    with monkeypatch.context() as patched:
        patched.setattr(remote, 'remove', cut(remote.remove, 'validation-00000.json'))
        with pytest.raises(UserError, match='the network is gone'):
            frame_records.write_frames(place, clips())
    written = frame_records.write_frames(place, clips())
    assert len(encoded) == 22  # nothing anew
    assert not remote.names(f'{place}.partial')
    assert prepare.check(place)
    assert written == frame_records.write_frames(tmp_path / 'world', clips())
    for name in remote.names(place):
        assert remote.read(f'{place}/{name}') == (tmp_path / 'world' / name).read_bytes()


def cut(function, at):
    """`function`, that fails where it is given a file of that name."""

    def failing(*arguments):
        if any(str(argument).endswith(f'/{at}') for argument in arguments):
            raise UserError('the network is gone')
        return function(*arguments)

    return failing


@store.needed
def test_shards_of_a_bucket_are_those_of_a_disk(bucket, tmp_path):
    place = f'{ROOT}/data/shards'
    for number in (3, 1):
        frame_records.write_frames(place, clips(), shard=(number, 3))
    with pytest.raises(UserError, match=r'shards: shard 2 of 3 is not complete \(0 of 1 file\); g'):
        frame_records.write_frames(place, clips())
    with pytest.raises(UserError, match='shards.partial: was begun in 3 shards, not in 2 shards'):
        frame_records.write_frames(place, clips(), shard=(2, 2))
    assert not remote.names(place)
    frame_records.write_frames(place, clips(), shard=(2, 3))
    written = frame_records.write_frames(place, clips())
    assert written == frame_records.write_frames(tmp_path / 'world', clips())
    names = remote.names(place)
    assert names.keys() == {file.name for file in (tmp_path / 'world').iterdir()}
    for name in names:
        assert remote.read(f'{place}/{name}') == (tmp_path / 'world' / name).read_bytes()
    with pytest.raises(UserError, match='data/shards: exists already; remove it or choose'):
        frame_records.write_frames(place, clips(), shard=(1, 3))
    with pytest.raises(UserError, match=f'{ROOT}: is a whole bucket; expected {ROOT}/FOLDER'):
        frame_records.write_frames(ROOT, clips())


@store.needed_of_amazon
def test_a_round_trip_on_s3(micro_bundles, tmp_path):
    place = f's3://{store.BUCKET}'
    with store.amazon():
        bundles.save(f'{place}/encoder', bundles.load(micro_bundles / 'encoder'))
        assert bundles.digest(f'{place}/encoder') == bundles.digest(micro_bundles / 'encoder')
        with pytest.raises(UserError, match='already holds a bundle of kind encoder'):
            bundles.check_place(f'{place}/encoder', 'encoder')
        frame_records.write_frames(f'{place}/world', clips())
        frame_records.write_frames(tmp_path / 'world', clips())
        for here, there in zip(
            batches(f'records:{tmp_path}/world'), batches(f'records:{place}/world')
        ):
            np.testing.assert_array_equal(here['frames'], there['frames'])
        with pytest.raises(UserError, match='s3://nowhere/x.*check the name of the bucket'):
            files.write_text('s3://nowhere/x', '')
