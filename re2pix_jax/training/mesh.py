"""Devices as a mesh of ('data', 'fsdp', 'tensor'), and how batches lie on it: clips over the first
two, parameters over 'fsdp' (see sharding.py), heads and hidden widths over 'tensor'.
"""

import math
import os

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from re2pix_jax.errors import UserError
from re2pix_jax.training import peers

AXES = 'data', 'fsdp', 'tensor'
CLIPS = AXES[:2]
FORMER = {'mesh.model': 'mesh.tensor', 'sharding': 'mesh.fsdp'}
"""Fields of former versions, and those that took their place."""
_PRIME = 1999999973


def initialize_processes() -> None:
    """Joins the processes of a multi-host run; nothing happens unless the environment asks for it.

    Asked for by JAX_COORDINATOR_ADDRESS (host:port) with JAX_NUM_PROCESSES and JAX_PROCESS_ID, or
    by RE2PIX_DISTRIBUTED=1 where the cluster describes itself (Slurm, Cloud TPU, Open MPI,
    Kubernetes).
    """
    if os.environ.get('JAX_COORDINATOR_ADDRESS'):
        try:
            count, index = int(os.environ['JAX_NUM_PROCESSES']), int(os.environ['JAX_PROCESS_ID'])
        except (KeyError, ValueError):
            raise UserError(
                'JAX_COORDINATOR_ADDRESS is set: JAX_NUM_PROCESSES and JAX_PROCESS_ID must be '
                'integers too'
            ) from None
        peers.join(num_processes=count, process_id=index)
    elif os.environ.get('RE2PIX_DISTRIBUTED') == '1':
        peers.join()


def sizes(config) -> dict[str, int]:
    """{axis: devices} of config.mesh.

    Raises:
        UserError: the config has a field of former versions.
    """
    for name in FORMER:
        group, _, field = name.rpartition('.')
        if field in (config[group] if group else config):
            raise UserError(former(name))
    return dict(config.mesh)


def former(name: str) -> str:
    """What there is to say of a field of former versions."""
    return f'config.{name} is no longer there: set config.{FORMER[name]}'


def create(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: list | None = None) -> Mesh:
    """Returns a Mesh `data` by `fsdp` by `tensor`.

    Slices, which a slower network joins, are the outer part of 'data': the other two axes stay
    inside one.

    Args:
        data: -1 takes what the others leave.
        fsdp: -1 takes what `tensor` leaves of a slice.
        tensor: devices that share heads and hidden widths.
        devices: None for all devices of all processes.

    Raises:
        UserError: so many devices are not that.
    """
    devices = jax.devices() if devices is None else devices
    slices = 1
    if devices[0].platform == 'tpu':
        slices = len({getattr(device, 'slice_index', 0) for device in devices})
    shape = _sizes(len(devices), data, fsdp, tensor, slices)
    if slices == 1:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            (shape[0] // slices, *shape[1:]),
            (slices, 1, 1),
            devices,
            allow_split_physical_axes=True,
        )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def abstract(count: int, data: int = -1, fsdp: int = 1, tensor: int = 1) -> AbstractMesh:
    """`create` of so many devices, of one slice, that need not be there."""
    return AbstractMesh(_sizes(count, data, fsdp, tensor, 1), AXES)


def _sizes(count, data, fsdp, tensor, slices):
    for name, size in (('tensor', tensor), ('fsdp', tensor * fsdp if fsdp != -1 else tensor)):
        if size < 1 or count % size:
            given = f'mesh.tensor is {tensor}'
            if name == 'fsdp':
                given = f'mesh.fsdp x mesh.tensor is {fsdp} x {tensor}'
            raise UserError(f'{given} but there are {count} devices: it must divide them')
    if fsdp == -1:
        fsdp = max(count // slices // tensor, 1)
    if data == -1:
        data = count // fsdp // tensor
    if data * fsdp * tensor != count:
        raise UserError(
            f'mesh.data x mesh.fsdp x mesh.tensor is {data} x {fsdp} x {tensor} but there are '
            f'{count} devices: set mesh.data to {count // fsdp // tensor} or -1'
        )
    if data % slices:
        raise UserError(
            f'mesh.data is {data} but there are {slices} slices: choose a multiple of {slices}, '
            'for fsdp and tensor stay inside a slice'
        )
    return data, fsdp, tensor


def check_batch_size(batch_size: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> None:
    """Refuses a global batch that the devices cannot share out evenly, in equal parts."""
    devices = clip_devices(mesh)
    if batch_size < 1 or batch_size % devices:
        raise UserError(
            f'batch_size is {batch_size} but mesh.data x mesh.fsdp is {devices} devices: choose a '
            f'multiple of {devices}'
        )
    if batch_size % (accumulate * devices):
        over = f' on {devices} devices' if devices > 1 else ''
        raise UserError(
            f'accumulate is {accumulate} but batch_size is {batch_size}{over}: expected equal '
            f'parts; choose a batch_size that is a multiple of {accumulate * devices}, or another '
            'number of parts (1 = the whole batch)'
        )


def filled(batch_size: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> int:
    """The least batch from `batch_size` on that the devices can share out in equal parts."""
    parts = accumulate * clip_devices(mesh)
    return -(-batch_size // parts) * parts


def clip_devices(mesh: Mesh | AbstractMesh) -> int:
    """Over how many devices the clips of a batch lie."""
    return math.prod(mesh.shape[axis] for axis in CLIPS)


def share(mesh: Mesh) -> tuple[tuple[int, ...], int]:
    """Which blocks of a batch the devices of this process hold, and how many blocks there are.

    Where 'tensor' goes over several processes they hold the same ones; on TPUs a host's need not be
    neighbours.
    """
    grid = mesh.devices.reshape(clip_devices(mesh), -1)
    mine = [
        block
        for block, devices in enumerate(grid)
        if any(device.process_index == jax.process_index() for device in devices)
    ]
    return tuple(mine), len(grid)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_clip(mesh: Mesh) -> NamedSharding:
    """How batches lie: the first axis over the devices that share the clips."""
    return NamedSharding(mesh, PartitionSpec(CLIPS))


def global_batch(local_batch, mesh: Mesh):
    """Puts what all processes have read together into global arrays, split along the first axis
    over the devices that share the clips.

    Args:
      local_batch: pytree of numpy arrays [local batch, ...], the blocks that `share` names, in that
        order. 64-bit integers (record ids) become int32 ones modulo a prime: the same below 2e9,
        and clips of different sources stay distinct.
      mesh: the device mesh.
    """
    sharding, (mine, blocks) = by_clip(mesh), share(mesh)

    def put(array):
        array = _narrow(array)
        rows = len(array) // len(mine)

        def block(index):
            start = mine.index((index[0].start or 0) // rows) * rows
            return array[start : start + rows]

        shape = (rows * blocks, *array.shape[1:])
        return jax.make_array_from_callback(shape, sharding, block)

    return jax.tree.map(put, local_batch)


def _narrow(array):
    array = np.asarray(array)
    return (array % _PRIME).astype(np.int32) if array.dtype == np.int64 else array
