"""Files that people give us, damaged at random: each opens, or is refused in one line.

Nothing else may come of them: no other error, no file that takes long, no memory out of proportion.
"""

import collections
import copy
import functools
import io
import json
import random
import resource
import shutil
import signal
import sys
import time
import zipfile

import jax
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.bundles import hub, stored
from re2pix_jax.convert import dino_foresight, torch_file
from re2pix_jax.data import records
from re2pix_jax.errors import UserError
from tests.convert import micro_files, torch_pickles

TRIES = 2000
QUICK = {'bundle_config': 500}  # without --slow: half a second for each network that can be built
SECONDS = 20  # that one file may take
MEGABYTES = 500  # that all files of a format may take
VALUES = (
    *(None, True, False, 0, -1, 1, 3, 257, 65_537, 1 << 31, 1 << 53, 1 << 63, 1 << 70, 10**400),
    *(0.0, -0.5, 0.5, 1e9, 1e308, float('nan'), float('inf'), float('-inf')),
    *('', 'x', 'float16', 'x\0y', 'a\nb', '../..', '.', '/', 'hf:owner/repo', '\ud800', 'x' * 5000),
    *([], {}, [0], [1, 2], [-1, 2], ['x', 'y'], [[1], [2]], [1 << 40, 1 << 40], [1] * 60),
    *({'x': 1}, {'encoder': 'x'}, functools.reduce(lambda inner, _: [inner], range(100), [])),
)


def damaged_bytes(draw, content: bytes) -> bytes:
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(content) + 1)
        length = draw.choice((1, 1, 2, 4, 8, 64))
        kind = draw.randrange(6)
        if kind == 0:
            content[place : place + length] = draw.randbytes(length)
        elif kind == 1:
            content[place : place + length] = b''
        elif kind == 2:
            content[place:place] = draw.randbytes(length)
        elif kind == 3:
            content[place : place + length] = draw.choice((b'\xff', b'\0', b'\x7f')) * length
        elif kind == 4:
            start = draw.randrange(len(content) + 1)
            content[place : place + length] = content[start : start + length]
        elif place:
            del content[place:]
    return bytes(content)


def damaged_json(draw, content: bytes) -> bytes:
    """Another value at a random place, a key gone or renamed, a list longer or shorter; now and
    then other bytes.
    """
    if draw.random() < 0.15:
        return draw.choice((damaged_bytes(draw, content), b'[' * 50_000))
    tree = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = []

        def walk(node, places=places):
            for step in node if isinstance(node, dict) else range(len(node)):
                places.append((node, step))
                if isinstance(node[step], dict | list):
                    walk(node[step])

        walk(tree)
        if not places:
            break
        (node, step), (other, there) = draw.choice(places), draw.choice(places)
        kind = draw.randrange(8)
        if kind == 0:
            del node[step]
        elif kind == 1:
            node[step] = copy.deepcopy(other[there])
        elif kind == 2 and isinstance(node, dict):
            node[draw.choice((step + 'x', 'x', '', 'a/b', 'a\nb'))] = node.pop(step)
        elif kind == 3 and isinstance(node, list):
            node.append(copy.deepcopy(node[step]))
        elif kind == 4 and type(node[step]) in (int, float):
            node[step] = draw.choice((node[step] + 1, -node[step], node[step] * 2.5, 7))
        else:
            node[step] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(tree).encode()


def damaged_header(draw, content: bytes) -> bytes:
    """A safetensors file whose header fits its length and says something else."""
    if draw.random() < 0.4:
        return damaged_bytes(draw, content)
    length = int.from_bytes(content[:8], 'little')
    header = damaged_json(draw, content[8 : 8 + length])
    return len(header).to_bytes(8, 'little') + header + content[8 + length :]


def damaged_zip(draw, content: bytes) -> bytes:
    """A torch file whose pickle says something else; in one case of four the zip itself does."""
    if draw.random() < 0.25:
        return damaged_bytes(draw, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(written := io.BytesIO(), 'w') as archive:
        for name, entry in entries.items():
            archive.writestr(name, damaged_bytes(draw, entry) if name[-4:] == '.pkl' else entry)
    return written.getvalue()


def every_value(tensors) -> None:
    for tensor in tensors.values():
        np.asarray(tensor)


def bundle_config(folder, micro_bundles):
    """Files of every kind of bundle, in turn."""
    kinds = ('encoder', 'principal', 'vae', 'forecaster', 'head', 'generator', 'judge', 're2pix')
    for kind in kinds:
        shutil.copytree(micro_bundles / kind, folder / kind)

    def opened(file):
        bundles.load(file.parent)
        bundles.digest(file.parent)

    return [folder / kind / 'config.json' for kind in kinds], damaged_json, opened


def manifest(folder, micro_bundles):
    shutil.copytree(micro_bundles / 'clips', folder / 'clips')
    reader = records._open(folder / 'clips', 'train')

    def opened(file):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, '_open', lambda *_: reader)
            clips = records.Records(file.parent, 'train')
        for index in range(len(clips)):
            (clips.name(index), clips.fps(index), clips.target(index), clips.depth_kind(index))
        clips.contents()
        clips.read(0, [0])

    return [folder / 'clips' / 'manifest.json'], damaged_json, opened


