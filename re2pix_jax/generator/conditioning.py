"""What bridges real and forecast features: nested dropout and mixed supervision [P]. And what
bridges true latents and the generator's own in a context: noise on it, at a time that says so [O].

Components are ordered by explained variance, so keeping the first c of them keeps what stage 1
forecasts best.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from re2pix_jax.generator import flow
from re2pix_jax.nn import layout
from re2pix_jax.nn.layout import hold

SMALLEST = 8


def nested_counts(kind: str, components: int) -> tuple[int, ...]:
    """The set of c that nested dropout draws from, ending in all `components`.

    'multiples': 8, 16, 24, ..., which ends in 1152 by itself; 'doublings': 8, 16, 32, ..., 1024 and
    then 1152; the paper's "{8, 16, ..., 1152}" can mean either [O]. ValueError for another kind or
    when there are no components.
    """
    if components < 1:
        raise ValueError(f'nested dropout needs at least one component, got {components}')
    if kind == 'doublings':
        counts = [SMALLEST * 2**power for power in range(components.bit_length())]
    elif kind == 'multiples':
        counts = list(range(SMALLEST, components, SMALLEST))
    else:
        raise ValueError(f"nested counts '{kind}' is unknown; choose 'doublings' or 'multiples'")
    return (*(count for count in counts if count < components), components)


def keep_first(
    components: Float[Array, '*grid P'], count: int | Int[Array, '...']
) -> Float[Array, '*grid P']:
    """Zero all but the first `count` channels; components [..., P], count an int or array that
    broadcasts to [...].
    """
    kept = jnp.arange(components.shape[-1]) < jnp.asarray(count)[..., None]
    return jnp.where(kept, components, 0)


def check_channels(channels: int | None, components: int) -> int:
    """How many of the first components are kept at inference: all for None; ValueError unless
    `channels` lies between 1 and all.
    """
    if channels is None:
        return components
    if not 1 <= channels <= components:
        raise ValueError(
            f'channels: {channels} of {components} components were asked for; give a number from 1 '
            f'to {components}, or None for all'
        )
    return channels


def nested_dropout(
    key: Key[Array, ''], components: Float[Array, 'B T h w P'], counts: tuple[int, ...]
) -> Float[Array, 'B T h w P']:
    """Per sample, draw c with equal probability from the tuple `counts` and zero the channels from
    c on.

    components [B, T, h, w, P]: one c for all frames of a sample, so context and future go in
    together, along T. ValueError when `counts` is empty or has an entry outside 1..P.
    """
    if not counts or min(counts) < 1 or max(counts) > components.shape[-1]:
        raise ValueError(
            f'nested counts {tuple(counts)} must be a non-empty set of numbers from 1 to '
            f'{components.shape[-1]}, the number of components'
        )
    drawn = jax.random.choice(key, jnp.asarray(counts), components.shape[:1])
    return keep_first(components, drawn.reshape(-1, 1, 1, 1))


def mixed_places(batch: int, fraction: float) -> tuple[int, ...]:
    """Places in a global batch of the clips that are supervised with predictions: the fraction
    rounded, at least 1 when above 0.

    Evenly spaced, so that devices, which hold blocks of the batch, have equally many; and moved
    within their spacing so that parts, which hold every n-th clip, do too, for every n.
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(
            f'the mixed-supervision fraction is {fraction}; it must lie between 0 and 1'
        )
    count = max(1, round(batch * fraction)) if fraction > 0 else 0
    taken = {parts: [0] * parts for parts in range(2, batch + 1) if batch % parts == 0}
    places = []
    for number in range(count):
        block = range(number * batch // count, (number + 1) * batch // count)
        place = min(block, key=lambda p: sum(held[p % parts] for parts, held in taken.items()))
        for parts, held in taken.items():
            held[place % parts] += 1
        places.append(place)
    return tuple(places)


def mixed_supervision(
    predict: Callable,
    context: Float[Array, 'B M h w P'],
    future: Float[Array, 'B F h w P'],
    fraction: float,
    places: Int[Array, ' B'] | None = None,
    batch_size: int | None = None,
    keys: Key[Array, ' B'] | None = None,
) -> Float[Array, 'B F h w P']:
    """Replace the future components of some clips by stage 1's own predictions.

    `predict(context [n, M, h, w, P]) -> [n, F, h, w, P]`; no gradient goes through it. A fraction
    of 0 trains on the ground truth only and never calls it. Two readings of the fractions above:

    keys=None: the clips at `mixed_places` of the global batch, and `predict` runs on those alone.
        As the batch is already shuffled this is the same mixture as drawing, and the rest of the
        batch never pays for stage 1 [O]. Every device predicts for its own clips; where they have
        unequally many, some predict for nothing, and a part of a batch without any skips it.
    keys [B]: every clip's source is drawn with probability `fraction` [P]. Which ones is not known
        beforehand, so that `predict` runs on the whole batch: stage 1 costs 1 / fraction times as
        much.

    Args:
        context, future: components [B, M, h, w, P] and [B, F, h, w, P].
        places: int32 [B], where the clips stand in the global batch of `batch_size`, of which this
            is every n-th; None: this is the global batch.

    Returns:
        Future [B, F, h, w, P]. ValueError when the fraction is outside [0, 1].
    """
    clips = len(future)
    if places is None:
        places, batch_size = jnp.arange(clips), clips
    chosen = np.asarray(mixed_places(batch_size, fraction), int)
    if not len(chosen):
        return future
    if keys is not None:
        drawn = jax.vmap(lambda key: jax.random.bernoulli(key, fraction))(keys)
        return _where(drawn, predict(context), future)

    parts, devices = batch_size // clips, _devices_of(clips)
    on_device = clips // devices
    rows = [
        [chosen[chosen % parts == part] // parts - device * on_device for device in range(devices)]
        for part in range(parts)
    ]
    rows = [[own[(own >= 0) & (own < on_device)] for own in of_part] for of_part in rows]
    most = max(len(own) for of_part in rows for own in of_part)
    # [parts, devices, most]: rows of each device's block; what fills up points behind its end.
    table = np.full((parts, devices, most), on_device)
    for part, of_part in enumerate(rows):
        for device, own in enumerate(of_part):
            table[part, device, : len(own)] = own
    own = jnp.asarray(table)[places[0] % parts]

    def by_device(x):
        return hold(x.reshape(devices, -1, *x.shape[1:]))

    def mixed():
        take = jax.vmap(lambda block, rows: jnp.take(block, rows, axis=0, mode='clip'))
        put = jax.vmap(lambda block, rows, new: block.at[rows].set(new, mode='drop'))
        taken = hold(take(by_device(context), own).reshape(-1, *context.shape[1:]))
        predicted = predict(taken)
        predicted = jax.lax.stop_gradient(predicted).astype(future.dtype)
        return hold(put(by_device(future), own, by_device(predicted)).reshape(future.shape))

    if all(any(len(own) for own in of_part) for of_part in rows):
        return mixed()
    return jax.lax.cond((own < on_device).any(), mixed, lambda: future)


def context_times(key: Key[Array, ''], frames: int, most: float) -> Float[Array, ' M']:
    """Times of one clip's context frames, drawn for training [O]: half of the clips stay clean
    (t = 1); of the others a random number of leading frames does, as while a window slides off true
    frames, and the rest has one time from 1 - `most` to 1.
    """
    clean_key, count_key, time_key = jax.random.split(key, 3)
    count = jax.random.randint(count_key, (), 0, frames)
    count = jnp.where(jax.random.bernoulli(clean_key), frames, count)
    time = 1.0 - most * jax.random.uniform(time_key)
    return jnp.where(jnp.arange(frames) < count, 1.0, time)


def noised(
    keys: Key[Array, ' B'],
    latents: Float[Array, 'B M *grid c'],
    t: Float[Array, 'B M'],
    diffusion: flow.Diffusion,
) -> Float[Array, 'B M *grid c']:
    """Context latents at times t of the path; those at t = 1 stay as they are.

    The keys may be those of the future's noise: this is another one.
    """
    draw = lambda key: jax.random.normal(jax.random.fold_in(key, 1), latents.shape[1:])
    return flow.interpolate(latents, jax.vmap(draw)(keys), t, diffusion)


def _devices_of(clips):
    """Over how many devices of the mesh that is set clips are laid: each holds a block of them."""
    devices = layout.devices(*layout.CLIPS)
    return devices if clips % devices == 0 else 1


def _where(chosen, predicted, future):
    chosen = chosen.reshape(-1, *[1] * (future.ndim - 1))
    return jnp.where(chosen, jax.lax.stop_gradient(predicted).astype(future.dtype), future)
