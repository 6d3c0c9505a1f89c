"""Devices as a mesh of ('data', 'model'), and how arrays lie on it."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from re2pix_jax.errors import UserError

SHARDINGS = ('replicate', 'fsdp')
_PRIME = 1999999973


def initialize_processes():
    """Joins the processes of a multi-host run; nothing happens unless the environment asks for it.

    Asked for by JAX_COORDINATOR_ADDRESS (host:port) with JAX_NUM_PROCESSES and JAX_PROCESS_ID, or by
    RE2PIX_DISTRIBUTED=1 where the cluster describes itself (Slurm, Cloud TPU, Open MPI, Kubernetes).
    """
    if os.environ.get('JAX_COORDINATOR_ADDRESS'):
        try:
            count, index = int(os.environ['JAX_NUM_PROCESSES']), int(os.environ['JAX_PROCESS_ID'])
        except (KeyError, ValueError):
            raise UserError('JAX_COORDINATOR_ADDRESS is set: JAX_NUM_PROCESSES and JAX_PROCESS_ID must be integers '
                            'too') from None
        jax.distributed.initialize(num_processes=count, process_id=index)
    elif os.environ.get('RE2PIX_DISTRIBUTED') == '1':
        jax.distributed.initialize()


def create(data=-1, model=1):
    """Returns the Mesh of all devices of all processes, `data` by `model`; data = -1 takes what `model` leaves."""
    count = jax.device_count()
    if model < 1 or count % model:
        raise UserError(f'mesh.model is {model} but there are {count} devices: it must divide them')
    if data == -1:
        data = count // model
    if data * model != count:
        raise UserError(f'mesh.data x mesh.model is {data} x {model} but there are {count} devices: '
                        f'set mesh.data to {count // model} or -1')
    return jax.make_mesh((data, model), ('data', 'model'), axis_types=(AxisType.Auto, AxisType.Auto))


def check_batch_size(batch_size, mesh):
    """Refuses a global batch that the data axis cannot share out evenly."""
    parts = mesh.shape['data']
    if batch_size < 1 or batch_size % parts:
        raise UserError(f'batch_size is {batch_size} but mesh.data is {parts} devices: choose a multiple of {parts}')


def replicated(mesh):
    return NamedSharding(mesh, PartitionSpec())


def global_batch(local_batch, mesh):
    """Puts the shares of all processes together into global arrays, split over 'data' along the first axis.

    Args:
      local_batch: pytree of numpy arrays [local batch, ...], this process's share. 64-bit integers (record ids) become
        int32 ones modulo a prime: the same below 2e9, and clips of different sources stay distinct.
      mesh: the device mesh.
    """
    sharding = NamedSharding(mesh, PartitionSpec('data'))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, _narrow(x)), local_batch)


def _narrow(array):
    array = np.asarray(array)
    return (array % _PRIME).astype(np.int32) if array.dtype == np.int64 else array


def evaluation_batches(batches, batch_size, mesh):
    """Yields global batches of one pass of evaluation.

    On one process a ragged last batch is kept: it is split over 'data' where it can be and replicated where not, which
    is slower and the same result. On several processes their shares may differ in length, so the pass ends, for all of
    them, before the first batch that one of them cannot fill.
    """
    if jax.process_count() == 1:
        for batch in batches:
            size = len(jax.tree.leaves(batch)[0])
            if size % mesh.shape['data'] == 0:
                yield global_batch(batch, mesh)
            else:
                yield jax.device_put(jax.tree.map(_narrow, batch), replicated(mesh))
        return
    batches = iter(batches)
    while True:
        batch = next(batches, None)
        size = 0 if batch is None else len(jax.tree.leaves(batch)[0])
        if np.min(multihost_utils.process_allgather(np.int32(size))) * jax.process_count() < batch_size:
            return
        yield global_batch(batch, mesh)


def shardings(tree, mesh, sharding):
    """Returns the NamedSharding of every array of `tree` (parameters, their average, the optimiser's moments).

    'replicate' keeps a copy on every device of 'data'; 'fsdp' splits the largest axis that 'data' divides. In both, a
    'model' axis larger than 1 splits the last axis (a kernel's output channels) where it divides it. The rule looks at
    shapes only, so arrays that belong together lie together.
    """
    if sharding not in SHARDINGS:
        raise UserError(f'sharding is {sharding!r}: one of {", ".join(SHARDINGS)} expected')
    return jax.tree.map(lambda x: NamedSharding(mesh, _spec(x.shape, mesh, sharding)), tree)


def _spec(shape, mesh: Mesh, sharding):
    data, model = mesh.shape['data'], mesh.shape['model']
    axes = [None] * len(shape)
    if model > 1 and len(shape) >= 2 and shape[-1] % model == 0:
        axes[-1] = 'model'
    if sharding == 'fsdp' and data > 1:
        free = [i for i, size in enumerate(shape) if axes[i] is None and size and size % data == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = 'data'
    return PartitionSpec(*axes)
