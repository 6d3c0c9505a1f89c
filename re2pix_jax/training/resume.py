"""A run as its checkpoints hold it: begun, gone on with, or opened to be used."""

from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from re2pix_jax.errors import UserError
from re2pix_jax.training import checkpoint, optimizer, sharding
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import state as states


class Start(NamedTuple):
    """Where a run begins or goes on.

    Attributes:
      state: of the latest checkpoint, or a new one.
      meta: of the checkpoints to come.
      first: this process's share of the batch that shaped a new state, None where it goes on.
    """

    state: states.TrainState
    meta: dict
    first: dict | None


def start(task, config, workdir: str, train_data, mesh, checkpoints, transform) -> Start:
    """Restores the latest checkpoint, state and data, or draws a new state, from the bundle
    config.init where one is named.

    Raises:
      UserError: `workdir` belongs to another config, or the bundle does not fit.
    """
    step = checkpoints.latest()
    if step is not None:
        meta = checkpoints.meta(step)
        checkpoint.check_same_run(meta, config, task.bundles, workdir)
        spec = checkpoint.batch_spec(meta)
        state, data_state = checkpoints.restore(
            step, abstract_state(task, config, transform, spec, mesh)
        )
        train_data.set_state(data_state)
        # The fields that may change (steps, ...) are the new ones from here on.
        return Start(state, checkpoint.describe(config, task.bundles, spec), None)
    local = next(train_data)
    batch = meshes.global_batch(local, mesh)
    meta = checkpoint.describe(config, task.bundles, batch)
    abstract = abstract_state(task, config, transform, batch, mesh)
    create = jax.jit(
        lambda batch: states.create(task, transform, config.seed, batch),
        out_shardings=jax.tree.map(lambda x: x.sharding, abstract),
    )
    state = create(batch)
    if config.get('init'):
        state = states.start_from(state, task.load(config.init), config.init)
    return Start(state, meta, local)


def make_optimizer(task, config) -> tuple[optax.GradientTransformation, object]:
    """`optimizer.create` for the task's network and the config's run."""
    muon = sharding.rules_of(getattr(task, 'net', None), 'MUON')
    return optimizer.create(config.optimizer, config.steps, muon)


def place(task, params, mesh) -> dict[str, sharding.Placed]:
    """Where the parameters of the task lie, by the rules beside its network."""
    rules = sharding.rules_of(getattr(task, 'net', None))
    return sharding.place(params, rules, mesh)


def abstract_state(task, config, transform, batch, mesh) -> states.TrainState:
    """The TrainState of ShapeDtypeStructs, with the shardings of `mesh`, that this task and config
    lead to.
    """
    shapes = jax.eval_shape(lambda batch: states.create(task, transform, config.seed, batch), batch)
    layout = sharding.shardings(shapes, place(task, shapes.params, mesh), mesh)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
    )


def abstract_batch(meta: dict, mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The global batch of ShapeDtypeStructs, split over the devices as batches are."""
    split = meshes.by_clip(mesh)
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split)
        for name, x in checkpoint.batch_spec(meta).items()
    }


class Run(NamedTuple):
    """A run as one of its checkpoints holds it."""

    config: ConfigDict
    task: object
    state: states.TrainState
    mesh: jax.sharding.Mesh


def open_run(workdir: str, create_task, step: int | None = None) -> Run:
    """Reads a checkpoint of `workdir` on the devices of this process, whatever mesh it was written
    on.

    Args:
      workdir: folder of a run.
      create_task: config -> task (re2pix_jax.tasks.create).
      step: which checkpoint; None = the latest.

    Raises:
      UserError: there is no such checkpoint, or a frozen bundle is no longer the one that the run
          was trained with.
    """
    checkpoints = checkpoint.Checkpoints(workdir, read_only=True)
    known = checkpoints.steps()
    if not known:
        raise UserError(
            f'{workdir} holds no checkpoint: give the --workdir of a run that has saved one'
        )
    step = known[-1] if step is None else step
    if step not in known:
        raise UserError(
            f'{workdir} holds no checkpoint of step {step}: it has those of '
            f'{", ".join(map(str, known))} (config.keep says how many stay)'
        )
    checkpoints.check(step)
    meta = checkpoints.meta(step)
    config = checkpoint.load_config(meta)
    task = create_task(config)
    checkpoint.check_bundles(meta, task.bundles, workdir)
    mesh = meshes.create()
    transform, _ = make_optimizer(task, config)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, config, transform, checkpoint.batch_spec(meta), mesh)
        state, _ = checkpoints.restore(step, abstract)
    return Run(config, task, state, mesh)
