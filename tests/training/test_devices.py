"""The mesh; state and batch on eight devices: split, and no clip moved from one to another."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults, mesh
from tests.running import on_eight_devices


def test_mesh_errors():
    with pytest.raises(UserError, match='mesh.tensor is 3 but there are 8 devices: it must divide'):
        mesh.abstract(8, tensor=3)
    with pytest.raises(UserError, match='mesh.fsdp x mesh.tensor is 8 x 2 but there are 8 devices'):
        mesh.abstract(8, fsdp=8, tensor=2)
    with pytest.raises(
        UserError,
        match='mesh.data x mesh.fsdp x mesh.tensor is 2 x 1 x 2 but there are 8 devices: '
        'set mesh.data to 4 or -1',
    ):
        mesh.abstract(8, 2, tensor=2)
    with pytest.raises(
        UserError,
        match='batch_size is 6 but mesh.data x mesh.fsdp is 4 devices: choose a multiple of 4',
    ):
        mesh.check_batch_size(6, mesh.abstract(8, 2, 2, 2))
    with pytest.raises(UserError, match='accumulate is 3 but batch_size is 8'):
        mesh.check_batch_size(8, mesh.create(), 3)


@pytest.mark.parametrize(
    ('name', 'now'), [('mesh.model', 'mesh.tensor'), ('sharding', 'mesh.fsdp')]
)
def test_a_field_of_former_versions_is_named_with_the_present_one(name, now):
    config = defaults.defaults()
    group, _, field = name.rpartition('.')
    (config[group] if group else config)[field] = 1
    with pytest.raises(UserError) as error:
        mesh.sizes(config)
    assert str(error.value) == f'config.{name} is no longer there: set config.{now}'


def test_what_is_left_is_taken():
    shape = lambda *sizes: tuple(mesh.abstract(16, *sizes).shape.values())
    assert shape() == (16, 1, 1) and shape(-1, 4, 2) == (2, 4, 2)
    assert shape(-1, -1) == (1, 16, 1) and shape(-1, -1, 4) == (1, 4, 4)


class Fake(types.SimpleNamespace):
    """A device of a TPU slice, as jax describes it."""

    __hash__ = object.__hash__


def fake_slices(count, each):
    return [
        Fake(
            platform='tpu',
            device_kind='TPU v5 lite',
            id=number,
            coords=(number % each % 4, number % each // 4, 0),
            core_on_chip=0,
            slice_index=number // each,
            process_index=number // 4,
        )
        for number in range(count * each)
    ]


def test_slices_are_the_outer_part_of_data():
    grid = lambda **sizes: np.vectorize(lambda device: device.slice_index)(
        mesh.create(**sizes, devices=fake_slices(2, 8)).devices
    )
    for sizes in ({'fsdp': -1}, {'fsdp': 4}, {'fsdp': 2, 'tensor': 2}):
        slices = grid(**sizes)
        half = len(slices) // 2
        assert (slices[:half] == 0).all() and (slices[half:] == 1).all()
    assert grid(fsdp=-1).shape == (2, 8, 1)
    with pytest.raises(UserError, match='mesh.data is 1 but there are 2 slices: choose a multiple'):
        grid(fsdp=16)


def test_blocks_are_read_by_the_processes_that_hold_them(monkeypatch):
    devices = np.array(fake_slices(1, 16), object)
    monkeypatch.setattr(mesh.jax, 'process_index', lambda: 1)  # which has devices 4 to 7

    def share(order, *shape):
        held = types.SimpleNamespace(
            devices=devices[order].reshape(shape), shape=dict(zip(mesh.AXES, shape))
        )
        return mesh.share(held)

    straight = np.arange(16)
    assert share(straight, 16, 1, 1) == ((4, 5, 6, 7), 16)
    assert share(straight, 2, 4, 2) == ((2, 3), 8)
    assert share(straight, 1, 2, 8) == ((0,), 2)  # the same as process 0
    # As a torus is walked through: a host's devices are no neighbours.
    torus = np.arange(16).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).ravel()
    assert share(torus, 16, 1, 1) == ((2, 3, 6, 7), 16)


def test_incomplete_environment_of_several_processes(monkeypatch):
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', 'localhost:1')
    monkeypatch.delenv('JAX_NUM_PROCESSES', raising=False)
    with pytest.raises(UserError, match='JAX_NUM_PROCESSES and JAX_PROCESS_ID'):
        mesh.initialize_processes()


def test_record_ids_of_different_sources_stay_distinct():
    records = np.array([0, 1, 5000, 1 << 40, (1 << 40) + 1, 2 << 40, (2 << 40) + 5000])
    batch = mesh.global_batch(
        {'record': records, 'frames': np.zeros((7, 2), np.uint8)}, mesh.create()
    )
    assert batch['record'].dtype == jnp.int32 and batch['frames'].dtype == jnp.uint8
    assert batch['record'][:3].tolist() == [0, 1, 5000]
    assert len(set(batch['record'].tolist())) == 7


EIGHT_DEVICES = """
import jax, numpy as np
from re2pix_jax.training import loop, mesh, resume
from re2pix_jax.training import state as states
from re2pix_jax.training import sharding
from tests.training import toy
sharding.SMALLEST = 0
MOVES = 'all-gather', 'all-to-all', 'collective-permute'
devices = mesh.create(2, 2, 2)
config = toy.make_config(**{'mesh.fsdp': 8, 'steps': 1, 'eval_every': 0})
import tempfile
with tempfile.TemporaryDirectory() as folder:
    state = toy.train(folder, config)
