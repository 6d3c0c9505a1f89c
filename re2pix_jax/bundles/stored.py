"""Tensors that stay in their files until they are needed, and safetensors files read and written
one tensor at a time: weights of billions of parameters are then converted and saved with one copy
of them in memory, and not one for every stage.
"""

import dataclasses
import json
import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import safetensors

from re2pix_jax import files
from re2pix_jax.errors import UserError

DTYPES = {
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': ml_dtypes.bfloat16,
    'F8_E4M3': ml_dtypes.float8_e4m3fn,
    'F8_E5M2': ml_dtypes.float8_e5m2,
    'I64': np.int64,
    'I32': np.int32,
    'I16': np.int16,
    'I8': np.int8,
    'U64': np.uint64,
    'U32': np.uint32,
    'U16': np.uint16,
    'U8': np.uint8,
    'BOOL': np.bool_,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor on disk: `shape` and `dtype` are known, `np.asarray` reads it (anew each time)."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __setstate__(self, _):
        # A pickle that holds one could move its bounds away from what they were checked against.
        raise TypeError('a stored tensor has no state to set')

    def __array__(self, dtype=None, copy=None):
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)


def read_safetensors(path) -> dict[str, Stored]:
    """The tensors of a safetensors file, by name.

    Raises:
        UserError: the file cannot be read, is cut short, or is of another format.
    """
    try:
        with open(path, 'rb'), safetensors.safe_open(path, 'numpy') as file:
            return {name: _entry(path, name, file.get_slice(name)) for name in file.keys()}
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        with open(path, 'rb') as file:
            if found := files.instead(file.read(512)):
                what, advice = found
                raise UserError(f'{path}: is {what}, and no file of weights: {advice}') from error
        reason = ' '.join(str(error).split())  # the library repeats what the file says
        raise UserError(
            f'{path}: is not a whole safetensors file ({reason}): fetch it again'
        ) from error


def _entry(path, name, part) -> Stored:
    if not name.isprintable():
        raise ValueError(f'a tensor is called {name!r}')
    if part.get_dtype() not in DTYPES:
        raise UserError(
            f'{path}: tensor {name} is of type {part.get_dtype()}, which is not read here: '
            f'expected one of {", ".join(DTYPES)}; save it as F32'
        )
    dtype, shape = np.dtype(DTYPES[part.get_dtype()]), tuple(part.get_shape())
    if not math.prod(shape):
        np.empty(shape, dtype)  # for numpy to refuse sides that are too long

    def read():
        # Opened anew each time: what a file has given stays in memory as long as it is open.
        with safetensors.safe_open(path, 'numpy') as file:
            if not dtype.name.startswith('float8'):
                return file.get_tensor(name)
        with open(path, 'rb') as file:  # the library has no 8-bit numbers for numpy
            start = int.from_bytes(file.read(8), 'little')
            start += 8 + json.loads(file.read(start))[name]['data_offsets'][0]
        return np.fromfile(path, dtype, math.prod(shape), offset=start).reshape(shape)

    return Stored(shape, dtype, read)


def write_safetensors(path, tensors: dict, dtype_of: Callable) -> None:
    """Writes tensors in the order of their names, each converted when its turn comes.

    By hand, for the library wants all tensors at once, as they are to be stored: a second copy of
    them in memory.

    Args:
        path: the file, overwritten.
        tensors: name → array, `Stored` or jax array.
        dtype_of: (name, tensor) → numpy dtype that it is stored in.

    Raises:
        UserError: a tensor holds finite values beyond its storage type.
    """
    header, begin = {}, 0
    for name in sorted(tensors):
        dtype = np.dtype(dtype_of(name, tensors[name]))
        end = begin + math.prod(tensors[name].shape) * dtype.itemsize
        header[name] = {
            'dtype': NAMES[dtype],
            'shape': list(tensors[name].shape),
            'data_offsets': [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)  # the data then starts aligned
    with open(path, 'wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for name, entry in header.items():
            file.write(
                _converted(name, np.asarray(tensors[name]), DTYPES[entry['dtype']]).tobytes()
            )


def is_floating(array) -> bool:
    """Whether a tensor holds floating numbers, those of ml_dtypes included."""
    return 'float' in array.dtype.name


def _converted(name, array, dtype) -> np.ndarray:
    with np.errstate(over='ignore'):
        stored = array.astype(dtype, copy=False)
    if stored.dtype != array.dtype and not np.array_equal(np.isfinite(stored), np.isfinite(array)):
        raise UserError(
            f'tensor {name} holds values beyond float16 (65504): save it with storage float32'
        )
    return stored
