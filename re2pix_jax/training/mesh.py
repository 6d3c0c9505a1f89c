"""Devices as a mesh of ('data', 'model'), and how batches lie on it."""

import os

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from re2pix_jax.errors import UserError
from re2pix_jax.training import peers

AXES = 'data', 'model'
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


def create(data: int = -1, model: int = 1) -> Mesh:
    """Returns the Mesh of all devices of all processes, `data` by `model`; data = -1 takes what
    `model` leaves.
    """
    sizes = _sizes(jax.device_count(), data, model)
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def abstract(count: int, data: int = -1, model: int = 1) -> AbstractMesh:
    """`create` of so many devices that need not be there."""
    return AbstractMesh(_sizes(count, data, model), AXES)


def _sizes(count, data, model):
    if model < 1 or count % model:
        raise UserError(f'mesh.model is {model} but there are {count} devices: it must divide them')
    if data == -1:
        data = count // model
    if data * model != count:
        raise UserError(
            f'mesh.data x mesh.model is {data} x {model} but there are {count} devices: set '
            f'mesh.data to {count // model} or -1'
        )
    return data, model


def check_batch_size(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Refuses a global batch that the data axis cannot share out evenly, in equal parts."""
    devices = mesh.shape['data']
    if batch_size < 1 or batch_size % devices:
        raise UserError(
            f'batch_size is {batch_size} but mesh.data is {devices} devices: choose a multiple of '
            f'{devices}'
        )
    if batch_size % (accumulate * devices):
        over = f' on {devices} devices' if devices > 1 else ''
        raise UserError(
            f'accumulate is {accumulate} but batch_size is {batch_size}{over}: expected equal '
            f'parts; choose a batch_size that is a multiple of {accumulate * devices}, or another '
            'number of parts (1 = the whole batch)'
        )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def global_batch(local_batch, mesh: Mesh):
    """Puts the shares of all processes together into global arrays, split over 'data' along the
    first axis.

    Args:
      local_batch: pytree of numpy arrays [local batch, ...], this process's share. 64-bit integers
        (record ids) become int32 ones modulo a prime: the same below 2e9, and clips of different
        sources stay distinct.
      mesh: the device mesh.
    """
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, _narrow(x)), local_batch
    )


def _narrow(array):
    array = np.asarray(array)
    return (array % _PRIME).astype(np.int32) if array.dtype == np.int64 else array
