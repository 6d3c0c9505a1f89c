"""Reads PyTorch's checkpoint files without PyTorch, and without running anything that a file might carry.

A .pth or .ckpt file is a zip of one pickle and the raw bytes of every storage; before version 1.6 it was a few pickles and these bytes
one after the other, as many published files still are. A pickle may name any importable function and
have it called, so this reader admits, by name, what weights need (tensors, containers, numpy arrays, argparse's Namespace,
scikit-learn's PCA as a bag of attributes) and refuses everything else.
"""

import collections
import functools
import io
import pickle
import zipfile

import ml_dtypes
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.weights.stored import Stored, read_safetensors

STORAGES = {
    'DoubleStorage': np.float64, 'FloatStorage': np.float32, 'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16, 'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16,
    'CharStorage': np.int8, 'ByteStorage': np.uint8, 'BoolStorage': np.bool_,
}
DTYPES = {
    'float64': np.float64, 'float32': np.float32, 'float16': np.float16, 'bfloat16': ml_dtypes.bfloat16,
    'int64': np.int64, 'int32': np.int32, 'int16': np.int16, 'int8': np.int8, 'uint8': np.uint8, 'bool': np.bool_,
}


MAGIC = 0x1950a86a20f9469cfc6c
"""What the first pickle of a file before version 1.6 holds."""
START = b'\x80\x02\x8a\n' + MAGIC.to_bytes(10, 'little')
"""How such a file begins: that pickle."""


