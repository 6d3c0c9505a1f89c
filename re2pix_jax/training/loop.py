"""The training loop, for any task."""

import concurrent.futures
import contextlib
import json
import os
import sys
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from re2pix_jax import errors, files, remote
from re2pix_jax.progress import Progress, duration
from re2pix_jax.training import (
    checkpoint,
    defaults,
    goodput,
    hardware,
    lock,
    resume,
    sharding,
    startup,
    termination,
    writer,
)
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import state as states
from re2pix_jax.training import workdir as workdirs
from re2pix_jax.training.resume import open_run

__all__ = ['open_run', 'train']


def train(task, config, workdir: str, train_data, evaluate=None) -> states.TrainState:
    """Trains `task` until `config.steps`, going on from the latest checkpoint in `workdir`.

    A run that was cut off and is started again with the same arguments takes bit for bit the steps
    that it would have taken.

    Args:
      task: as `re2pix_jax.tasks` makes them: it has `init`, `loss`, `load`, `net`, `frozen` (dict
        of pytrees) and `bundles` (name -> {'path', 'identity'} of the bundles it uses).
      config: as training.defaults.defaults() lays it out.
      workdir: folder of the run: checkpoints/, log.jsonl, timing.jsonl, goodput.jsonl,
        tensorboard/, config.json. In a bucket the logs show what was there at the last
        checkpoint.
      train_data: endless iterator of this process's share of each batch (`mesh.share` of the
        config's mesh), a dict of numpy arrays [local batch, ...] with 'record' among them, and with
        get_state(), set_state(state), record_name(int).
      evaluate: averaged variables -> {name: float}, called every config.eval_every steps, once the
        checkpoint of the step, where one is due, has been saved; None means no evaluation. Where
        it has `about()`, that says on what; `pictures(averaged variables)` are (name, sheet, film,
        frames a second) for the boards.

    Returns:
      TrainState, its `step` below config.steps when a SIGTERM ended the run early (its checkpoint
      is written).

    Raises:
      UserError: the config is impossible here, workdir belongs to another one or is not the same
        for all processes, the disk is full, or the loss or its gradient is not finite; for the last
        the state before that step and its batch are kept in `workdir`/failed.
    """
    defaults.check(config)
    mesh = meshes.create(**meshes.sizes(config))
    meshes.check_batch_size(config.batch_size, mesh, config.accumulate)
    with (
        workdirs.Workdir(workdir) as folder,
        contextlib.nullcontext() if jax.process_index() else lock.held(folder.place),
        checkpoint.Checkpoints(workdir, config.keep) as checkpoints,
        jax.set_mesh(mesh),
        termination.Termination() as terminated,
    ):
        return _train(task, config, folder, train_data, evaluate, mesh, checkpoints, terminated)


