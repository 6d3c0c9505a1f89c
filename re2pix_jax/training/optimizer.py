"""The optimiser of a config: adam, adamw or muon, a schedule, clipping, weight decay on kernels."""

import re
from collections.abc import Callable

import jax
import optax
from optax import contrib

from re2pix_jax.errors import UserError


def create(
    config, steps: int, muon: tuple[str, ...] = ()
) -> tuple[optax.GradientTransformation, Callable]:
    """Builds the optimiser once for a run.

    Args:
      config: the `optimizer` group of a training config (training.defaults.optimizer).
      steps: steps of the whole run, where a falling schedule reaches zero.
      muon: regular expressions over the '/'-joined paths of parameters: the kernels that 'muon'
        takes, found anywhere in the path; adam takes the rest. A network lists them as MUON.

    Returns:
      (optax.GradientTransformation, schedule), where schedule(step) is the learning rate of the
      step after `step` steps. UserError for settings that contradict each other; the first use
      raises one where muon finds no parameter to take.
    """
    if config.name not in ('adam', 'adamw', 'muon'):
        raise UserError(f"optimizer.name is {config.name!r}: 'adam', 'adamw' or 'muon' expected")
    if config.weight_decay and config.name == 'adam':
        raise UserError(
            "optimizer.weight_decay is set but optimizer.name is 'adam': use 'adamw' or 'muon' or "
            'set it to 0'
        )
    rate = schedule(config, steps)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    parts.append(
        adam
        if config.name != 'muon'
        else optax.partition({'adam': adam, 'muon': _muon(config)}, _muon_or_adam(muon))
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


def _muon_or_adam(rules):
    """params -> 'muon' or 'adam' for each of them."""

    def label(path, x):
        takes = any(re.search(rule, _path(path)) for rule in rules)
        return 'muon' if takes and x.ndim >= 2 else 'adam'

    def labels(params):
        chosen = jax.tree_util.tree_map_with_path(label, params)
        if 'muon' not in jax.tree.leaves(chosen):
            raise UserError(
                "optimizer.name is 'muon', but the network names no kernel that muon takes: use "
                "'adamw', or list kernels as MUON beside the network"
            )
        return chosen

    return labels


def schedule(config, steps: int) -> Callable:
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

    Norm scales (also those stacked over layers), biases, embedding tables, position codes and
    learned tokens keep their size.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x.ndim >= 2 and _path(path).split('/')[-1] == 'kernel', params
    )


def _path(path):
    return jax.tree_util.keystr(path, simple=True, separator='/')
