"""How parameters lie on devices: the rules beside each network, on meshes that need not be there.

`python -m tests.training.test_sharding` writes shardings.txt anew, where a list or a network was
changed on purpose.
"""

import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from re2pix_jax import tasks
from re2pix_jax.training import mesh, optimizer, resume, sharding, state
from tests.conftest import load_config

PINNED = pathlib.Path(__file__).with_name('shardings.txt')
CONFIGS = {
    'DiT-B': ('generator', 'base'),
    'DiT-XL': ('generator', 'base-xl'),
    'U-Net': ('generator', 'base-unet'),
    'forecaster': ('forecaster_lowres',),
}
MESHES = {'8 x 1': (8, 1), '4 x 2': (8, 2)}  # devices, of which so many share a layer
RULES = (
    ('qkv/kernel', P(('tensor', 'fsdp'), None)),
    ('kernel', P('fsdp', 'tensor')),
    ('table', P('tensor')),
)


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, jnp.float32)


@functools.cache
def trained(name):
    config = load_config(*CONFIGS[name])
    return tasks.create(config, load=False)


def placed(name, devices, tensor):
    task = trained(name)
    abstract = mesh.abstract(devices, fsdp=-1, tensor=tensor)
    return resume.place(task, task.shapes['params'], abstract)


def summary():
    """Every layout, parameters of the same layer in other places in one row."""
    lines = []
    for name in CONFIGS:
        for label, sizes in MESHES.items():
            found = placed(name, *sizes)
            rows = {}
            for path, at in found.items():
                row = re.sub(r'\d+', '#', path), at.shape, at.spec, at.note
                rows[row] = rows.get(row, 0) + at.bytes
            held = sum(rows.values())
            lines.append(f'{name} on {label}: {held:,} bytes a device')
            lines += [
                f'  {path} {list(shape)} {" ".join(map(str, spec))} {count:,} {note}'.rstrip()
                for (path, shape, spec, note), count in sorted(rows.items(), key=str)
                if count >= held // 50
            ]
    return '\n'.join(lines) + '\n'


def test_layouts_of_the_published_sizes_are_these():
    assert summary() == PINNED.read_text(), 'changed on purpose? See the docstring above'


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('sizes', [(8, 1), (8, 2), (8, 4), (16, 8)])
def test_no_device_holds_parts_of_two_of_query_key_and_value(name, sizes):
    devices = mesh.abstract(sizes[0], fsdp=-1, tensor=sizes[1])
    fused = {path: at for path, at in placed(name, *sizes).items() if path.endswith('qkv/kernel')}
    for path, at in fused.items():
        axis = at.spec[-1] if at.spec else None
        shard = at.shape[-1] // (devices.shape[axis] if axis else 1)
        assert axis is None or at.shape[-1] // 3 % shard == 0, path
    assert any('fsdp' in str(at.spec) for at in fused.values())


@pytest.mark.parametrize(
    ('path', 'array', 'fsdp', 'spec', 'note'),
    [
        ('a/kernel', shape(2048, 1024), 4, P('fsdp', 'tensor'), ''),
        ('a/kernel', shape(2048, 1024), 1, P(None, 'tensor'), ''),
        ('layers/kernel', shape(3, 2048, 1024), 4, P(None, 'fsdp', 'tensor'), ''),
        ('a/qkv/kernel', shape(1024, 3072), 4, P(('tensor', 'fsdp'), None), ''),
        ('a/kernel', shape(1024, 1023), 4, P(), ''),  # under 4 MB
        ('a/kernel', shape(2050, 1024), 4, P(None, 'tensor'), '2050 does not divide by 4'),
        ('table', shape(2048, 1024), 4, P(None, 'tensor'), ''),
        ('other', shape(2048, 1024), 4, P(), 'no rule names it'),
    ],
)
def test_rules(path, array, fsdp, spec, note):
    devices = mesh.abstract(8, fsdp=fsdp, tensor=2)
    tree = array
    for name in reversed(path.split('/')):
        tree = {name: tree}
    (found,) = sharding.place(tree, RULES, devices).values()
    assert (found.spec, found.note) == (spec, note)
    pieces = math.prod(devices.shape[axis] for axis in jax.tree.leaves(tuple(spec)))
    assert found.bytes == array.size * 4 // pieces
    if note:
        assert f'  {note}' in sharding.describe({path: found})


def test_average_and_moments_lie_like_their_parameter():
    params = {'layers': {'kernel': shape(2, 2048, 1024), 'bias': shape(2, 1024)}}
    transform, _ = optimizer.create(load_config('generator', 'base').optimizer, 10)
    whole = state.TrainState(
        shape(),
        params,
        {'mean': shape(1024)},
        {'params': params, 'batch_stats': {'mean': shape(1024)}},
        jax.eval_shape(transform.init, params),
    )
    devices = mesh.abstract(8, fsdp=-1, tensor=2)
    layout = sharding.shardings(whole, sharding.place(params, RULES, devices), devices)
    specs = [
        at.spec
        for path, at in jax.tree_util.tree_leaves_with_path(layout)
        if 'kernel' in jax.tree_util.keystr(path)
    ]
    assert specs == [P(None, 'fsdp', 'tensor')] * 4
    assert all(
        at.spec == P()
        for path, at in jax.tree_util.tree_leaves_with_path(layout)
        if 'kernel' not in jax.tree_util.keystr(path)
    )


if __name__ == '__main__':
    PINNED.write_text(summary())
