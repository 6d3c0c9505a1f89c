"""What bridges real and forecast features: nested dropout and mixed supervision [P].

Components are ordered by explained variance, so keeping the first c of them keeps what stage 1
forecasts best.
"""

import jax
import jax.numpy as jnp

from re2pix_jax.errors import UserError

SMALLEST = 8


def nested_counts(kind, components):
    """The set of c that nested dropout draws from, ending in all `components`.

    'doublings': 8, 16, 32, ... [O, the default]; 'multiples': 8, 16, 24, ...; the paper's "{8, 16,
    ..., 1152}" can mean either. UserError for another kind or when there are no components.
    """
    if components < 1:
        raise UserError(f'nested dropout needs at least one component, got {components}')
    if kind == 'doublings':
        counts = [SMALLEST * 2**power for power in range(components.bit_length())]
    elif kind == 'multiples':
        counts = list(range(SMALLEST, components, SMALLEST))
    else:
        raise UserError(f"nested counts '{kind}' is unknown; choose 'doublings' or 'multiples'")
    return (*(count for count in counts if count < components), components)


def keep_first(components, count):
    """Zero all but the first `count` channels; components [..., P], count an int or array that
    broadcasts to [...].
    """
    kept = jnp.arange(components.shape[-1]) < jnp.asarray(count)[..., None]
    return jnp.where(kept, components, 0)


def limit(components, channels):
    """`keep_first` for inference: None keeps all; UserError unless `channels` lies between 1 and
    P.
    """
    if channels is None:
        return components
    if not 1 <= channels <= components.shape[-1]:
        raise UserError(
            f'channels: {channels} of {components.shape[-1]} components were asked for; '
            f'give a number from 1 to {components.shape[-1]}, or None for all'
        )
    return keep_first(components, channels)


def nested_dropout(key, components, counts):
    """Per sample, draw c with equal probability from the tuple `counts` and zero the channels from
    c on.

    components [B, T, h, w, P]: one c for all frames of a sample, so context and future go in
    together, along T. UserError when `counts` is empty or has an entry outside 1..P.
    """
    if not counts or min(counts) < 1 or max(counts) > components.shape[-1]:
        raise UserError(
            f'nested counts {tuple(counts)} must be a non-empty set of numbers from 1 to '
            f'{components.shape[-1]}, the number of components'
        )
    drawn = jax.random.choice(key, jnp.asarray(counts), components.shape[:1])
    return keep_first(components, drawn.reshape(-1, 1, 1, 1))


def mixed_count(batch, fraction):
    """How many samples of a batch are supervised with predictions: the fraction rounded, at least 1
    when above 0.
    """
    if not 0.0 <= fraction <= 1.0:
        raise UserError(
            f'the mixed-supervision fraction is {fraction}; it must lie between 0 and 1'
        )
    return max(1, round(batch * fraction)) if fraction > 0 else 0


def mixed_supervision(predict, context, future, fraction, key=None):
    """Replace the future components of some samples of the batch by stage 1's own predictions.

    `predict(context [n, M, h, w, P]) -> [n, F, h, w, P]`; no gradient goes through it. A fraction
    of 0 trains on the ground truth
    only and never calls it, a fraction of 1 on predictions only. Two readings of the fractions
        between:

    key=None, the slice: evenly spaced samples of the batch, and `predict` runs on those alone. As
    the batch is already shuffled this
        is the same mixture as drawing, and the rest of the batch never pays for stage 1 [O]. With
        fewer than 1 / fraction samples in a batch the minimum of one sample raises the share above
        `fraction`. Over devices, the slice lies as the batch does: where their number divides its
        length, each predicts its own share and nothing travels.
    key given, per sample: every sample's source is drawn with probability `fraction` [P]. Which
        ones is not known beforehand, so that `predict` runs on the whole batch: stage 1 costs 1 /
        fraction times as much.

    Returns future [B, F, h, w, P]; UserError when the fraction is outside [0, 1].
    """
    batch, count = future.shape[0], mixed_count(future.shape[0], fraction)
    if count == 0:
        return future
    if key is None:
        spacing = batch // count
        rest = batch - count * spacing  # at the end, never predicted
        predicted = predict(context[: count * spacing : spacing])
        predicted = jnp.pad(
            jnp.repeat(predicted, spacing, axis=0), [(0, rest)] + [(0, 0)] * (future.ndim - 1)
        )
        chosen = (jnp.arange(batch) % spacing == 0) & (jnp.arange(batch) < count * spacing)
    else:
        predicted, chosen = predict(context), jax.random.bernoulli(key, fraction, (batch,))
    chosen = chosen.reshape(-1, *[1] * (future.ndim - 1))
    return jnp.where(chosen, jax.lax.stop_gradient(predicted).astype(future.dtype), future)
