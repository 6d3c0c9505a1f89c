"""Files as torch.save writes them, assembled byte by byte: torch is not needed, and they may hold
what it would not write.
"""

import pickle
import zipfile

import numpy as np


def literal(value) -> bytes:
    """The pickle of a plain value, without protocol mark and stop."""
    return pickle.dumps(value, 2)[2:-1]


def call(function: str, *arguments: bytes) -> bytes:
    """What calls 'module.name' with pickled arguments when it is unpickled."""
    module, _, name = function.rpartition('.')
    return f'c{module}\n{name}\n('.encode() + b''.join(arguments) + b'tR'


def old_tensor(key, count, shape, stride, offset=0, module='torch', view=None) -> bytes:
    """As torch 0.3 has it: rebuilt by the function's first version, from a storage that may be a
    view.
    """
    reference = (
        b'('
        + literal('storage')
        + f'c{module}\nFloatStorage\n'.encode()
        + literal(key)
        + literal('cuda:0')
        + literal(count)
    )
    return (
        b'ctorch._utils\n_rebuild_tensor\n('
        + reference
        + literal(view)
        + b'tQ'
        + literal(offset)
        + literal(shape)
        + literal(stride)
        + b'tR'
    )


def tensor(key, storage, count, shape, stride, offset=0) -> bytes:
    reference = (
        b'('
        + literal('storage')
        + f'ctorch\n{storage}\n'.encode()
        + literal(key)
        + literal('cpu')
        + literal(count)
    )
    return (
        b'ctorch._utils\n_rebuild_tensor_v2\n('
        + reference
        + b'tQ'
        + literal(offset)
        + literal(shape)
        + literal(stride)
        + literal(False)
        + b'ccollections\nOrderedDict\n)RtR'
    )


def entries(**values: bytes) -> bytes:
    """A dict of pickled values."""
    return b'}' + b''.join(literal(name) + value + b's' for name, value in values.items())


def state_dict(path, tensors, **more: bytes):
    """A checkpoint as Lightning saves it: {'state_dict': `tensors`}, {name: array of float32,
    float16 or bfloat16}; `more` is pickled.
    """

    def body(key, array):
        strides = [stride // array.itemsize for stride in array.strides]
        storage = {
            'float32': 'FloatStorage',
            'float16': 'HalfStorage',
            'bfloat16': 'BFloat16Storage',
        }[array.dtype.name]
        return tensor(key, storage, array.size, array.shape, tuple(strides))

    keys = {name: str(index) for index, name in enumerate(tensors)}
    pickled = entries(**{name: body(keys[name], array) for name, array in tensors.items()})
    return write(
        path,
        entries(state_dict=pickled, **more),
        **{f's{keys[name]}': array for name, array in tensors.items()},
    )


def write(path, body: bytes, **storages):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + body + b'.')
        for key, array in storages.items():
            archive.writestr(f'archive/data/{key.removeprefix("s")}', array.tobytes())
    return path


def write_old(path, body: bytes, **storages):
    """As `write`, in the format of torch before version 1.6: pickles one after the other, then the
    storages.
    """
    keys = [key.removeprefix('s') for key in storages]
    machine = {
        'protocol_version': 1001,
        'little_endian': True,
        'type_sizes': {'short': 2, 'int': 4, 'long': 4},
    }
    start = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, machine)]
    held = [len(array).to_bytes(8, 'little') + array.tobytes() for array in storages.values()]
    path.write_bytes(b''.join([*start, b'\x80\x02' + body + b'.', pickle.dumps(keys, 2), *held]))
    return path


def malicious(proof) -> dict[str, tuple[bytes, str]]:
    """{name: (a pickle that makes the file `proof` where it is believed, what a reader has to
    name)}.
    """
    touch = literal(f'touch {proof}')
    write_it = literal(f'open({str(proof)!r}, "w")')
    # `compile` makes the code and `eval` runs it: the outer call is reached only once the inner one
    # has run.
    nested = call(
        'builtins.eval', call('builtins.compile', write_it, literal('<file>'), literal('eval'))
    )
    return {
        'os.system': (call('os.system', touch), 'os.system'),
        'posix.system': (call('posix.system', touch), 'posix.system'),
        'getoutput': (call('subprocess.getoutput', touch), 'subprocess.getoutput'),
        'eval': (call('builtins.eval', write_it), 'builtins.eval'),
        'nested reduce': (nested, 'builtins.eval'),
        'inside an admitted call': (
            call('collections.OrderedDict', b']' + b'(' + call('os.system', touch) + b'e'),
            'os.system',
        ),
        'as the state of an admitted object': (
            b'cargparse\nNamespace\n)R' + entries(heads=call('os.system', touch)) + b'b',
            'os.system',
        ),
    }