def dataset_info(folder, micro_bundles):
    shutil.copytree(micro_bundles / 'clips', folder / 'clips')

    def opened(file):
        records.Records(file.parent, 'train').read(0, [0])

    return [folder / 'clips' / 'dataset_info.json'], damaged_json, opened


def safetensors(folder, micro_bundles):
    tensors = {
        'a': np.ones((2, 3), np.float32),
        'b/c': np.ones(5, np.float16),
        'd': np.ones((), np.int64),
        'e': np.ones((0, 4), np.uint8),
    }
    stored.write_safetensors(folder / 'x.safetensors', tensors, lambda _, array: array.dtype)
    return (
        [folder / 'x.safetensors'],
        damaged_header,
        lambda file: every_value(stored.read_safetensors(file)),
    )


def _tensors():
    body = torch_pickles.entries(
        w=torch_pickles.tensor('0', 'FloatStorage', 12, (3, 2), (1, 6), 2),
        n=torch_pickles.tensor('1', 'LongStorage', 2, (2,), (1,)),
    )
    return body, {'s0': np.arange(12, dtype=np.float32), 's1': np.array([3, 1])}


def torch_zip(folder, micro_bundles):
    body, storages = _tensors()
    torch_pickles.write(folder / 'w.pth', body, **storages)
    return [folder / 'w.pth'], damaged_zip, lambda file: every_value(torch_file.tensors(file))


def torch_old(folder, micro_bundles):
    body, storages = _tensors()
    torch_pickles.write_old(folder / 'w.pth', body, **storages)
    return [folder / 'w.pth'], damaged_bytes, lambda file: every_value(torch_file.tensors(file))


def torch_lightning(folder, micro_bundles):
    arguments = {'heads': 2, 'dropout': 0.1, 'd_layers': [0, 1], 'img_size': (8, 12)}

    def write(encoder):
        return torch_pickles.state_dict(
            folder / 'w.ckpt',
            micro_files.forecaster_tensors(encoder=encoder),
            hyper_parameters=torch_pickles.literal(arguments),
        )

    encoder = dino_foresight.convert(write(encoder=True), encoder_heads=2).encoder
    opened = lambda file: dino_foresight.convert(file, encoder)
    return [write(encoder=False)], damaged_zip, opened


def torch_components(folder, micro_bundles):
    micro_files.principal_file(folder / 'pca.pth', 3, 4)
    return [folder / 'pca.pth'], damaged_zip, dino_foresight.convert_principal


FORMATS = (
    bundle_config,
    manifest,
    dataset_info,
    safetensors,
    torch_zip,
    torch_old,
    torch_lightning,
    torch_components,
)


class TooLong(BaseException):
    """Not an error that a reader could take for one of the file."""


@pytest.fixture
def _in_time():
    def late(*_):
        raise TooLong

    former = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.mark.long
@pytest.mark.parametrize('make', FORMATS, ids=lambda make: make.__name__)
def test_damaged_files_open_or_are_refused(
    make, micro_bundles, tmp_path, monkeypatch, request, capsys, _in_time
):
    def unreachable(reference, *_):
        raise UserError(f'{reference}: no network')

    monkeypatch.setattr(hub, 'fetch', unreachable)
    monkeypatch.chdir(tmp_path)
    files, damage, opened = make(tmp_path, micro_bundles)
    for file in files:
        opened(file)  # it is the damage that is refused
    slow = request.config.getoption('--slow')
    tries = TRIES if slow else QUICK.get(make.__name__, TRIES)
    whole, draw = {file: file.read_bytes() for file in files}, random.Random(make.__name__)
    counts, wrong, slowest = collections.Counter(), {}, 0.0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    for index in range(tries):
        file = files[index % len(files)]
        content = damage(draw, whole[file])
        file.write_bytes(content)
        started = time.monotonic()
        signal.alarm(SECONDS)
        try:
            opened(file)
            counts['loaded'] += 1
        except UserError as error:
            counts['refused'] += 1
            if '\n' in str(error):
                wrong['a message of several lines', str(error)] = content
        except (Exception, TooLong) as error:
            wrong[type(error).__name__, str(error)[:200]] = content
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - started)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    with capsys.disabled():
        print(
            f'\n{make.__name__}: {tries} tried, {counts["refused"]} refused, {counts["loaded"]} '
            f'loaded; {time.monotonic() - began:.1f} s, the slowest {slowest:.2f} s, {memory} MB',
            file=sys.stderr,
        )
    assert not wrong, '\n'.join(f'{said}: {content[:3000]!r}' for said, content in wrong.items())
    assert counts['refused'] > tries / 4 and memory < MEGABYTES
    jax.clear_caches()
