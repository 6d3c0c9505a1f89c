"""The state of a run, and the step that carries it on."""

import zlib

import jax
import jax.numpy as jnp
import optax
from flax import struct

from re2pix_jax.errors import UserError
from re2pix_jax.training import optimizer as optimizers


class TrainState(struct.PyTreeNode):
    """All that changes from step to step. Frozen networks are no part of it: they are an argument
    of the step.
    """

    step: jax.Array  # int32 [], steps taken
    params: object  # the variables dict that task.init returned
    ema: object  # running average of params, float32
    opt_state: object


def run_key(seed, purpose, step=0):
    """The key for one use at one step: a function of its arguments alone, the same on every host.

    Args:
      seed: int, the seed of the config.
      purpose: str, what the numbers are for; two purposes never share numbers.
      step: int or int32 [], steps taken so far.
    """
    return jax.random.fold_in(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode())), step
    )


def create(task, optimizer, seed, batch):
    """Draws the parameters and starts the average at them (started at zero it would need a
    correction).
    """
    params = task.init(run_key(seed, 'init'), batch)
    ema = jax.tree.map(_averaged, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def start_from(state, params, name):
    """The new `state` with `params` for its parameters and their average, laid out over the devices
    as those were.

    Raises:
      UserError: shapes or names differ from those of the config's network; `name` says where the
          parameters come from.
    """
    given, wanted = (
        dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (params, state.params)
    )
    wrong = sorted(
        jax.tree_util.keystr(path, simple=True, separator='.')
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
        lambda new, old: jax.device_put(jnp.array(new, old.dtype), old.sharding), params, tree
    )
    return state.replace(params=place(state.params), ema=place(state.ema))


def ema_decay(decay, step):
    """min(decay, (1 + step) / (10 + step)): short runs would otherwise export mostly their first
    parameters.  [O]
    """
    return jnp.minimum(decay, (1 + step) / (10 + step))


def make_step(task, optimizer, rate, seed, decay, accumulate=1):
    """Returns train_step(state, frozen, batch, number) -> (state, metrics, finite), to be jitted
    with state donated.

    Args:
      task: its `loss(params, frozen, batch, key) -> (scalar, metrics)` is descended;
        `frozen['ema']` is the average. A subtree metrics['statistics'] replaces the same leaves of
        params after the step (BatchNorm).
      optimizer, rate: from training.optimizer.create.
      seed, decay, accumulate: of the config (`decay` is its `ema`).

    In the step, `number` is the count of steps the caller has taken, int32 []. When the loss or the
    gradient is not finite, or an earlier step already was not (then state.step lags behind number),
    the state is returned as it was and `finite` is False. The caller may therefore look one step
    late and still holds the state before the failure.
    """

    def train_step(state, frozen, batch, number):
        def loss(params, batch, key):
            value, metrics = task.loss(params, {**frozen, 'ema': state.ema}, batch, key)
            return value, {**metrics, 'loss': value}

        gradients, metrics = _gradients(
            loss, state.params, batch, run_key(seed, 'loss', number), accumulate
        )
        value = metrics['loss']
        statistics = metrics.pop('statistics', {})
        gradients = optimizers.without_statistics(gradients)
        norm = optax.global_norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = merge(optax.apply_updates(state.params, updates), statistics)
        keep = ema_decay(decay, state.step)
        ema = jax.tree.map(lambda old, new: _average(old, new, keep), state.ema, params)
        finite = jnp.isfinite(value) & jnp.isfinite(norm) & (state.step == number)
        new = TrainState(state.step + 1, params, ema, opt_state)
        state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
        metrics |= {'gradient_norm': norm, 'learning_rate': jnp.asarray(rate(number))}
        return state, metrics, finite

    return train_step


def _gradients(loss, params, batch, key, parts):
    """Gradients and metrics of loss(params, batch, key), averaged over `parts` equal parts of the
    batch, each with a key of its own.

    The parts are taken one after the other, so that the activations of one are in memory at a time.
    A loss that is a mean over clips keeps its gradient up to rounding; running statistics become
    the mean of what the parts would have made of the same old ones.
    """
    compute = jax.grad(loss, has_aux=True)
    if parts == 1:
        return compute(params, batch, key)
    # Every parts-th clip, not a block of them: each device then has its share of every part at
    # home.
    batches = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def add(total, part):
        batch, number = part
        gradients, metrics = compute(params, batch, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, gradients), metrics

    total, metrics = jax.lax.scan(
        add, jax.tree.map(jnp.zeros_like, params), (batches, jnp.arange(parts))
    )
    return jax.tree.map(lambda x: x / parts, total), jax.tree.map(lambda x: x.mean(axis=0), metrics)


def merge(tree, part):
    """Returns the nested dicts `tree` with the leaves that `part` names replaced; raises KeyError
    for a name not there.
    """
    merged = dict(tree)
    for name, value in part.items():
        if name not in tree:
            raise KeyError(
                f'statistics name {name!r}, which the parameters do not have: {sorted(tree)}'
            )
        merged[name] = merge(tree[name], value) if isinstance(value, dict) else value
    return merged


def _averaged(x):
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _average(old, new, keep):
    if not jnp.issubdtype(new.dtype, jnp.floating):
        return new
    return optax.incremental_update(new.astype(jnp.float32), old, 1 - keep)
