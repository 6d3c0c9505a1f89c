"""Autoregressive roll-out: predict a frame, append it, drop the oldest, repeat."""

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


def forecast(
    params,
    net,
    components: Float[Array | np.ndarray, '...'],
    steps: int,
    key: Key[Array, ''] | None = None,
    cut: bool = False,
) -> Float[Array, 'B {steps} h w P']:
    """Rolls the masked feature transformer out.

    Args:
        params: variables of `net`.
        net: a `MaskedFeatureTransformer` of T frames.
        components: [B, >= T - 1, h, w, P]; the last T - 1 frames are the context.
        steps: frames to predict, static.
        key: of dropout, another one in every step; None for no dropout.
        cut: keep the gradient of a step from going back into the predictions that it goes on from.

    Returns:
        The predicted components [B, steps, h, w, P], float32. Raises ValueError for too few frames
        or steps, and for components that are not the network's.
    """
    context_frames = net.frames - 1
    if components.ndim != 5:
        raise ValueError(
            'components: expected [batch, time, rows, columns, channels], got '
            f'{list(components.shape)}'
        )
    if components.shape[1] < context_frames:
        raise ValueError(
            f'the forecaster was given {components.shape[1]} context frames and needs '
            f'{context_frames}'
        )
    if not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(f'a forecast of {steps!r} steps was asked for: at least 1 is needed')
    context = components[:, -context_frames:].astype(jnp.float32)

    def step(context, number):
        dropout = (
            {}
            if key is None
            else {'deterministic': False, 'rngs': {'dropout': jax.random.fold_in(key, number)}}
        )
        predicted = net.apply(params, context, **dropout)
        seen = jax.lax.stop_gradient(predicted) if cut else predicted
        return jnp.concatenate([context[:, 1:], seen[:, None]], axis=1), predicted

    _, predictions = jax.lax.scan(step, context, jnp.arange(steps))
    return jnp.moveaxis(predictions, 0, 1)
