"""The training loop, for any task."""

import contextlib
import json
import os
import signal
import threading
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from re2pix_jax.errors import UserError
from re2pix_jax.training import checkpoint, optimizer, writer
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import state as states


def train(task, config, workdir, train_data, make_eval_data=None):
    """Trains `task` until `config.steps`, going on from the latest checkpoint in `workdir`.

    A run that was cut off and is started again with the same arguments takes bit for bit the steps
    that it would have taken.

    Args:
      task: has `init(key, batch) -> params`, `loss(params, frozen, batch, key) -> (scalar,
        metrics)`, `evaluate(params, frozen, batches, key) -> {name: float}`, `frozen` (dict of
        pytrees) and `bundles` (name -> {'path', 'sha256'} of the bundles it uses).
      config: as training.defaults.defaults() lays it out.
      workdir: folder of the run: checkpoints/, log.jsonl, tensorboard/, config.json.
      train_data: endless iterator of this process's share of each batch, a dict of numpy arrays
        [local batch, ...] with 'record' among them, and with get_state(), set_state(state),
        record_name(int).
      make_eval_data: () -> iterator over one pass of evaluation batches, with close(); None means
          no evaluation.

    Returns:
      TrainState, its `step` below config.steps when a SIGTERM ended the run early (its checkpoint
      is written).

    Raises:
      UserError: the config is impossible here, workdir belongs to another one, the disk is full, or
        the loss or its gradient is not finite; for the last the state before that step and its
        batch are kept in `workdir`/failed.
    """
    mesh = meshes.create(config.mesh.data, config.mesh.model)
    meshes.check_batch_size(config.batch_size, mesh)
    _check_accumulation(config, mesh)
    _check_intervals(config)
    os.makedirs(workdir, exist_ok=True)
    checkpoints = checkpoint.Checkpoints(workdir, config.keep)
    try:
        with jax.set_mesh(mesh), Termination() as termination:
            return _train(
                task, config, workdir, train_data, make_eval_data, mesh, checkpoints, termination
            )
    finally:
        checkpoints.close()


def _train(task, config, workdir, train_data, make_eval_data, mesh, checkpoints, termination):
    transform, rate = optimizer.create(config.optimizer, config.steps)
    state, meta, first = _start(task, config, workdir, train_data, mesh, checkpoints, transform)
    start = int(state.step)
    progress = writer.Progress(start, config.steps, config.batch_size)
    if start >= config.steps:
        progress.note(f'{workdir} is at step {start} of {config.steps}: nothing left to train')
        return state
    if start:
        progress.note(f'going on from step {start} of {workdir}')
    frozen = jax.device_put(task.frozen, meshes.shardings(task.frozen, mesh, config.sharding))
    if jax.process_index() == 0:  # the folder may be shared by all of them
        _write_json(os.path.join(workdir, 'config.json'), meta['config'])
    checkpoints.check_space(state)

    layout = jax.tree.map(lambda x: x.sharding, state)
    train_step = jax.jit(
        states.make_step(task, transform, rate, config.seed, config.ema, config.accumulate),
        donate_argnums=0,
        out_shardings=(layout, meshes.replicated(mesh), meshes.replicated(mesh)),
    )

    def evaluate(log, number):
        with contextlib.closing(make_eval_data()) as data:
            batches = meshes.evaluation_batches(data, config.batch_size, mesh)
            values = task.evaluate(
                state.ema,
                {**frozen, 'ema': state.ema},
                batches,
                states.run_key(config.seed, 'evaluate', number),
            )
        log.scalars(number, {f'eval/{name}': value for name, value in values.items()})
        progress.note(
            f'step {number}/{config.steps}  '
            + '  '.join(f'{k} {float(v):.5g}' for k, v in values.items())
        )

    def settle(log, pending):
        """Reads a dispatched step's numbers, writes them where due, and stops the run where they
        are not finite.
        """
        number, local, metrics, finite = pending
        if not finite:
            _fail(workdir, number, local, jax.device_get(metrics), state, train_data, meta)
        if number == start + 1:
            progress.restart(number)  # the first step compiles: it says nothing about the rate
        if number % config.log_every == 0 or number == config.steps:
            metrics = jax.device_get(metrics)
            if skipped := getattr(train_data, 'skipped', 0):
                metrics['skipped_clips'] = skipped
            log.scalars(number, metrics)
            progress.report(number, float(metrics['loss']))

    pending = None
    with writer.Writer(workdir, start) as log, contextlib.closing(progress):
        for number in range(start + 1, config.steps + 1):
            local = first if first is not None else next(train_data)
            first = None
            state, metrics, finite = train_step(
                state, frozen, meshes.global_batch(local, mesh), np.int32(number - 1)
            )
            # The numbers of a step are read once the next one is under way, so that the devices
            # never wait for them.
            if pending is not None:
                settle(log, pending)
            pending = (number, local, metrics, finite)

            last = number == config.steps or termination.reached(number)
            due_eval = (
                make_eval_data is not None
                and config.eval_every
                and (number % config.eval_every == 0 or number == config.steps)
            )
            due_save = last or (config.checkpoint_every and number % config.checkpoint_every == 0)
            if due_eval or due_save:
                settle(log, pending)  # what a checkpoint holds is in the log before it
                pending = None
                if due_eval:
                    evaluate(log, number)
                if due_save:
                    checkpoints.save(number, state, train_data.get_state(), meta, wait=last)
                progress.restart(number)
            if last:
                break
    if number < config.steps:
        progress.note(
            f'stopped by a signal after step {number}, saved; the same command goes on from there'
        )
    return state


