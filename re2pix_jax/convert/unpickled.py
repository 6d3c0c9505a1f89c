"""What a pickle of weights may name, and what stands there in its place.

A pickle may call whatever it gets hold of, set the state of it, and set its attributes where it has
no `__setstate__`. So it gets hold of nothing that is shared or checked only once: types and
storages are their names, functions cannot be altered, a tensor keeps the bounds that it was made
with, and an array is made of bytes and never handed out while it can still change.
"""

import collections
import math

import ml_dtypes
import numpy as np

from re2pix_jax.bundles.stored import Stored
from re2pix_jax.errors import UserError

STORAGES = {
    'DoubleStorage': np.float64,
    'FloatStorage': np.float32,
    'HalfStorage': np.float16,
    'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64,
    'IntStorage': np.int32,
    'ShortStorage': np.int16,
    'CharStorage': np.int8,
    'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}
DTYPES = (
    'float64',
    'float32',
    'float16',
    'bfloat16',
    'int64',
    'int32',
    'int16',
    'int8',
    'uint8',
    'bool',
)
NUMBERS_AND_TEXT = 'biufcSU'
MOST_AXES = 32


def find(module: str, name: str):
    """What stands for `module.name`; None where weights do not need it."""
    if (
        module in ('torch', 'torch.storage', 'torch.cuda')
        and name in STORAGES
        or module == 'torch'
        and name in DTYPES
    ):
        return name
    return ADMITTED.get((module, name))


class Attributes:
    """Stands in for an object whose class is not run: its pickled attributes, and nothing else."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise UserError(
                f'expected the attributes of a {type(self).__name__}, found {type(state).__name__}'
            )
        vars(self).update(state)


class Namespace(Attributes):
    """argparse.Namespace: the arguments of the run that wrote the file."""


class PCA(Attributes):
    """sklearn.decomposition.PCA: `mean_`, `components_` and more."""


class Dict(collections.OrderedDict):
    """collections.OrderedDict without attributes: torch adds notes to a state dict that nothing
    here reads.
    """

    def __setstate__(self, _):
        pass


class Call:
    """A function that a pickle may call and not alter: it is the same one for every file."""

    __slots__ = ('function',)

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __setstate__(self, _):
        raise TypeError('a function has no state')


class Storage(Stored):
    """All numbers of a torch storage, flat: the one thing that a tensor can be a part of."""


def _rebuild_tensor(storage, offset, size, stride, *_):
    """A tensor as a part of `storage`, checked against its bounds."""
    if not isinstance(storage, Storage):
        raise TypeError('a tensor that is no part of a storage')
    if (
        not isinstance(size, tuple)
        or not isinstance(stride, tuple)
        or len(size) != len(stride)
        or len(size) > MOST_AXES
        or any(type(number) is not int or number < 0 for number in (offset, *size, *stride))
    ):
        raise ValueError('a tensor with impossible sizes')
    dtype, count = storage.dtype, math.prod(size)
    if not count:
        empty = np.zeros(size, dtype)  # at once, for numpy to refuse sides that are too long
        return Stored(size, dtype, lambda: empty)
    # Repeats included: what a file says is stored once could otherwise fill any memory.
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if last >= storage.size or count > storage.size:
        raise ValueError(f'a tensor {list(size)} reaches beyond its storage of {storage.size}')

    def cut():
        array = storage.read()
        if array.ndim != 1 or array.dtype != dtype or last >= array.size:
            raise UserError(
                f'a tensor {list(size)} reaches beyond the {array.size} values that are stored: '
                'fetch the file again'
            )
        # numpy checks the bounds once more, which `as_strided` would not.
        return np.ndarray(
            size, dtype, array, offset * dtype.itemsize, [step * dtype.itemsize for step in stride]
        )

    return Stored(size, dtype, cut)


def _rebuild_parameter(data, *_):
    return data


class _Dtype:
    """A numpy dtype under construction: pickles set its byte order afterwards."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype

    def __setstate__(self, state):
        if len(state) > 1 and state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_dtype(kind, *_):
    """numpy.dtype of plain numbers and text only: an object array would hold pickled objects."""
    dtype = np.dtype(kind if isinstance(kind, str) else 'O')
    if dtype.kind not in NUMBERS_AND_TEXT or not dtype.itemsize:
        raise ValueError(f'a numpy array of {dtype}')
    return _Dtype(dtype)


class Array:
    """A numpy array under construction: empty until its state comes, in bytes and with a
    `_Dtype`.
    """

    def __init__(self):
        self.array = np.zeros(0, np.int8)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        _check(dtype, data)
        # Bytes cannot change, and the array is not resized: another state is another array.
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order='F' if fortran else 'C')

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype, copy=False)


def _numpy_reconstruct(_, shape, __):
    if shape != (0,):
        raise ValueError(f'a numpy array of {shape} that nothing fills')
    return Array()


def _numpy_scalar(dtype, data):
    _check(dtype, data)
    return np.frombuffer(data, dtype.dtype, 1)[0]


def _check(dtype, data):
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise TypeError('a numpy array that is not made of a type and bytes')


def _encode(text, encoding):
    """How protocol 2 pickles bytes: a latin1 string to be encoded."""
    if encoding != 'latin1' or not isinstance(text, str):
        raise ValueError(f'bytes in encoding {encoding}')
    return text.encode('latin1')


ADMITTED = {
    ('torch._utils', '_rebuild_tensor_v2'): Call(_rebuild_tensor),
    ('torch._utils', '_rebuild_tensor'): Call(_rebuild_tensor),
    ('torch._utils', '_rebuild_parameter'): Call(_rebuild_parameter),
    ('torch', 'Size'): tuple,
    ('torch', 'device'): Attributes,
    ('collections', 'OrderedDict'): Dict,
    ('argparse', 'Namespace'): Namespace,
    ('_codecs', 'encode'): Call(_encode),
    ('numpy', 'ndarray'): 'numpy.ndarray',
    ('numpy', 'dtype'): Call(_numpy_dtype),
    **{
        (f'numpy.{core}.multiarray', '_reconstruct'): Call(_numpy_reconstruct)
        for core in ('core', '_core')
    },
    **{(f'numpy.{core}.multiarray', 'scalar'): Call(_numpy_scalar) for core in ('core', '_core')},
    ('sklearn.decomposition._pca', 'PCA'): PCA,
    ('sklearn.decomposition.pca', 'PCA'): PCA,
}
