"""Reads PyTorch's checkpoint files without PyTorch, and without running anything that a file might
carry.

A .pth or .ckpt file is a zip of one pickle and the raw bytes of every storage; before version 1.6
it was a few pickles and these bytes one after the other, as many published files still are. A
pickle may name any importable function and have it called, so this reader admits, by name, what
weights need (`unpickled`: tensors, containers, numpy arrays, argparse's Namespace, scikit-learn's
PCA as a bag of attributes); everything else is skipped where it lies beside the weights, and
refused among them.
"""

import functools
import io
import pathlib
import pickle
import pickletools
import re
import zipfile

import numpy as np

from re2pix_jax import schema
from re2pix_jax.bundles.stored import Stored, read_safetensors
from re2pix_jax.convert import first_bytes, unpickled
from re2pix_jax.convert.table import rename
from re2pix_jax.convert.unpickled import STORAGES, Array, Script, Skipped, Storage
from re2pix_jax.errors import UserError

MOST_NAMES = 1000
WRAPPERS = re.compile(r'\b_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.')
"""What torch.compile and its kin leave within names."""
FRONTS = ('module.', 'model.', 'backbone.')
"""What data parallel training and modules around the network put in front of all names."""


def read(path) -> object:
    """The object in a file that `torch.save` wrote; tensors come back as `Stored` (bfloat16 as
    ml_dtypes').

    Raises:
        UserError: if the file cannot be read, is no such file, is damaged, or asks for anything
            that is not admitted.
    """
    if (kind := first_bytes.kind_of(path)) != 'torch':
        raise UserError(f'{path}: is a {kind} file: expected one that torch.save wrote')
    try:
        with open(path, 'rb') as file:
            if file.read(len(first_bytes.OLD)) == first_bytes.OLD:
                file.seek(0)
                return _read_old(file, path)
        with zipfile.ZipFile(path) as archive:
            pickles = [
                name
                for name in archive.namelist()
                if name.endswith('/data.pkl') or name == 'data.pkl'
            ]
            if not pickles:
                raise UserError(
                    f'{path}: is a zip without data.pkl: expected a file written by torch.save'
                )
            root = pickles[0].removesuffix('data.pkl')
            if (
                f'{root}byteorder' in archive.namelist()
                and archive.read(f'{root}byteorder').strip() != b'little'
            ):
                raise UserError(
                    f'{path}: was written on a big-endian machine: save it again on a '
                    'little-endian one'
                )
            storage = functools.partial(_zipped_storage, path, archive, root)
            _plain_entry(path, archive, f'{root}data.pkl')
            return _load(io.BytesIO(archive.read(f'{root}data.pkl')), str(path), storage)
    except UserError:
        raise
    except zipfile.BadZipFile as error:
        raise UserError(
            f'{path}: is not a whole zip file: expected a file that torch.save wrote; fetch it '
            'again'
        ) from error
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from error
    except Exception as error:  # A damaged pickle can fail in any way that the calls it makes can.
        message = str(error).split('\n')[0]
        raise UserError(
            f'{path}: is damaged ({type(error).__name__}: {message}): fetch it again'
        ) from error


def tensors(path) -> dict[str, Stored]:
    """The tensors of a torch file, of a safetensors file, or of the files that an index
    (model.safetensors.index.json) lists, by name; what the file is, its first bytes say.

    Raises:
        UserError: as `read`, or a listed file is missing or holds other tensors than listed.
    """
    kind = first_bytes.kind_of(path)
    if kind == 'safetensors':
        return _unwrapped(read_safetensors(path), path)
    return _listed(pathlib.Path(path)) if kind == 'json' else tensors_in(read(path), path)