leaves = jax.tree_util.tree_leaves_with_path(state)
leaves = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
kernels = [leaf for name, leaf in leaves.items() if name.endswith("['Dense_1']['kernel']")]
assert len(kernels) == 4, leaves.keys()  # parameters, average, first and second moment
for kernel in kernels:
    spec = kernel.sharding.spec
    assert spec == kernels[0].sharding.spec and 'fsdp' in spec, kernel.sharding
    assert kernel.addressable_shards[0].data.size == kernel.size // 8
assert state.step.sharding.is_fully_replicated
batch = mesh.global_batch({'x': np.arange(8.0)}, devices)
assert len({float(shard.data[0]) for shard in batch['x'].addressable_shards}) == 4
# The parts of an accumulated step: no device needs another one's clips.
flat = mesh.create(8)
with jax.set_mesh(flat):
    task = toy.Task()
    transform, rate = resume.make_optimizer(task, config)
    batch_of = {'x': jax.ShapeDtypeStruct((32, 8), np.float32)}
    abstract = resume.abstract_state(task, toy.make_config(), transform, batch_of, flat)
    x = mesh.global_batch({'x': np.zeros((32, 8), np.float32)}, flat)
    step = jax.jit(states.make_step(task, transform, rate, 0, 0.9, 4))
    step = step.lower(abstract, task.frozen, x, 0).compile().as_text()
    assert 'all-reduce' in step and not any(move in step for move in MOVES), step
# Mixed supervision: the same clips as on one device, each predicted where it lies.
from re2pix_jax.generator import conditioning
clips = np.arange(1.0, 65.0, dtype=np.float32).reshape(64, 1, 1, 1, 1)
expected = clips.copy()
expected[list(conditioning.mixed_places(64, 0.1))] *= -2
flat = mesh.create(4, 2)
for parts in (1, 4):
    predict = lambda x: -2 * x
    mixed = jax.jit(
        lambda places, x: conditioning.mixed_supervision(predict, x, x, 0.1, places, 64))
    for part in range(parts):
        places = np.arange(part, 64, parts, dtype=np.int32)
        with jax.set_mesh(flat):
            given = mesh.global_batch({'places': places, 'x': clips[places]}, flat)
            np.testing.assert_array_equal(mixed(given['places'], given['x']), expected[places])
            program = mixed.lower(given['places'], given['x']).compile().as_text()
            assert not any(move in program for move in MOVES), program
with jax.set_mesh(devices):
    draw = lambda x: jax.random.normal(jax.random.key(0), (8, 3)) + 0 * x[:, None]
    noise = jax.jit(draw)(batch['x'])
assert len(np.unique(np.asarray(noise))) == 24
np.testing.assert_array_equal(noise, jax.random.normal(jax.random.key(0), (8, 3)))
print('as it should be')
"""


def test_state_and_batch_really_are_split_over_eight_devices():
    done = on_eight_devices(EIGHT_DEVICES)
    assert done.stdout.endswith('as it should be\n'), done.stderr
