"""The reader of torch files: what it admits, what it refuses."""

import contextlib
import json
import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from re2pix_jax.convert import torch_file
from re2pix_jax.errors import UserError
from tests.conftest import ROOT
from tests.convert.torch_pickles import (
    entries,
    literal,
    malicious,
    misused,
    old_tensor,
    tensor,
    write,
    write_old,
)


@pytest.mark.parametrize(
    ('storage', 'dtype'),
    [
        ('FloatStorage', np.float32),
        ('HalfStorage', np.float16),
        ('BFloat16Storage', ml_dtypes.bfloat16),
        ('LongStorage', np.int64),
    ],
)
def test_tensors_of_every_precision(tmp_path, storage, dtype):
    values = np.arange(12).astype(dtype)
    body = b'}' + literal('w') + tensor('0', storage, 12, (3, 2), (1, 6), 2) + b's'
    content = torch_file.tensors(write(tmp_path / 'w.pth', body, s0=values))
    assert content['w'].dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(content['w']).astype(np.float32), [[2, 8], [3, 9], [4, 10]]
    )


def test_lightning_files_and_namespaces(tmp_path):
    namespace = b'cargparse\nNamespace\n)R' + literal({'heads': 4}) + b'b'
    parameter = (
        b'ctorch._utils\n_rebuild_parameter\n('
        + tensor('0', 'FloatStorage', 2, (2,), (1,))
        + literal(True)
        + b'ccollections\nOrderedDict\n)RtR'
    )
    body = (
        b'}'
        + literal('state_dict')
        + b'}'
        + literal('a.weight')
        + parameter
        + b's'
        + b's'
        + literal('hyper_parameters')
        + b'}'
        + literal('args')
        + namespace
        + b's'
        + b's'
    )
    content = torch_file.read(write(tmp_path / 'w.ckpt', body, s0=np.array([1, 2], np.float32)))
    assert content['hyper_parameters']['args'].heads == 4
    np.testing.assert_array_equal(torch_file.tensors_in(content, 'w')['a.weight'], [1, 2])


def test_numpy_arrays_and_scikit_learns_pca_as_attributes(tmp_path):
    model = (
        b'csklearn.decomposition._pca\nPCA\n)\x81'
        + literal({'mean_': np.arange(3.0), 'noise_variance_': np.float32(2)})
        + b'b'
    )
    content = torch_file.read(write(tmp_path / 'p.pth', b'}' + literal('pca_model') + model + b's'))
    np.testing.assert_array_equal(content['pca_model'].mean_, [0, 1, 2])
    assert float(content['pca_model'].noise_variance_) == 2


@pytest.mark.parametrize('name', malicious('proof'))
def test_a_malicious_pickle_does_nothing(tmp_path, name):
    proof = tmp_path / 'proof'
    body, refused = malicious(proof)[name]
    path = write(tmp_path / 'evil.pth', body)
    with zipfile.ZipFile(path) as archive:
        with contextlib.suppress(
            ValueError, TypeError
        ):  # what os.system gives is not what the call around it takes
            pickle.loads(archive.read('archive/data.pkl'))
    assert proof.exists()  # it is what it says
    proof.unlink()
    with pytest.raises(UserError, match=f'evil.pth: its pickle asks for {refused}, .*refused'):
        torch_file.read(path)
    assert not proof.exists()