def _start(task, config, workdir, train_data, mesh, checkpoints, transform):
    """Returns (state, meta, first batch or None): the latest checkpoint, or a new state and the
    batch it was shaped by.
    """
    step = checkpoints.latest()
    if step is not None:
        meta = checkpoints.meta(step)
        checkpoint.check_same_run(meta, config, task.bundles, workdir)
        abstract = abstract_state(task, config, transform, checkpoint.batch_spec(meta), mesh)
        state, data_state = checkpoints.restore(step, abstract)
        train_data.set_state(data_state)
        # Written anew, because the fields that may change (steps, ...) are the new ones from here
        # on.
        return state, checkpoint.describe(config, task.bundles, checkpoint.batch_spec(meta)), None
    local = next(train_data)
    batch = meshes.global_batch(local, mesh)
    meta = checkpoint.describe(config, task.bundles, batch)
    abstract = abstract_state(task, config, transform, checkpoint.batch_spec(meta), mesh)
    create = jax.jit(
        lambda batch: states.create(task, transform, config.seed, batch),
        out_shardings=jax.tree.map(lambda x: x.sharding, abstract),
    )
    state = create(batch)
    if config.get('init'):
        state = states.start_from(state, task.load_params(config.init), config.init)
    return state, meta, local


def abstract_state(task, config, transform, batch, mesh):
    """The TrainState of ShapeDtypeStructs, with the shardings of `mesh`, that this task and config
    lead to.
    """
    shapes = jax.eval_shape(lambda batch: states.create(task, transform, config.seed, batch), batch)
    layout = meshes.shardings(shapes, mesh, config.sharding)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout
    )


class Termination:
    """Notes a SIGTERM, as clusters send it before they take a machine away, so that the loop can
    finish its step.

    On several processes jax agrees on one step at which all of them stop.
    """

    def __enter__(self):
        self._received = threading.Event()
        self._previous = None
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, lambda *_: self._received.set())
        return self

    def __exit__(self, *_):
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    def reached(self, number):
        """Whether the run should save and end after step `number`."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(number)
        return self._received.is_set()


def _check_intervals(config):
    if config.steps < 1:
        raise UserError(f'steps is {config.steps}: at least 1 expected')
    if config.log_every < 1:
        raise UserError(f'log_every is {config.log_every}: at least 1 expected')
    for name in ('eval_every', 'checkpoint_every'):
        if config[name] < 0:
            raise UserError(f'{name} is {config[name]}: a number of steps, or 0, expected')
    if not 0 <= config.ema < 1:
        raise UserError(f'ema is {config.ema}: a decay of at least 0 and below 1 expected')


def _check_accumulation(config, mesh):
    """Refuses parts of the batch that are not equal, or that the data axis cannot share out
    evenly.
    """
    parts, devices = config.accumulate, mesh.shape['data']
    if parts < 1 or config.batch_size % (parts * devices):
        over = f' on {devices} devices' if devices > 1 else ''
        raise UserError(
            f'accumulate is {parts} but batch_size is {config.batch_size}{over}: expected equal '
            'parts; choose a '
            f'batch_size that is a multiple of {max(parts, 1) * devices}, or another number of '
            'parts (1 = the whole batch)'
        )


def _fail(workdir, number, local, metrics, state, train_data, meta):
    """Keeps the state before the failing step and its batch, and raises the UserError that says
    so.
    """
    folder = os.path.join(workdir, 'failed')
    os.makedirs(folder, exist_ok=True)
    records = [int(record) for record in local['record']]
    names = [train_data.record_name(record) for record in records]
    index = jax.process_index()
    numbers = {name: str(value) for name, value in metrics.items()}
    _write_json(
        os.path.join(folder, f'step_{number}_process_{index}.json'),
        {'step': number, 'records': records, 'names': names, 'metrics': numbers},
    )
    path = os.path.join(folder, f'step_{number}_process_{index}.npz')
    with open(path + '.partial', 'wb') as file:
        np.savez_compressed(file, **local)
    os.replace(path + '.partial', path)
    kept = checkpoint.Checkpoints(workdir, folder='failed/checkpoints')
    if kept.latest() != int(state.step):
        kept.save(int(state.step), state, {}, meta, wait=True)
    kept.close()
    what = 'loss' if not np.isfinite(metrics['loss']) else 'norm of the gradient'
    value = metrics['loss'] if what == 'loss' else metrics['gradient_norm']
    shown = ', '.join(
        f'{record} ({name})' for record, name in zip(records[:8], names[:8], strict=True)
    )
    more = f' and {len(records) - 8} more' if len(records) > 8 else ''
    raise UserError(
        f'the {what} is {float(value)} at step {number}, records {shown}{more}; the state before '
        'that step '
        f'and its batch are in {folder}: lower optimizer.learning_rate or check those records'
    )


def _write_json(path, value):
    with open(path + '.partial', 'w', encoding='utf-8') as file:
        json.dump(value, file, indent=1)
    os.replace(path + '.partial', path)


class Run(NamedTuple):
    """A run as one of its checkpoints holds it."""

    config: ConfigDict
    task: object
    state: states.TrainState
    mesh: jax.sharding.Mesh


def open_run(workdir, create_task, step=None):
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
            f'{", ".join(map(str, known))} '
            '(config.keep says how many stay)'
        )
    meta = checkpoints.meta(step)
    config = checkpoint.load_config(meta)
    task = create_task(config)
    checkpoint.check_bundles(meta, task.bundles, workdir)
    mesh = meshes.create()
    transform, _ = optimizer.create(config.optimizer, config.steps)
    with jax.set_mesh(mesh):
        abstract = abstract_state(task, config, transform, checkpoint.batch_spec(meta), mesh)
        state = checkpoints.read_state(step, abstract)
    return Run(config, task, state, mesh)
