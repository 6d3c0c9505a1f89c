"""From noise at t = 0 to data at t = 1 along a path, over a grid of times.

`velocity_fn(z [B, ...], t [B]) -> v [B, ...]`, the path's velocity (see flow.py). The loops are
`lax.scan`s, so compile time does not grow with the steps. ddpm's paths start not quite at pure
noise; as usual, sampling does [O].
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.generator import flow


def even(share):
    """The times themselves."""
    return share


def shifted(share, shift=3.0):
    """Signal over noise 1 / shift of that of even times: above 1, more steps where noise is strong
    (Stable Diffusion 3's shift, arXiv 2403.03206).
    """
    return share / (share + shift * (1.0 - share))


def quantiles(share, mean=flow.TIME_MEAN, std=flow.TIME_STD):
    """Quantiles of sigmoid(N(mean, std^2)): as many steps where a network was trained as often [R].

    The defaults are those of the authors' flow model; mean and std of `flow.sample_time` are those
    of the network at hand.
    """
    logits = [-np.inf, *map(statistics.NormalDist(mean, std).inv_cdf, share[1:-1]), np.inf]
    return 1.0 / (1.0 + np.exp(-np.array(logits)))


GRIDS = {'even': even, 'shifted': shifted, 'quantiles': quantiles}


def times(steps: int, grid: str = 'even') -> np.ndarray:
    """float32 [steps + 1] from 0 to 1; ValueError for fewer than 1 step or an unknown grid.

    grid: one of GRIDS, with numbers of its own or without: 'even', 'shifted:0.5',
        'quantiles:-0.4,1'.
    """
    if steps < 1:
        raise ValueError(f'sampler steps is {steps}; at least 1 is needed: 5 by heun, 20 by euler')
    name, _, numbers = grid.partition(':')
    try:
        own = [float(number) for number in numbers.split(',')] if numbers else []
        with np.errstate(all='ignore'):
            found = GRIDS[name](np.linspace(0.0, 1.0, steps + 1), *own).astype(np.float32)
    except (KeyError, TypeError, ValueError):
        found = np.zeros(0)
    if not len(found) or found[0] != 0 or found[-1] != 1 or not (np.diff(found) > 0).all():
        raise ValueError(
            f"sampler grid '{grid}' makes no times from 0 to 1; choose one of {', '.join(GRIDS)}, "
            'as in even, shifted:0.5 or quantiles:-0.4,1'
        )
    return found


def _spans(steps, grid):
    """[steps, 2]: where each step begins and ends."""
    found = times(steps, grid)
    return jnp.asarray(np.stack([found[:-1], found[1:]], axis=1))


def _slope(velocity_fn, diffusion):
    """(z, time) -> dz/dt."""

    def slope(z, time):
        t = jnp.full(z.shape[:1], time)
        return diffusion.at(t, z).rate * velocity_fn(z, t)

    return slope


def euler(velocity_fn, noise, steps, diffusion=flow.FLOW, grid='even'):
    """Euler's method, one evaluation a step [R]. Returns z at t = 1, shaped as `noise`; ValueError
    as of `times`.
    """
    slope = _slope(velocity_fn, diffusion)

    def step(z, span):
        start, end = span
        return z + (end - start) * slope(z, start), None

    return jax.lax.scan(step, noise, _spans(steps, grid))[0]


def heun(velocity_fn, noise, steps, diffusion=flow.FLOW, grid='even'):
    """Heun's second-order method, two evaluations a step [O]. Returns z at t = 1; ValueError as of
    `times`.

    The last step is Euler's, because a predicted x implies no velocity at t = 1.
    """
    slope, spans = _slope(velocity_fn, diffusion), _spans(steps, grid)

    def step(z, span):
        start, end = span
        here = slope(z, start)
        there = slope(z + (end - start) * here, end)
        return z + (end - start) * (here + there) / 2, None

    z = jax.lax.scan(step, noise, spans[:-1])[0]
    start, end = spans[-1]
    return z + (end - start) * slope(z, start)


def ddim(velocity_fn, noise, steps, diffusion=flow.FLOW, grid='even'):
    """DDIM without noise (Song et al., 2021), one evaluation a step [O]. Returns z at t = 1;
    ValueError as of `times`.

    Each step goes to where the data and the noise that it sees would be mixed at the next time. On
    the straight path of rectified flow that is Euler's step.
    """

    def step(z, span):
        t, end = (jnp.full(z.shape[:1], time) for time in span)
        x, eps = flow.ends(velocity_fn(z, t), z, t, diffusion)
        after = diffusion.at(end, z)
        return after.a * x + after.s * eps, None

    return jax.lax.scan(step, noise, _spans(steps, grid))[0]


SAMPLERS = {'euler': euler, 'heun': heun, 'ddim': ddim}


def find(method):
    """The sampler of that name; ValueError for another."""
    if method not in SAMPLERS:
        raise ValueError(f"sampler '{method}' is unknown; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[method]


def evaluations(method: str, steps: int, guidance: float = 0.0) -> int:
    """How often the network denoises a sample, exactly; guidance doubles it. The context is seen
    once (twice) beside that.
    """
    find(method)
    times(steps)
    return (2 * steps - 1 if method == 'heun' else steps) * (2 if guidance else 1)