def test_files_of_torch_before_1_6(tmp_path):
    """As FID's and FVD's networks are published: two storages, of which tensors may be a part, on a
    GPU once.
    """
    values, others = np.arange(12, dtype=np.float32), np.array([3, 1], np.int64)
    body = (
        b'}'
        + literal('w')
        + old_tensor('7', 12, (3, 2), (1, 6), 2, 'torch.cuda')
        + b's'
        + literal('n')
        + tensor('9', 'LongStorage', 2, (2,), (1,))
        + b's'
    )
    path = write_old(tmp_path / 'w.pt', body, s9=others, s7=values)
    content = torch_file.tensors(path)
    np.testing.assert_array_equal(content['w'], [[2, 8], [3, 9], [4, 10]])
    np.testing.assert_array_equal(content['n'], others)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match='w.pt: is cut off within its storages: fetch it again'):
        torch_file.tensors(path)
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match='w.pt: is damaged'):
        torch_file.tensors(path)
    with pytest.raises(UserError, match='a storage that is a view of another one'):
        torch_file.tensors(
            write_old(
                path,
                b'}' + literal('w') + old_tensor('7', 12, (3,), (1,), view=('8', 0, 3)) + b's',
                s7=values,
            )
        )
    with pytest.raises(UserError, match='a storage holds 11 values and needs 12'):
        np.asarray(torch_file.tensors(write_old(path, body, s9=others, s7=values[:11]))['w'])


@pytest.mark.parametrize('name', malicious('proof'))
def test_a_malicious_old_file_does_nothing(tmp_path, name):
    proof = tmp_path / 'proof'
    body, refused = malicious(proof)[name]
    with pytest.raises(UserError, match=f'evil.pt: its pickle asks for {refused}, .*refused'):
        torch_file.read(write_old(tmp_path / 'evil.pt', body))
    assert not proof.exists()


READ_ALL = """
import json, sys
import ml_dtypes, numpy as np
from re2pix_jax.errors import UserError
from re2pix_jax.convert import torch_file, unpickled
for path in sys.argv[1:]:
    print(json.dumps(path), flush=True)  # should the next one end the process
    try:
        said = f'read: {[np.asarray(array).shape for array in torch_file.tensors(path).values()]}'
    except UserError as error:
        said = str(error)
    except BaseException as error:
        said = f'{type(error).__name__}: {error}'
    calls = unpickled.ADMITTED.values()
    admitted = [*calls, *(getattr(call, 'function', None) for call in calls)]
    kept = np.dtype(ml_dtypes.bfloat16).itemsize == 2
    kept = kept and not any(getattr(call, '__defaults__', None) for call in admitted)
    print(json.dumps([path, said, kept]), flush=True)
"""


@pytest.fixture(scope='module')
def misuses(tmp_path_factory):
    """{(name, format): (what was said of that file, whether all that the process shares is as it
    was)}, read by one other process.
    """
    folder, paths = tmp_path_factory.mktemp('misused'), {}
    for index, (name, body) in enumerate(misused().items()):
        paths[name, 'zip'] = write(folder / f'{index}.pth', body, s0=np.zeros(4, np.float32))
        paths[name, 'old'] = write_old(folder / f'{index}.pt', body, s0=np.zeros(4, np.float32))
    done = subprocess.run(
        [sys.executable, '-c', READ_ALL, *map(str, paths.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1], done.stderr)
    found = {line[0]: tuple(line[1:]) for line in lines if isinstance(line, list)}
    return {key: found[str(path)] for key, path in paths.items()}


@pytest.mark.parametrize('name', misused())
@pytest.mark.parametrize('form', ['zip', 'old'])
def test_what_is_admitted_cannot_be_misused(misuses, name, form):
    said, kept = misuses[name, form]
    assert (
        kept
        and ': is damaged (' in said
        and said.endswith('): fetch it again')
        and '\n' not in said
    ), said


def test_attributes_of_a_state_dict_are_left_aside(tmp_path):
    """torch gives it `_metadata`; another file could give it methods."""
    kept = (
        b'ccollections\nOrderedDict\n)R'
        + literal('w')
        + tensor('0', 'FloatStorage', 2, (2,), (1,))
        + b's'
    )
    body = kept + entries(_metadata=b'}', items=b'cargparse\nNamespace\n') + b'b'
    content = torch_file.tensors(
        write(tmp_path / 'w.pth', entries(state_dict=body), s0=np.array([1, 2], np.float32))
    )
    np.testing.assert_array_equal(content['w'], [1, 2])


def test_storages_are_not_compressed(tmp_path):
    """torch never does; a small file that unpacks to a terabyte would exhaust the memory."""
    body = entries(w=tensor('0', 'FloatStorage', 4, (4,), (1,)))
    path = write(tmp_path / 'w.pth', body)
    with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data/0', bytes(16))
    with pytest.raises(
        UserError,
        match='w.pth: archive/data/0 is compressed or encrypted, which torch does not do: refused',
    ):
        torch_file.read(path)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + body + b'.')
    with pytest.raises(UserError, match='w.pth: archive/data.pkl is compressed or encrypted'):
        torch_file.read(path)


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        ('argparse', 'Namespace.__init__'),
        ('numpy', 'ndarray.tofile'),
        ('torch', 'load'),
        ('torch.storage', 'FloatStorage.tolist'),
        ('collections', 'OrderedDict.fromkeys'),
        ('builtins', 'getattr'),
    ],
)
def test_nothing_near_what_is_admitted_is(tmp_path, module, name):
    stack_global = (
        b'\x80\x04'
        + b''.join(b'\x8c' + bytes([len(text)]) + text.encode() for text in (module, name))
        + b'\x93.'
    )
    with zipfile.ZipFile(tmp_path / 'w.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', stack_global)
    with pytest.raises(UserError, match=f'asks for {module}.{name}, '):
        torch_file.read(tmp_path / 'w.pth')