def _listed(index: pathlib.Path) -> dict[str, Stored]:
    places = schema.read_json(index, dict).get('weight_map')
    if not isinstance(places, dict) or not places:
        raise UserError(
            f'{index}: is JSON text without a weight_map: expected weights, or the index of a '
            'model in several files; name the file of the weights'
        )
    names = sorted({str(name) for name in places.values()})
    if absent := [name for name in names if not index.with_name(name).is_file()]:
        raise UserError(
            f'{index}: lists {", ".join(absent)}, which is not beside it: fetch all of its files'
        )
    found = {}
    for name in names:
        part, wanted = index.with_name(name), {key for key in places if places[key] == name}
        if first_bytes.kind_of(part) == 'json':
            raise UserError(f'{part}: is JSON text and no part of a model: fetch it again')
        held = (
            read_safetensors(part)
            if first_bytes.kind_of(part) == 'safetensors'
            else tensors_in(read(part), part, whole=False)
        )
        if other := sorted(wanted ^ set(held)):
            raise UserError(
                f'{part}: {len(other)} tensors do not match {index.name}, such as {other[0]!a}: '
                'fetch both again'
            )
        found |= held
    return _unwrapped(found, index)


def _unwrapped(tensors: dict[str, Stored], where) -> dict[str, Stored]:
    """Without what torch's wrappers put before the names of a module."""
    tensors = rename(tensors, lambda key: WRAPPERS.sub('', key), where)
    while front := next(
        (f for f in FRONTS if tensors and all(k.startswith(f) for k in tensors)), ''
    ):
        tensors = {key.removeprefix(front): array for key, array in tensors.items()}
    return tensors


def tensors_in(content, where, whole: bool = True) -> dict[str, Stored]:
    """The tensors of what `read` gave: those of its 'state_dict' entry where it has one (as
    Lightning's files), of the one entry that is a dict of tensors, or its own; `whole`: under the
    names that they have without torch's wrappers.
    """
    if isinstance(content, Script) and not (content := content.tensors()):
        raise UserError(
            f'{where}: is a TorchScript archive without named weights (frozen?): expected them; '
            'save the state_dict of the module that it was made of'
        )
    if isinstance(content, dict) and 'state_dict' in content:
        content = content['state_dict']
    elif isinstance(content, dict):
        inside = {key: value for key, value in content.items() if _is_state_dict(value)}
        if len(inside) > 1:
            raise UserError(
                f'{where}: holds several state dicts, {", ".join(map(ascii, inside))}: expected '
                'one; save the one that you want alone'
            )
        if not any(isinstance(value, Stored | Array) for value in content.values()):
            content = next(iter(inside.values()), content)
    _refuse_skipped([content, *(content.values() if isinstance(content, dict) else ())], where)
    if not isinstance(content, dict) or not content:
        raise UserError(f'{where}: expected a dict of tensors and found {type(content).__name__}')
    strange = [
        key if isinstance(key, str) and key.isprintable() else ascii(key)
        for key, value in content.items()
        if not isinstance(value, Stored | Array)
        or not isinstance(key, str)
        or not key.isprintable()
    ]
    if strange:
        raise UserError(
            f'{where}: expected nothing but tensors in its state dict, and these are not: '
            f'{", ".join(strange)}'
        )
    found = {
        key: value.array if isinstance(value, Array) else value for key, value in content.items()
    }
    return _unwrapped(found, where) if whole else found


def _is_state_dict(value) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(array, Stored | Array) for array in value.values())
    )


def _refuse_skipped(values, where) -> None:
    """Refuses what would have to be a weight and was not built."""
    for value in values:
        if isinstance(value, Skipped) or isinstance(value, type) and issubclass(value, Skipped):
            raise _refused(where, value.asked)


def _refused(where, asked: str) -> UserError:
    return UserError(
        f'{where}: its pickle asks for {ascii(asked)[1:-1]}, which weights do not need: refused, '
        'because such a file could run any code; convert it where you trust it, to plain tensors'
    )


