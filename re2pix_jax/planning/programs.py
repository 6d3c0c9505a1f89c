"""The programs that are planned: the step that training takes and the roll-out that predicting is,
traced on shapes and compiled for devices that need not be here.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from ml_collections import ConfigDict

from re2pix_jax import tasks
from re2pix_jax.errors import UserError
from re2pix_jax.generator import Generator
from re2pix_jax.model import Re2Pix
from re2pix_jax.planning.chips import Topology
from re2pix_jax.planning.compiled import compiled
from re2pix_jax.tasks import recipes
from re2pix_jax.training import defaults, hardware, resume, sharding
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import state as states

_PLATFORMS = {'tpu': 'tpu', 'gpu': 'cuda', 'cpu': 'cpu'}
"""What jax calls, as it compiles, the platforms of chips."""


class Program(NamedTuple):
    """What the compiler made of it; bytes are those of one device.

    Attributes:
        text: the compiled module's.
        flops: operations of products and convolutions, of all devices, as `hardware.flops` counts
            those of the program that the devices run; traced: of the one that is compiled, which is
            another where CPUs stand in for GPUs, without what is in kernels.
        state, frozen: bytes of what is trained, with its average and the optimiser's moments, and
            of frozen networks.
        peak: bytes at the most, all arguments and results included.
        weights: shapes of all parameters, without axes of length 1.
        mesh: {axis: devices}.
    """

    text: str
    flops: float
    traced: float
    state: int
    frozen: int
    peak: int
    weights: frozenset
    mesh: dict[str, int]


def make_room(asked: list[Topology]) -> None:
    """Makes as many CPU devices as the largest of these takes of them; before the first array.

    Raises:
        UserError: one cannot be compiled for.
    """
    # What is compiled for devices that are not here jax's own cache writes, and cannot read.
    jax.config.update('jax_enable_compilation_cache', False)
    counts = [one.count for one in asked if one.chip.platform != 'tpu']
    if counts:
        jax.config.update('jax_num_cpu_devices', max(counts))
    for one in asked:  # what cannot be compiled for is said before anything is
        _devices(one)


def alike(topology: Topology) -> str:
    """What topologies have in common whose programs are compiled alike, and give one figure for
    memory: any GPUs' are those of as many CPUs.
    """
    chip = topology.chip
    return topology.name if chip.platform == 'tpu' else f'{chip.platform}:{topology.count}'


def _devices(topology):
    """Descriptions of its devices: a TPU's by libtpu; for others as many CPU devices, which
    `make_room` made, for a program is parted over them in the same way.

    Raises:
        UserError: libtpu is not installed, or knows no such slice.
    """
    if topology.chip.platform != 'tpu':
        return jax.devices('cpu')[: topology.count]
    shape = {} if topology.count > 1 else {'chips_per_host_bounds': (1, 1, 1)}
    try:
        found = topologies.get_topology_desc(topology.name, 'tpu', **shape)
    except Exception as error:  # whatever the plugin raises
        raise UserError(
            f'--topology={topology.name}: cannot be compiled for ({str(error).splitlines()[0]}); '
            'pip install libtpu, and name a slice that there is'
        ) from error
    return list(found.devices)


def step(config: ConfigDict, parts: dict, topology: Topology) -> Program:
    """The training step of a config.

    Args:
        config: as a file of configs/ makes it.
        parts: frozen parts of its size, of shapes: `recipes.abstract_parts`.
        topology: the devices.
    """
    defaults.check(config)
    mesh = meshes.create(**meshes.sizes(config), devices=_devices(topology))
    meshes.check_batch_size(config.batch_size, mesh, config.accumulate)
    task = tasks.create(config, frozen=parts)
    transform, rate = resume.make_optimizer(task, config)
    batch = _split(recipes.abstract_batch(config, parts), mesh)
    state = resume.abstract_state(task, config, transform, batch, mesh)
    frozen = _laid_out(task.frozen, sharding.of_parts(task.frozen, mesh))
    whole = meshes.replicated(mesh)
    program = jax.jit(
        states.make_step(task, transform, rate, config.seed, config.ema, config.accumulate),
        donate_argnums=0,
        keep_unused=True,  # a part that the step does not use lies on the devices all the same
        out_shardings=(jax.tree.map(lambda x: x.sharding, state), whole, whole),
    )
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return _compiled(program, (state, frozen, batch, number), mesh, topology, state, frozen)


def prediction(config: ConfigDict, parts: dict, topology: Topology, horizon: int) -> Program:
    """The roll-out of `horizon` frames for config.batch_size clips, by the generator of a config.

    Raises:
        UserError: the config is another one.
    """
    if config.task != 'generator':
        raise UserError(
            f'--for=predict: expected a generator config, got one of task {config.task}'
        )
    mesh = meshes.create(**meshes.sizes(config), devices=_devices(topology))
    meshes.check_batch_size(config.batch_size, mesh)
    task = tasks.create(config, frozen=parts)
    loss = config.loss
    model = Re2Pix(
        forecaster=task.frozen['forecaster'],
        vae=task.frozen['vae'],
        generator=Generator(params=task.shapes, net=task.net),
        size=tuple(config.data.size),
        sampler=loss.sampler,
        sampler_steps=loss.sampler_steps,
    )
    model = _laid_out(model, sharding.of_parts(model, mesh))
    batch = {
        'context': jax.ShapeDtypeStruct(
            (config.batch_size, task.net.context_frames, *config.data.size, 3), np.uint8
        ),
        'keys': jax.ShapeDtypeStruct((config.batch_size,), jax.random.key(0).dtype),
    }
    program = jax.jit(
        lambda model, batch: model.rollout(**batch, horizon=horizon)['frames'], keep_unused=True
    )
    return _compiled(program, (model, _split(batch, mesh)), mesh, topology, {}, model)


def _split(batch, mesh):
    by_clip = meshes.by_clip(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_clip), batch)


def _laid_out(tree, layout):
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout
    )


def _compiled(program, arguments, mesh, topology, state, frozen):
    with jax.set_mesh(mesh):
        traced = program.trace(*arguments)
    made = compiled(traced.lower(), topology)
    stand_in = 'tpu' if topology.chip.platform == 'tpu' else 'cpu'
    weights = [getattr(state, 'params', {}), frozen]
    return Program(
        made.text,
        hardware.flops(traced.jaxpr, _PLATFORMS[topology.chip.platform]),
        hardware.flops(traced.jaxpr, stand_in, kernels=False),
        _held(state),
        _held(frozen),
        max(made.peak, _held(state) + _held(frozen)),
        frozenset(_shapes(weights)),
        dict(mesh.shape),
    )


def _held(tree) -> int:
    """Bytes of one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _shapes(tree) -> Iterator[tuple]:
    """Of every parameter, and of a layer's share of a stack."""
    for leaf in jax.tree.leaves(tree):
        for shape in (leaf.shape, leaf.shape[1:]):
            yield tuple(n for n in shape if n > 1)