def test_object_arrays_are_refused(tmp_path):
    body = literal(np.array([{}, None], dtype=object))
    with pytest.raises(UserError, match='numpy array of object'):
        torch_file.read(write(tmp_path / 'o.pth', body))


def test_tensors_beyond_their_storage_are_refused(tmp_path):
    body = b'}' + literal('w') + tensor('0', 'FloatStorage', 4, (3, 2), (2, 1)) + b's'
    with pytest.raises(UserError, match='reaches beyond its storage'):
        torch_file.read(write(tmp_path / 'w.pth', body, s0=np.zeros(4, np.float32)))
    with pytest.raises(UserError, match='storage 0 holds 3 values and needs 4'):
        torch_file.read(write(tmp_path / 'v.pth', body, s0=np.zeros(3, np.float32)))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match='absent.pth: cannot be read: No such file'):
        torch_file.read(tmp_path / 'absent.pth')
    (tmp_path / 'text.pth').write_text('hello')
    with pytest.raises(UserError, match='text.pth: is not a whole zip file'):
        torch_file.read(tmp_path / 'text.pth')
    with zipfile.ZipFile(tmp_path / 'zip.pth', 'w') as archive:
        archive.writestr('a/b', b'')
    with pytest.raises(UserError, match='without data.pkl'):
        torch_file.read(tmp_path / 'zip.pth')
    with pytest.raises(UserError, match='cut.pth: is damaged'):
        torch_file.read(write(tmp_path / 'cut.pth', b'}' + literal('w') + b's'))
    with pytest.raises(UserError, match='these are not: epoch'):
        torch_file.tensors(write(tmp_path / 'n.pth', literal({'epoch': 3})))
    (tmp_path / 'x.safetensors').write_bytes(b'\x05\0\0\0\0\0\0\0abc')
    with pytest.raises(UserError, match='x.safetensors: is not a whole safetensors file'):
        torch_file.tensors(tmp_path / 'x.safetensors')


@pytest.mark.parametrize(
    'entry',
    [
        '"shape": [Infinity], "data_offsets": [0, 8]',
        '"shape": [2], "data_offsets": [0.0, 8.0]',
        '"shape": [0, 4611686018427387904, 8], "data_offsets": [0, 0]',
        '"shape": 2, "data_offsets": [0, 8]',
        '"shape": [2], "data_offsets": [0, 16]',
        '"shape": ' + '[' * 100_000,
    ],
)
def test_safetensors_files_that_do_not_hold_what_they_say(tmp_path, entry):
    header = ('{"w": {"dtype": "F32", ' + entry + '}}').encode()
    (tmp_path / 'x.safetensors').write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))
    with pytest.raises(
        UserError, match='x.safetensors: is not a whole safetensors file .*: fetch it again'
    ):
        torch_file.tensors(tmp_path / 'x.safetensors')