def _read_old(file, path) -> object:
    """The object in a file as torch.save wrote it before version 1.6.

    Pickles of a magic number, a version, the machine's sizes, the object and the storages' keys in
    order; then each storage: how many values, as 8 bytes, and their bytes.
    """
    where, asked, places = str(path), {}, {}

    def storage(key, dtype, count):
        if asked.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f'storage {key} of two sizes or types')
        return Storage((count,), dtype, lambda: _old_storage(path, places[key], dtype, count))

    load = lambda: _load(file, where, storage)
    _, version, machine = load(), load(), load()
    if version != 1001 or not machine.get('little_endian'):
        raise UserError(
            f'{where}: has version {version} of the old format on a machine of sizes {machine}: '
            'expected 1001, little-endian; save it again with a newer torch'
        )
    content, keys = load(), load()
    for key in keys:
        count = int.from_bytes(file.read(8), 'little')
        places[key] = file.tell(), count
        file.seek(count * asked[key][0].itemsize, io.SEEK_CUR)
    if set(asked) - set(keys) or file.tell() > file.seek(0, io.SEEK_END):
        raise UserError(f'{where}: is cut off within its storages: fetch it again')
    return content


def _old_storage(path, place, dtype, count) -> np.ndarray:
    start, held = place
    if held < count:
        raise UserError(
            f'{path}: a storage holds {held} values and needs {count}: fetch the file again'
        )
    return np.fromfile(path, dtype, count, offset=start)


def _load(file, where: str, storage) -> object:
    """The object of the pickle that begins here, whose steps are looked through first.

    The interpreter's own unpickler makes room for as many memories and bytes as a step names, there
    or not: refused before it does.
    """
    start = file.tell()
    for step, argument, position in pickletools.genops(file):
        if step.proto > 4 or step.name in ('PUT', 'LONG_BINPUT') and argument > position:
            raise ValueError(
                f'{step.name} {argument} at byte {position}, which torch does not write'
            )
    file.seek(start)
    content = _Unpickler(file, where, storage).load()
    _refuse_skipped([content], where)
    return content


class _Unpickler(pickle.Unpickler):
    """Admits what weights need; `storage` gives the `Stored` of a (key, dtype, number of
    values).
    """

    def __init__(self, file, where: str, storage):
        super().__init__(file, encoding='utf-8')
        self.where, self.storage = where, storage
        # A type for each name that is skipped, or a small file could have any number of them.
        self.find = functools.lru_cache(MOST_NAMES)(unpickled.find)

    def find_class(self, module: str, name: str):
        found = self.find(module, name)
        if self.find.cache_info().currsize == MOST_NAMES:
            raise ValueError(f'it asks for {MOST_NAMES} types')
        if found is None:
            raise _refused(self.where, f'{module}.{name}')
        return found

    def persistent_load(self, reference):
        """('storage', dtype, key, device, number of elements) -> that storage, not yet read."""
        kind = reference[1] if isinstance(reference, tuple) and len(reference) > 4 else None
        if isinstance(kind, type) and issubclass(kind, Skipped):
            raise UserError(
                f'{self.where}: holds a tensor of {ascii(kind.asked)[1:-1]}, which is not read '
                'here: save it as float32'
            )
        if (
            not isinstance(reference, tuple)
            or len(reference) < 5
            or reference[0] != 'storage'
            or not isinstance(reference[1], str)
            or reference[1] not in STORAGES
        ):
            raise UserError(f'{self.where}: refers to something that is no tensor storage: refused')
        _, kind, key, _, count, *view = reference
        if any(part is not None for part in view):
            raise ValueError('a storage that is a view of another one')
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError(f'a storage of {count} values')
        return self.storage(key, np.dtype(STORAGES[kind]), count)


def _plain_entry(path, archive, name) -> zipfile.ZipInfo:
    """An entry that takes as much of the file as it holds: unpacking could give any amount."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise UserError(
            f'{path}: {name} is compressed or encrypted, which torch does not do: refused; save it '
            'again with torch'
        )
    return entry


def _zipped_storage(path, archive, root, key, dtype, count) -> Storage:
    name = f'{root}data/{key}'
    held = _plain_entry(path, archive, name).file_size // dtype.itemsize
    if held < count:
        raise UserError(
            f'{path}: storage {key} holds {held} values and needs {count}: fetch the file again'
        )
    return Storage((held,), dtype, lambda: _storage(path, name, dtype, held))


def _storage(path, name, dtype, count) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.frombuffer(archive.read(name), dtype, count)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f'{path}: is damaged ({error}): fetch it again') from error
