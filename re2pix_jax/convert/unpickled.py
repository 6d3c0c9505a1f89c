"""What a pickle of weights may name, and what stands there in its place.

What weights do not need is not built: an empty `Skipped` takes its place and whatever is done to
it, and is refused where it would have to be a weight.

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
    'UntypedStorage': np.uint8,  # bytes, of types that came after the storages above
}
LATER = {
    'float8_e4m3fn': ml_dtypes.float8_e4m3fn,
    'float8_e5m2': ml_dtypes.float8_e5m2,
    'uint16': np.uint16,
    'uint32': np.uint32,
    'uint64': np.uint64,
}
DTYPES = (
    *LATER,
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
MOST_REPEATED = 1 << 24
"""Numbers of a tensor that is stored as fewer, as `expand` leaves them."""
HARMFUL = frozenset(
    '_pickle asyncio code ctypes commands importlib marshal multiprocessing nt os pdb pickle posix '
    'pty runpy shutil signal socket subprocess sys webbrowser'.split()
)
"""Modules that no training puts into a checkpoint [O]: skipping them would be as safe, and would
keep from people what they were given."""
HARMLESS = frozenset(
    'bool bytearray bytes complex dict float frozenset int list object range set slice str '
    'tuple'.split()
)
"""Of builtins, whose others are refused as well."""


def find(module: str, name: str):
    """What stands for `module.name`: a new type of `Skipped` where weights do not need it, None
    where no file should ask for it.
    """
    if (
        module in ('torch', 'torch.storage', 'torch.cuda')
        and name in STORAGES
        or module == 'torch'
        and name in DTYPES
    ):
        return name
    if module.startswith('__torch__'):
        return Script
    if (module, name) in ADMITTED:
        return ADMITTED[module, name]
    root = module.partition('.')[0]
    if root in HARMFUL or root in ('builtins', '__builtin__') and name not in HARMLESS:
        return None
    return type('Skipped', (Skipped,), {'__slots__': (), 'asked': f'{module}.{name}'})


class Skipped:
    """Stands in for whatever weights do not need, and for what it would give: takes all that a
    pickle can do to an object, and keeps nothing of it. `asked`: what the file called it.
    """

    __slots__ = ()
    asked = ''

    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def __init__(self, *_, **__):
        pass

    def _take(self, *_):
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _take


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


class Script(Attributes):
    """A module of a TorchScript archive: its tensors and its modules, by name."""

    def tensors(self) -> dict[str, Stored]:
        """As the module's state_dict, a module that stands in two places at the first."""
        found, seen, waiting = {}, set(), [('', self)]
        while waiting:
            front, module = waiting.pop()
            for name, value in vars(module).items():
                if isinstance(value, Stored):
                    found[f'{front}{name}'] = value
                elif isinstance(value, Script) and id(value) not in seen:
                    seen.add(id(value))
                    waiting.append((f'{front}{name}.', value))
        return found


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
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    # What a file stores once and repeats could otherwise fill any memory.
    if last >= storage.size or count > max(storage.size, MOST_REPEATED):
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


def _rebuild_later_tensor(storage, offset, size, stride, _, __, kind, *___):
    """A tensor of a type in `LATER`, as a part of a storage of bytes."""
    if not isinstance(storage, Storage) or storage.dtype != np.uint8:
        raise TypeError('a tensor that is no part of a storage of bytes')
    dtype = np.dtype(LATER[kind])
    count = storage.size // dtype.itemsize
    read = lambda: np.asarray(storage)[: count * dtype.itemsize].view(dtype)
    return _rebuild_tensor(Storage((count,), dtype, read), offset, size, stride)


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
    ('torch._utils', '_rebuild_tensor_v3'): Call(_rebuild_later_tensor),
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