def _train(task, config, folder, train_data, evaluate, mesh, checkpoints, terminated):
    workdir = folder.place
    # The state: new, or that of the latest checkpoint.
    spent = writer.read_log(folder.here, writer.GOODPUT)
    clock = goodput.Goodput(spent, checkpoints.latest() or 0)
    transform, rate = resume.make_optimizer(task, config)
    with clock.spent('restoring'):
        state, meta, first = resume.start(
            task, config, workdir, train_data, mesh, checkpoints, transform
        )
    start = int(state.step)
    if jax.process_index() == 0:  # all of them share the folder
        files.write_text(remote.join(workdir, 'config.json'), json.dumps(meta['config'], indent=1))

    # What this run is.
    silent = jax.process_index() != 0
    progress = Progress(config.steps, 'training', 'step', start, silent, sys.stdout)
    if start:
        progress.note(f'going on from step {start} of {workdir}')
    missing = evaluate is not None and _unevaluated(config, folder.here, start)
    if start >= config.steps and not missing:
        progress.note(f'{workdir} is at step {start} of {config.steps}: nothing left to train')
        return state
    placed = resume.place(task, state.params, mesh)
    clips = getattr(train_data, 'clips', None)
    progress.note(startup.describe(task, config, workdir, mesh, state, placed, clips))
    checkpoints.check_space(state)

    # The step, compiled while the first batch is read.
    frozen = jax.device_put(task.frozen, sharding.of_parts(task.frozen, mesh))
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        wanted = first is None and start < config.steps
        reading = reader.submit(next, train_data) if wanted else None
        with clock.spent('compiling'):
            step, work = _compile(
                task, config, transform, rate, state, frozen, meta, mesh, progress
            )
        with clock.spent('waiting'):
            first = reading.result() if wanted else first
    meter = hardware.Meter(config.batch_size, work)

    def measured(log, number):
        """Evaluates the average."""
        with clock.spent('evaluating'):
            values = evaluate(state.ema)
            pictures = [*getattr(evaluate, 'pictures', lambda _: ())(state.ema)]
        log.scalars(number, {f'eval/{name}': value for name, value in values.items()})
        for picture in pictures:
            log.picture(number, *picture)
        shown = '  '.join(f'{name} {float(value):.5g}' for name, value in values.items())
        about = getattr(evaluate, 'about', str)()
        progress.note(f'evaluation at step {number}{about and f" on {about}"}: {shown}')

    def settle(log, pending):
        """Reads a dispatched step's numbers, writes them where due, and stops the run where they
        are not finite.
        """
        number, local, metrics, finite = pending
        if not finite:
            metrics = jax.device_get(metrics)
            termination.fail(workdir, number, local, metrics, state, train_data, meta)
        progress.done = number
        if number == start + 1:
            progress.note(clock.describe_start())
        if number % config.log_every == 0 or number == config.steps:
            metrics = jax.device_get(metrics)
            if skipped := getattr(train_data, 'skipped', 0):
                metrics['skipped_clips'] = skipped
            log.scalars(number, metrics)
            speed = meter.read(number)
            log.timing(number, speed)
            log.goodput(number, clock.read())
            progress.say(f'loss {float(metrics["loss"]):.5g}  {hardware.describe(speed)}')
            restart(number)

    def restart(number):
        progress.restart()
        meter.restart(number)

    # The loop.
    pending, number = None, start
    with (
        writer.Writer(folder.here, start, config.log.writers, meta['config']) as log,
        contextlib.closing(progress),
        contextlib.closing(
            hardware.Profile(config.profile.steps, os.path.join(folder.here, 'profile'))
        ) as profile,
    ):
        if missing:
            measured(log, start)
        restart(start)
        clock.stepping()
        for number in range(start + 1, config.steps + 1):
            profile.before(number)
            with meter.waiting(), clock.spent('waiting'):
                local = first if first is not None else next(train_data)
            first, batch = None, meshes.global_batch(local, mesh)
            with jax.profiler.StepTraceAnnotation('train', step_num=number):
                state, metrics, finite = step(state, frozen, batch, np.int32(number - 1))
            # The numbers of a step are read once the next one is under way, so that the devices
            # never wait for them.
            if pending is not None:
                settle(log, pending)
            pending = (number, local, metrics, finite)

            last = number == config.steps or terminated.reached(number)
            due_eval = evaluate is not None and _due(config, number)
            due_save = last or (config.checkpoint_every and number % config.checkpoint_every == 0)
            if profile.after(number, state) or due_eval or due_save:
                settle(log, pending)  # what a checkpoint holds is in the log before it
                pending = None
                # Saved first: an evaluation that fails throws no steps away.
                if due_save:
                    with clock.spent('saving'):
                        log.flush()
                        folder.upload()
                        checkpoints.save(number, state, train_data.get_state(), meta, wait=last)
                if due_eval:
                    measured(log, number)
                log.goodput(number, clock.read())
                restart(number)
            if last:
                break
    progress.note(clock.describe())
    if number < config.steps:
        progress.note(
            f'stopped by a signal after step {number}, saved; the same command goes on from there'
        )
    return state


def _compile(task, config, transform, rate, state, frozen, meta, mesh, progress):
    """(the compiled step, operations of one)"""
    layout, replicated = jax.tree.map(lambda x: x.sharding, state), meshes.replicated(mesh)
    step = jax.jit(
        states.make_step(task, transform, rate, config.seed, config.ema, config.accumulate),
        donate_argnums=0,
        out_shardings=(layout, replicated, replicated),
    )
    began = time.perf_counter()
    progress.note('compiling ...')
    with errors.blaming('config.model or config.data'):
        traced = step.trace(state, frozen, resume.abstract_batch(meta, mesh), np.int32(0))
    work = hardware.flops(traced.jaxpr, mesh.devices.flat[0].client.platform)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - began
    progress.note(f'compiled in {duration(seconds)}: {work / 1e12:.3g} TFLOP a step')
    return compiled, work


def _due(config, number):
    return config.eval_every and (number % config.eval_every == 0 or number == config.steps)


def _unevaluated(config, workdir, step):
    """Whether the evaluation of the step that a run goes on from is due and not in its log: it
    failed, or the run was cut off before it.
    """
    rows = writer.read_log(workdir) if jax.process_index() == 0 else []
    done = any(name.startswith('eval/') for row in rows if row['step'] == step for name in row)
    missing = bool(step and _due(config, step) and not done)
    if jax.process_count() > 1:
        missing = bool(multihost_utils.broadcast_one_to_all(np.bool_(missing)))
    return missing