class Attributes:
    """Stands in for an object whose class is not run: its pickled attributes, and nothing else."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise UserError(f'expected the attributes of a {type(self).__name__}, found {type(state).__name__}')
        vars(self).update(state)


class Namespace(Attributes):
    """argparse.Namespace: the arguments of the run that wrote the file."""


class PCA(Attributes):
    """sklearn.decomposition.PCA: `mean_`, `components_` and more."""


def read(path) -> object:
    """The object in a file that `torch.save` wrote; tensors come back as `Stored` (bfloat16 as ml_dtypes').

    Raises:
        UserError: if the file cannot be read, is no such file, is damaged, or asks for anything that is not admitted.
    """
    try:
        with open(path, 'rb') as file:
            if file.read(len(START)) == START:
                file.seek(0)
                return _read_old(file, path)
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith('/data.pkl') or name == 'data.pkl']
            if not pickles:
                raise UserError(f'{path}: is a zip without data.pkl: expected a file written by torch.save')
            root = pickles[0].removesuffix('data.pkl')
            if f'{root}byteorder' in archive.namelist() and archive.read(f'{root}byteorder').strip() != b'little':
                raise UserError(f'{path}: was written on a big-endian machine: save it again on a little-endian one')
            storage = functools.partial(_zipped_storage, path, archive, root)
            return _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')), str(path), storage).load()
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(f'{path}: is not a whole zip file: expected a file that torch.save wrote; fetch it again') from error
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
    except Exception as error:  # A damaged pickle can fail in any way that the calls it makes can.
        message = str(error).split('\n')[0]
        raise UserError(f'{path}: is damaged ({type(error).__name__}: {message}): fetch it again') from error


def tensors(path) -> dict[str, Stored]:
    """The tensors of a torch file, or of a .safetensors file, by name."""
    if str(path).endswith('.safetensors'):
        return read_safetensors(path)
    return tensors_in(read(path), path)


def tensors_in(content, where) -> dict[str, Stored]:
    """The tensors of what `read` gave: those of its 'state_dict' entry where it has one (as Lightning's files), or its own."""
    if isinstance(content, dict) and isinstance(content.get('state_dict'), dict):
        content = content['state_dict']
    if not isinstance(content, dict) or not content:
        raise UserError(f'{where}: expected a dict of tensors and found {type(content).__name__}')
    strange = [str(key) for key, value in content.items() if not isinstance(value, Stored | np.ndarray)]
    if strange:
        raise UserError(f'{where}: expected nothing but tensors in its state dict, and these are not: {", ".join(strange)}')
    return dict(content)


def _read_old(file, path) -> object:
    """The object in a file as torch.save wrote it before version 1.6.

    Pickles of a magic number, a version, the machine's sizes, the object and the storages' keys in order; then each storage: how
    many values, as 8 bytes, and their bytes.
    """
    where, asked, places = str(path), {}, {}

    def storage(key, dtype, count):
        asked[key] = dtype
        return Stored((count,), dtype, lambda: _old_storage(path, places[key], dtype, count))

    load = lambda: _Unpickler(file, where, storage).load()
    _, version, machine = load(), load(), load()
    if version != 1001 or not machine.get('little_endian'):
        raise UserError(f'{where}: has version {version} of the old format on a machine of sizes {machine}: expected 1001, little-endian; '
                        'save it again with a newer torch')
    content, keys = load(), load()
    for key in keys:
        count = int.from_bytes(file.read(8), 'little')
        places[key] = file.tell(), count
        file.seek(count * asked[key].itemsize, io.SEEK_CUR)
    if set(asked) - set(keys) or file.tell() > file.seek(0, io.SEEK_END):
        raise UserError(f'{where}: is cut off within its storages: fetch it again')
    return content


def _old_storage(path, place, dtype, count) -> np.ndarray:
    start, held = place
    if held < count:
        raise UserError(f'{path}: a storage holds {held} values and needs {count}: fetch the file again')
    return np.fromfile(path, dtype, count, offset=start)


class _Unpickler(pickle.Unpickler):
    """Admits what weights need; `storage` gives the `Stored` of a (key, dtype, number of values)."""

    def __init__(self, file, where: str, storage):
        super().__init__(file, encoding='utf-8')
        self.where, self.storage = where, storage

    def find_class(self, module: str, name: str):
        if module in ('torch', 'torch.storage', 'torch.cuda') and name in STORAGES:
            return np.dtype(STORAGES[name])
        if module == 'torch' and name in DTYPES:
            return np.dtype(DTYPES[name])
        if (module, name) in ADMITTED:
            return ADMITTED[module, name]
        raise UserError(f'{self.where}: its pickle asks for {module}.{name}, which weights do not need: refused, because '
                        f'such a file could run any code; convert it where you trust it, to plain tensors')

    def persistent_load(self, reference):
        """('storage', dtype, key, device, number of elements) -> that storage, not yet read."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != 'storage' \
                or not isinstance(reference[1], np.dtype):
            raise UserError(f'{self.where}: refers to something that is no tensor storage: refused')
        _, dtype, key, _, count, *view = reference
        if any(part is not None for part in view):
            raise ValueError('a storage that is a view of another one')
        return self.storage(key, dtype, count)


def _zipped_storage(path, archive, root, key, dtype, count) -> Stored:
    name = f'{root}data/{key}'
    held = archive.getinfo(name).file_size // dtype.itemsize
    if held < count:
        raise UserError(f'{path}: storage {key} holds {held} values and needs {count}: fetch the file again')
    return Stored((held,), dtype, lambda: _storage(path, name, dtype))


def _storage(path, name, dtype) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(name), dtype)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: is damaged ({error}): fetch it again') from error


def _rebuild_tensor(storage, offset, size, stride, *_):
    """A tensor as a part of `storage`, checked against its bounds."""
    if not isinstance(storage, Stored) or len(size) != len(stride) or min([offset, *size, *stride, 0]) < 0:
        raise ValueError('a tensor with impossible sizes')
    count = int(np.prod(size, dtype=np.int64))
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if count and last >= storage.size:
        raise ValueError('a tensor reaches beyond its storage')

    def cut():
        if not count:
            return np.zeros(size, storage.dtype)
        bytes_apart = [step * storage.dtype.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage.read()[offset:], size, bytes_apart, writeable=False)

    return Stored(tuple(size), storage.dtype, cut)


def _rebuild_parameter(data, *_):
    return data


def _numpy_dtype(kind, *_):
    """numpy.dtype of plain numbers only: an object array would hold pickled objects."""
    dtype = np.dtype(kind)
    if dtype.hasobject or dtype.names:
        raise ValueError(f'a numpy array of {dtype}')
    return _Dtype(dtype)


class _Dtype:
    """A numpy dtype under construction: pickles set its byte order afterwards."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype

    def __setstate__(self, state):
        if len(state) > 1 and state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """A numpy array under construction; its state comes with a `_Dtype`."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        super().__setstate__((1, shape, dtype.dtype, fortran, data))


def _numpy_reconstruct(_, shape, __):
    return np.ndarray.__new__(_Array, shape, np.int8)


def _numpy_scalar(dtype, data):
    return np.frombuffer(data, dtype.dtype)[0]


def _encode(text, encoding):
    """How protocol 2 pickles bytes: a latin1 string to be encoded."""
    if encoding != 'latin1':
        raise ValueError(f'bytes in encoding {encoding}')
    return text.encode('latin1')


ADMITTED = {
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    ('torch', 'Size'): tuple,
    ('torch', 'device'): Attributes,
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('argparse', 'Namespace'): Namespace,
    ('_codecs', 'encode'): _encode,
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _numpy_dtype,
    **{(f'numpy.{core}.multiarray', '_reconstruct'): _numpy_reconstruct for core in ('core', '_core')},
    **{(f'numpy.{core}.multiarray', 'scalar'): _numpy_scalar for core in ('core', '_core')},
    ('sklearn.decomposition._pca', 'PCA'): PCA,
    ('sklearn.decomposition.pca', 'PCA'): PCA,
}
