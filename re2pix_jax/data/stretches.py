"""Stretches of a recording that nothing interrupts: what is predicted, and what it is held against,
comes from one of them.
"""

import numpy as np

from re2pix_jax.data.timeline import Timeline
from re2pix_jax.errors import UserError


def frames_from(line: Timeline, fps: float, start: float, least: int) -> int | None:
    """How many frames at `fps` from `start` seconds on come before the recording pauses, or goes on
    with another camera; None where it does neither any more.

    Raises:
        UserError: fewer than `least` do, or `start` is in a pause; it says which starts do.
    """
    half = 0.5 / line.rate + 1e-9
    ends = line.times[np.array(line.cuts, np.int64) - 1] + half
    begins = line.times[np.array(line.cuts, np.int64)]
    number = int(np.searchsorted(ends, start))  # cuts that are over
    paused = number > 0 and start < begins[number - 1] - half
    number -= paused
    if not paused:
        if number == len(ends):
            return None
        count = 1 + int((ends[number] - start) * fps)
        if count >= least:
            return count
    last = ends[number] - half - (least - 1) / fps
    before = 0.0 if not number else begins[number - 1]
    advice = f'at least {np.ceil(100 * begins[number]) / 100:g} s'
    if last >= before:
        advice = f'at most {int(100 * last) / 100:g} s or {advice}'
    raise UserError(
        f'{least} frames at {fps:.3g} per second from {start:g} s on cross the cut after '
        f'{ends[number] - half:.2f} s, where the recording pauses or another begins; start '
        f'{advice} into it'
    )
