"""Files as torch.save writes them, assembled byte by byte: torch is not needed, and they may hold what it would not write."""

import pickle
import zipfile


def literal(value) -> bytes:
    """The pickle of a plain value, without protocol mark and stop."""
    return pickle.dumps(value, 2)[2:-1]


def call(function: str, *arguments: bytes) -> bytes:
    """What calls 'module.name' with pickled arguments when it is unpickled."""
    module, _, name = function.rpartition('.')
    return f'c{module}\n{name}\n('.encode() + b''.join(arguments) + b'tR'


def old_tensor(key, count, shape, stride, offset=0, module='torch', view=None) -> bytes:
    """As torch 0.3 has it: rebuilt by the function's first version, from a storage that may be a view."""
    reference = b'(' + literal('storage') + f'c{module}\nFloatStorage\n'.encode() + literal(key) + literal('cuda:0') + literal(count)
    return (b'ctorch._utils\n_rebuild_tensor\n(' + reference + literal(view) + b'tQ' + literal(offset) + literal(shape) + literal(stride)
            + b'tR')


def tensor(key, storage, count, shape, stride, offset=0) -> bytes:
    reference = b'(' + literal('storage') + f'ctorch\n{storage}\n'.encode() + literal(key) + literal('cpu') + literal(count)
    return (b'ctorch._utils\n_rebuild_tensor_v2\n(' + reference + b'tQ' + literal(offset) + literal(shape) + literal(stride)
            + literal(False) + b'ccollections\nOrderedDict\n)RtR')


def entries(**values: bytes) -> bytes:
    """A dict of pickled values."""
    return b'}' + b''.join(literal(name) + value + b's' for name, value in values.items())


def state_dict(path, tensors):
    """A checkpoint as Lightning saves it: {'state_dict': `tensors`}, {name: float32 array}."""
    def body(key, array):
        strides = [stride // array.itemsize for stride in array.strides]
        return tensor(key, 'FloatStorage', array.size, array.shape, tuple(strides))
    keys = {name: str(index) for index, name in enumerate(tensors)}
    pickled = entries(**{name: body(keys[name], array) for name, array in tensors.items()})
    return write(path, entries(state_dict=pickled), **{f's{keys[name]}': array for name, array in tensors.items()})


def write(path, body: bytes, **storages):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + body + b'.')
        for key, array in storages.items():
            archive.writestr(f'archive/data/{key.removeprefix("s")}', array.tobytes())
    return path


def write_old(path, body: bytes, **storages):
    """As `write`, in the format of torch before version 1.6: pickles one after the other, then the storages."""
    keys = [key.removeprefix('s') for key in storages]
    machine = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}
    start = [pickle.dumps(value, 2) for value in (0x1950a86a20f9469cfc6c, 1001, machine)]
    held = [len(array).to_bytes(8, 'little') + array.tobytes() for array in storages.values()]
    path.write_bytes(b''.join([*start, b'\x80\x02' + body + b'.', pickle.dumps(keys, 2), *held]))
    return path


def malicious(proof) -> dict[str, tuple[bytes, str]]:
    """{name: (a pickle that makes the file `proof` where it is believed, what a reader has to name)}."""
    touch = literal(f'touch {proof}')
    write_it = literal(f'open({str(proof)!r}, "w")')
    # `compile` makes the code and `eval` runs it: the outer call is reached only once the inner one has run.
    nested = call('builtins.eval', call('builtins.compile', write_it, literal('<file>'), literal('eval')))
    return {
        'os.system': (call('os.system', touch), 'os.system'),
        'posix.system': (call('posix.system', touch), 'posix.system'),
        'getoutput': (call('subprocess.getoutput', touch), 'subprocess.getoutput'),
        'eval': (call('builtins.eval', write_it), 'builtins.eval'),
        'nested reduce': (nested, 'builtins.eval'),
        'inside an admitted call': (call('collections.OrderedDict', b']' + b'(' + call('os.system', touch) + b'e'), 'os.system'),
        'as the state of an admitted object': (b'cargparse\nNamespace\n)R' + entries(heads=call('os.system', touch)) + b'b', 'os.system'),
    }
