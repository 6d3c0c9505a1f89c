"""The optimiser of a config: adam, adamw or muon, a schedule, clipping, weight decay on kernels."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from re2pix_jax.errors import UserError

STATISTICS = 'batch_stats'


def create(config, steps):
    """Builds the optimiser once for a run.

    Args:
      config: the `optimizer` group of a training config (training.defaults.optimizer).
      steps: steps of the whole run, where a falling schedule reaches zero.

    Returns:
      (optax.GradientTransformation, schedule), where schedule(step) is the learning rate of the
      step after `step` steps.
    """
    if config.name not in ('adam', 'adamw', 'muon'):
        raise UserError(f"optimizer.name is {config.name!r}: 'adam', 'adamw' or 'muon' expected")
    if config.weight_decay and config.name == 'adam':
        raise UserError(
            "optimizer.weight_decay is set but optimizer.name is 'adam': use 'adamw' or 'muon' or "
            'set it to 0'
        )
    if config.clip < 0:
        raise UserError(
            f'optimizer.clip is {config.clip}: a positive norm, or 0 for no clipping, expected'
        )
    rate = schedule(config, steps)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    parts.append(
        adam
        if config.name != 'muon'
        else optax.partition({'adam': adam, 'muon': _muon(config)}, _muon_or_adam)
    )
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    parts.append(optax.scale_by_learning_rate(rate))
    return optax.chain(*parts), rate


def _muon(config):
    """Muon (momentum, then orthogonalised by Newton-Schulz), its updates scaled to the size of
    Adam's.

    That scale, 0.2 sqrt(largest side), is that of arXiv 2502.16982: one learning rate then serves
    both kinds of parameters.
    """
    sides = lambda params: jax.tree.map(
        lambda x: contrib.MuonDimensionNumbers(x.ndim - 2, x.ndim - 1), params
    )
    return optax.chain(
        contrib.scale_by_muon(
            beta=config.muon_momentum, eps=config.eps, weight_dimension_numbers=sides
        ),
        optax.stateless(
            lambda updates, _: jax.tree.map(lambda x: x * 0.2 * max(x.shape[-2:]) ** 0.5, updates)
        ),
    )


def _muon_or_adam(params):
    """'muon' for the kernels of repeated layers, also those stacked over layers; 'adam' for all
    else: first and last layers, tables, norms, biases and convolutions.
    """

    def choose(path, x):
        *groups, last = _names(path)
        repeated = any(name.startswith(('layers', 'blocks')) for name in groups)
        stacked = 'layers' in groups
        return 'muon' if last == 'kernel' and repeated and x.ndim == 2 + stacked else 'adam'

    return jax.tree_util.tree_map_with_path(choose, params)


def schedule(config, steps):
    """Returns step -> learning rate: linear warm-up, then constant, half a cosine to 0, or (1 -
    progress)^power.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    rest = max(steps - warmup, 1)
    if config.schedule == 'constant':
        after = optax.constant_schedule(peak)
    elif config.schedule == 'cosine':
        after = optax.cosine_decay_schedule(peak, rest)
    elif config.schedule == 'poly':
        after = optax.polynomial_schedule(peak, 0.0, config.power, rest)
    else:
        raise UserError(
            f"optimizer.schedule is {config.schedule!r}: 'constant', 'cosine' or 'poly' expected"
        )
    if not warmup:
        return after
    # The first step already moves: after `warmup` steps the rate is the peak.
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, warmup - 1 or 1), after], [warmup]
    )


def decayed(params):
    """Marks the leaves that weight decay pulls to zero: arrays of two or more axes named 'kernel'.

    Norm scales (also those stacked over layers), biases, embedding tables, position codes, learned
    tokens and running statistics keep their size.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: (
            x.ndim >= 2 and _names(path)[-1:] == ['kernel'] and STATISTICS not in _names(path)
        ),
        params,
    )


def without_statistics(gradients):
    """Sets the gradients of running statistics ('batch_stats') to zero: they are measured, not
    optimised.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.zeros_like(x) if STATISTICS in _names(path) else x, gradients
    )


def _names(path):
    return [str(getattr(entry, 'key', getattr(entry, 'name', entry))) for entry in path]
