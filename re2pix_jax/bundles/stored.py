"""Tensors that stay in their files until they are needed, and safetensors files read and written
one tensor at a time.

Weights of billions of parameters are then converted and saved with one copy of them in memory, and
not one for every stage.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable

import ml_dtypes
import numpy as np

from re2pix_jax.errors import UserError

DTYPES = {
    'F64': np.float64,
    'F32': np.float32,
    'F16': np.float16,
    'BF16': ml_dtypes.bfloat16,
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
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


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
        with open(path, 'rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            header = json.loads(file.read(length)) if 2 <= length <= LONGEST_HEADER else None
            available = os.fstat(file.fileno()).st_size - 8 - length
        if not isinstance(header, dict):
            raise ValueError('it has no header')
        header.pop('__metadata__', None)
        return {
            name: _entry(path, 8 + length, available, name, entry) for name, entry in header.items()
        }
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:  # JSON's and unicode's errors are ValueErrors
        raise UserError(
            f'{path}: is not a whole safetensors file ({error}): fetch it again'
        ) from error


def _entry(path, start, available, name, entry) -> Stored:
    dtype, shape = np.dtype(DTYPES[entry['dtype']]), tuple(entry['shape'])
    begin, end = entry['data_offsets']
    if any(type(number) is not int for number in (begin, end, *shape)):
        raise ValueError(f'{name} has sizes that are no integers')
    count = math.prod(shape)
    if (
        min(shape, default=0) < 0
        or end - begin != count * dtype.itemsize
        or begin < 0
        or end > available
    ):
        raise ValueError(f'{name} reaches beyond its {available} bytes of data')
    if not count:
        np.empty(shape, dtype)  # for numpy to refuse sides that are too long
    return Stored(
        shape, dtype, lambda: np.fromfile(path, dtype, count, offset=start + begin).reshape(shape)
    )


def write_safetensors(path, tensors: dict, dtype_of: Callable) -> None:
    """Writes tensors in the order of their names, each converted when its turn comes.

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


def _converted(name, array, dtype) -> np.ndarray:
    with np.errstate(over='ignore'):
        stored = array.astype(dtype, copy=False)
    if stored.dtype != array.dtype and not np.array_equal(np.isfinite(stored), np.isfinite(array)):
        raise UserError(
            f'tensor {name} holds values beyond float16 (65504): save it with storage float32'
        )
    return stored
