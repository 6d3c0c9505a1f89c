"""The state of a run, and the step that carries it on."""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from re2pix_jax.errors import UserError


class TrainState(struct.PyTreeNode):
    """All that changes from step to step. Frozen networks are no part of it: they are an argument
    of the step.
    """

    step: jax.Array  # int32 [], steps taken
    params: Any
    batch_stats: Any  # running statistics, measured and not optimised; {} where there are none
    ema: Any  # running average of the variables, float32
    opt_state: Any

    @property
    def variables(self) -> dict:
        """{'params': ..., 'batch_stats': ... if any}, as the task's network takes them."""
        return _variables(self.params, self.batch_stats)


def _variables(params, batch_stats):
    return {'params': params} | ({'batch_stats': batch_stats} if batch_stats else {})


def run_key(seed: int, purpose: str, step=0) -> jax.Array:
    """The key for one use at one step: a function of its arguments alone, the same on every host.

    Args:
      seed: the seed of the config.
      purpose: what the numbers are for; two purposes never share numbers.
      step: int or int32 [], steps taken so far.
    """
    return jax.random.fold_in(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode())), step
    )


def create(task, optimizer: optax.GradientTransformation, seed: int, batch) -> TrainState:
    """Draws the variables and starts the average at them (started at zero it would need a
    correction).
    """
    variables = task.init(run_key(seed, 'init'), batch)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    ema = jax.tree.map(_averaged, _variables(params, batch_stats))
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, ema, optimizer.init(params))


def start_from(state: TrainState, variables: dict, name: str) -> TrainState:
    """The new `state` with `variables` in the place of its own and their average, laid out over the
    devices as those were.

    Raises:
      UserError: shapes or names differ from those of the config's network; `name` says where the
          variables come from.
    """
    given, wanted = (
        dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (variables, state.variables)
    )
    wrong = sorted(
        jax.tree_util.keystr(path[1:], simple=True, separator='.')
        for path in {*given, *wanted}
        if path not in given or path not in wanted or given[path].shape != wanted[path].shape
    )
    if wrong:
        listed = ', '.join(wrong[:3]) + (f' and {len(wrong) - 3} more' if len(wrong) > 3 else '')
        raise UserError(
            f'config.init: the parameters of {name} do not fit config.model (by name or shape: '
            f'{listed})'
        )
    # Copies: the step donates both trees, and one buffer cannot be given away twice.
    place = lambda tree: jax.tree.map(
        lambda new, old: jax.device_put(jnp.array(new, old.dtype), old.sharding), variables, tree
    )
    own = place(state.variables)
    return state.replace(
        params=own['params'], batch_stats=own.get('batch_stats', {}), ema=place(state.ema)
    )


def ema_decay(decay, step):
    """min(decay, (1 + step) / (10 + step)): short runs would otherwise export mostly their first
    parameters.  [O]
    """
    return jnp.minimum(decay, (1 + step) / (10 + step))


def make_step(
    task, optimizer: optax.GradientTransformation, rate: Callable, seed: int, decay, accumulate=1
) -> Callable:
    """Returns train_step(state, frozen, batch, number) -> (state, metrics, finite), to be jitted
    with state donated.

    Args:
      task: its `loss(variables, frozen, batch, key, teacher) -> (scalar, (metrics, updates))` is
        descended; `teacher` is the average of the variables, updates['batch_stats'] replaces the
        running statistics. The batch gets 'place' int32 [B], each clip's place in the global batch,
        and 'step' int32 [B], the steps taken before, and the key is that of the step: what is drawn
        by the two does not depend on how the batch is cut.
      optimizer, rate: from training.optimizer.create.
      seed, decay, accumulate: of the config (`decay` is its `ema`).

    In the step, `number` is the count of steps the caller has taken, int32 []. When the loss or the
    gradient is not finite, or an earlier step already was not (then state.step lags behind number),
    the state is returned as it was and `finite` is False. The caller may therefore look one step
    late and still holds the state before the failure.
    """

    def train_step(state, frozen, batch, number):
        def loss(params, batch, key):
            variables = _variables(params, state.batch_stats)
            value, (metrics, updates) = task.loss(variables, frozen, batch, key, state.ema)
            return value, ({**metrics, 'loss': value}, updates)

        clips = len(jax.tree.leaves(batch)[0])
        batch = {**batch, 'step': jnp.full(clips, number, jnp.int32)}
        gradients, (metrics, updates) = _gradients(
            loss, state.params, batch, run_key(seed, 'loss', number), accumulate
        )
        value, norm = metrics['loss'], optax.tree.norm(gradients)
        changes, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        batch_stats = updates.get('batch_stats', state.batch_stats)
        keep = ema_decay(decay, state.step)
        ema = jax.tree.map(
            lambda old, new: _average(old, new, keep), state.ema, _variables(params, batch_stats)
        )
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & (state.step == number)
        new = TrainState(state.step + 1, params, batch_stats, ema, opt_state)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        metrics |= {'gradient_norm': norm, 'learning_rate': jnp.asarray(rate(number))}
        return state, metrics, finite

    return train_step


def _gradients(loss, params, batch, key, parts):
    """Gradients and what comes beside the loss, averaged over `parts` equal parts of the batch.

    The parts are taken one after the other, so that the activations of one are in memory at a time.
    A loss that is a mean over clips keeps its gradient up to rounding; running statistics become
    the mean of what the parts would have made of the same old ones.
    """
    compute = jax.grad(loss, has_aux=True)
    clips = len(jax.tree.leaves(batch)[0])
    batch = {**batch, 'place': jnp.arange(clips, dtype=jnp.int32)}
    if parts == 1:
        return compute(params, batch, key)
    # Every parts-th clip, not a block of them: each device then has its share of every part at
    # home.
    batches = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def add(total, part):
        gradients, beside = compute(params, part, key)
        return jax.tree.map(jnp.add, total, gradients), beside

    total, beside = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batches)
    return jax.tree.map(lambda x: x / parts, total), jax.tree.map(lambda x: x.mean(axis=0), beside)


def _averaged(x):
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _average(old, new, keep):
    if not jnp.issubdtype(new.dtype, jnp.floating):
        return new
    return optax.incremental_update(new.astype(jnp.float32), old, 1 - keep)