def misused() -> dict[str, bytes]:
    """{name: a pickle that names nothing but what weights need, and abuses it}; each a state dict
    whose file holds 4 numbers as '0'.
    """
    build = lambda target, **state: (
        target + entries(**{name: literal(value) for name, value in state.items()}) + b'b'
    )
    slots = lambda target, **state: target + literal((None, state)) + b'b'
    whole = tensor('0', 'FloatStorage', 4, (4,), (1,))
    storage = (
        b'('
        + literal('storage')
        + b'ctorch\nFloatStorage\n'
        + literal('0')
        + literal('cpu')
        + literal(4)
        + b'tQ'
    )
    huge_item = literal((3, '<', None, None, None, 1 << 24, 1, 0)) + b'b'
    no_dtype = build(b'cargparse\nNamespace\n)R', dtype='O')
    empty = lambda *shape: call(
        'numpy.core.multiarray._reconstruct', b'cnumpy\nndarray\n', literal(shape), literal(b'b')
    )
    eight_bytes = literal(b'A' * 8)
    array = literal(np.arange(8.0).reshape(2, 4))
    bodies = {
        'pointers as objects': call(
            'numpy.ndarray', literal((3,)), literal('O'), literal(b'A' * 24)
        ),
        'pointers as objects, by __new__': b'cnumpy\nndarray\n('
        + literal((3,))
        + literal('O')
        + literal(b'A' * 24)
        + b't\x81',
        'another item size of a storage': b'ctorch\nBFloat16Storage\n' + huge_item,
        'another item size of a type': b'ctorch\nbfloat16\n' + huge_item,
        'another shape of a tensor': build(whole, shape=(1 << 40,)),
        'another shape of a tensor, by its slots': slots(whole, shape=(1 << 40,)),
        'another shape of a storage': call(
            'torch._utils._rebuild_tensor_v2',
            build(storage, shape=(1 << 40,)),
            literal(0),
            literal((1 << 39,)),
            literal((1,)),
        ),
        'other defaults of a function': slots(
            b'ctorch._utils\n_rebuild_tensor_v2\n', __defaults__=(1,)
        ),
        'other defaults of an inner function': slots(
            b'c_codecs\nencode\n', __defaults__=('latin1',)
        ),
        'more numbers than are stored': tensor('0', 'FloatStorage', 4, (10**13,), (0,)),
        'sizes that overflow': tensor('0', 'FloatStorage', 4, (1 << 32, 1 << 32), (0, 0)),
        'no number, but sides that overflow': tensor(
            '0', 'FloatStorage', 4, (0, 1 << 62, 1 << 62), (0, 0, 0)
        ),
        'sides that are no integers': tensor('0', 'FloatStorage', 4, (2.0,), (1,)),
        'many axes': tensor('0', 'FloatStorage', 4, (1,) * 80, (1,) * 80),
        'a storage of less than nothing': tensor('0', 'FloatStorage', -4, (4,), (1,)),
        'a tensor as a storage': call(
            'torch._utils._rebuild_tensor_v2',
            tensor('0', 'FloatStorage', 4, (4,), (0,), 3),
            literal(0),
            literal((4,)),
            literal((1,)),
        ),
        'no storage': call(
            'torch._utils._rebuild_tensor_v2',
            build(b'cargparse\nNamespace\n)R', size=9),
            literal(0),
            literal((4,)),
            literal((1,)),
        ),
        'an array of no type': empty(0)
        + b'('
        + literal(1)
        + literal((1,))
        + no_dtype
        + literal(False)
        + eight_bytes
        + b'tb',
        'an array of more than its bytes': empty(0)
        + b'('
        + literal(1)
        + literal((1 << 40,))
        + call('numpy.dtype', literal('f8'))
        + literal(False)
        + eight_bytes
        + b'tb',
        'an array never filled': empty(10**12),
        'a number of no type': call('numpy.core.multiarray.scalar', no_dtype, eight_bytes),
        'rows of an array that is given away': call('torch.Size', array),
        'memories without end': literal(1) + b'r' + (0xFFFFFFFF).to_bytes(4, 'little'),
        'memories without end, in text': literal(1) + b'p99999999999\n',
        'bytes without end': b'\x96' + (1 << 40).to_bytes(8, 'little'),
        'objects as a type': call('numpy.dtype', literal([['a', 'O']])),
    }
    return {name: entries(v=whole, w=body) for name, body in bodies.items()}
