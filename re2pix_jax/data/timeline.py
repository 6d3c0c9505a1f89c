"""When the frames of a video or of a folder of images are shown: one time axis a file, for
counting, cutting, seeking, reading and windows alike.

A file's times come from its packets, without those that an edit list hides; nothing but the end is
decoded for it. Where a container's word is no good (no or broken times, damage, fields) the whole
file is decoded once. What was found is kept in memory and in the user's cache, with the file's size
and date. What a header says is a hint: of names for rates that the times bear out, and of the rate
of a file that has no times.
"""

import hashlib
import io
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from re2pix_jax import files, remote
from re2pix_jax.data import decoding, folders, shown, windows
from re2pix_jax.errors import UserError
from re2pix_jax.progress import say_once

FORMAT = 3
"""Of what is kept in the cache."""

PAUSE, PERIODS = 0.25, 3
"""A step of more seconds than the first, and of more of the periods around it than the second, is a
pause of the recording. [O]
"""

TIMED = {'mov', 'mp4', 'matroska', 'webm', 'mpegts', 'flv'}
SELF_CONTAINED = {'h264', 'hevc', 'vp9', 'av1', 'mjpeg', 'mpeg4', 'prores', 'ffv1', 'png'}
"""Containers that state when a packet is shown, and codings of a shown picture in every packet."""

REPEATED = 20
"""A reading may be so many times longer than what it is read from: a pause repeats a frame."""


class Timeline(NamedTuple):
    """The time axis of a file.

    Attributes:
        times: of the frames, in seconds after the first, increasing.
        rate: frames a second where the recording runs.
        cuts: frames at which it goes on after a pause, or with another camera.
        size: (height, width) as the first frame is shown.
        notes: what a user should know of the file, a line each.
        pts: the container's times by which decoded frames are told; none where they are counted
            from the beginning.
        keys: frames at which decoding can begin.
    """

    times: Float64[np.ndarray, ' n']
    rate: float
    cuts: tuple[int, ...]
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    pts: Int64[np.ndarray, ' n'] | tuple = ()
    keys: Int64[np.ndarray, ' k'] | tuple = ()


_known: dict[str, tuple] = {}


def of(path: str | os.PathLike, folder_fps: float = windows.BASE_FPS, decoded: bool = False):
    """The `Timeline` of a video file, or of a folder of images that runs at `folder_fps`.

    Args:
        path: of the file or folder.
        folder_fps: frames a second of a folder.
        decoded: do not believe the packets of a file, decode all of it.

    Raises:
        UserError: no readable video, no frame in it, or no images.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _of_folder(path, folder_fps)
    real = os.path.realpath(path)
    try:
        about = os.stat(real)
    except OSError as error:
        reason = decoding.reason(error).lower()
        raise UserError(f'{path}: cannot be read ({reason}), expected a video') from error
    stamp = FORMAT, about.st_size, about.st_mtime_ns
    known = _known.get(real)
    if known is None or known[0] != stamp:
        known = stamp, _load(real, stamp)
    if known[1] is None or (decoded and 'decoded' not in known[1][1]):
        line = None if decoded else _of_packets(path)
        known = stamp, (line, '') if line else (_of_frames(path), 'decoded')
        _save(real, stamp, known[1])
    _known[real] = known
    return known[1][0]


def tell(path: str | os.PathLike, line: Timeline) -> None:
    """Says on stderr what a user should know of a file, once."""
    for note in line.notes:
        say_once(f'{path}: {note}')


def nearest(
    times: Float64[np.ndarray, ' n'],
    rate: float,
    fps: float | None,
    start: float = 0.0,
    count: int | None = None,
) -> Int64[np.ndarray, ' t']:
    """Which frames a reading takes: for k = 0, 1, ... the one nearest to start + k / fps, as long
    as the last is shown.

    Args:
        times: of the frames, in seconds.
        rate: frames a second, of which the last is shown half a period at least.
        fps: wanted frames a second; None: every frame, from the one nearest to `start` on.
        start: seconds.
        count: at most so many; None: to the end.

    Raises:
        UserError: without `count`, far more than there are.
    """
    end = times[-1] + 0.5 / rate
    if start >= end:
        return np.zeros(0, np.int64)
    if fps is None:
        first = int(_closest(times, np.array([start]))[0])
        return np.arange(first, len(times))[:count]
    fitting = np.ceil((end - start) * fps - 1e-6)
    if count is None and fitting > REPEATED * (len(times) + 50):
        raise UserError(
            f'{fitting:.0f} frames at {fps:g} per second of {len(times)}, which last '
            f'{times[-1]:.6g} s with their pauses; ask for a number of frames, or for another start'
        )
    number = int(fitting if count is None else min(fitting, count))
    return _closest(times, start + np.arange(number) / fps)


def even(
    times: Float64[np.ndarray, ' n'], stated: float
) -> tuple[float, Int64[np.ndarray, ' m'] | None]:
    """A clip at one rate, as windows and records have it.

    Args:
        times: of its frames, in seconds, without a pause.
        stated: rate that is taken where the times bear it out.

    Returns:
        Its frames a second, and the frame nearest to each of its periods; None where that is every
        frame once. A clip of several rates gets the fastest, so that no frame is lost.
    """
    if len(times) < 2:
        return stated, None
    times = times - times[0]
    steps = np.diff(times)
    mean = len(steps) / times[-1]
    rate = stated if _bears_out(stated, len(steps), times[-1]) else _rounded(mean)
    if np.abs(times - np.arange(len(times)) / rate).max() <= 0.5 / rate + 1e-6:
        return rate, None
    short = steps[steps <= 1.25 * np.quantile(steps, 0.1)]
    rate = _rounded(min(1 / short.mean(), 4 * mean))
    return rate, nearest(times, rate, rate)


def _closest(times, wanted):
    """Indices of the times nearest to those that are wanted; of two as near, the later."""
    after = np.searchsorted(times, wanted).clip(max=len(times) - 1)
    before = (after - 1).clip(0)
    earlier = wanted - times[before] < times[after] - wanted - 1e-9
    return np.where(earlier, before, after)


def _rounded(rate) -> float:
    return float(f'{rate:.6g}')


def _bears_out(rate, steps, seconds) -> bool:
    """Whether so many steps take so many seconds at a rate, up to half a period."""
    return abs(steps / rate - seconds) < 0.5 / rate


def _of_folder(path, fps):
    found = folders.images(path)
    times = found.places / fps
    size = shown.image(found.files[0]).shape[:2]
    cuts = tuple(sorted({*found.cuts, *_pauses(times)}))
    return Timeline(times, float(fps), cuts, size, found.notes)


def _of_packets(path):
    """What the packets tell; None where they are not to be believed."""
    with decoding.opened(path) as (container, stream):
        container_is, coding = set(container.format.name.split(',')), stream.codec_context.name
        rates, claimed, base = decoding.stated_rates(stream), stream.frames, stream.time_base
        stated = decoding.stated_seconds(container, stream)
        told = decoding.listed(container, stream)
        progressive = getattr(stream.codec_context, 'field_order', 0) in (0, 1)
    seen = [packet for packet in told if not packet.hidden]
    if not (
        container_is & TIMED
        and coding in SELF_CONTAINED
        and progressive
        and seen
        and claimed <= len(told)
        and told[0].key
        and not any(packet.damaged or packet.pts is None for packet in told)
    ):
        return None
    decoding_times = np.array([packet.dts for packet in told if packet.dts is not None], np.int64)
    shown_times = np.array([packet.pts for packet in seen], np.int64)
    pts = np.sort(shown_times)
    keys = np.searchsorted(pts, sorted({pts[0], *(packet.pts for packet in seen if packet.key)}))
    first = pts[0] if told[0].hidden else told[0].pts
    if pts[0] != first or (np.diff(pts) <= 0).any() or (np.diff(decoding_times) < 0).any():
        return None
    times = (pts - pts[0]) * float(base)
    line = _held_against(stated, base, _timeline(times, (), rates, None, pts, keys))
    with decoding.opened(path) as (container, stream):
        top = next(decoding.frames(container, stream), None)
        if top is None or top.pts != pts[0]:
            return None
        size = shown.Screen(path, decoding.aspect(stream))(top).shape[:2]
    last = int(keys[-1])
    end = [number for number, _ in numbered(path, line, last) if number >= last]
    return line._replace(size=size) if end == list(range(last, len(pts))) else None


def _held_against(stated, base, line):
    """`line`, with a note where it ends long before the seconds that its header states."""
    ends = line.pts[-1] * float(base) + 1 / line.rate
    if stated is None or ends > min(0.95 * stated, stated - 0.5):
        return line
    cut = f'{stated:.4g} s are stated, {ends:.4g} can be shown: the file is cut short'
    return line._replace(notes=(cut, *line.notes))


def _of_frames(path):
    """What decoding all of a file gives."""
    with decoding.opened(path) as (container, stream):
        told = decoding.listed(container, stream)
        keyed = any(packet.key for packet in told)
    pts, keys, size = [], [], None
    with decoding.opened(path, careful=True) as (container, stream):
        rates, base = decoding.stated_rates(stream), float(stream.time_base or 0)
        rates = rates[1:2] + rates if container.format.name in ('h264', 'hevc') else rates
        screen = shown.Screen(path, decoding.aspect(stream))
        for frame in decoding.frames(container, stream, keyed):
            if frame.key_frame:
                keys.append(len(pts))
            pts.append(frame.pts)
            size = size or screen(frame).shape[:2]
        no_pts, claimed = container.format.name == 'avi', stream.frames
        stated = decoding.stated_seconds(container, stream)
    if not pts:
        raise UserError(f'{path}: no frame of the video can be decoded; is the file complete?')
    stored = sum(not packet.hidden for packet in told)
    lost = stored - len(pts)
    damage = (f'{lost} of its {stored} frames cannot be decoded',) if lost > stored / 10 else ()
    counts = [packet.dts for packet in told if packet.dts is not None]
    whole = no_pts and counts and max(counts) + 1 >= claimed  # an AVI may leave out frames
    if claimed > stored and not whole:
        damage += (f'{claimed} frames are stated, {len(pts)} can be shown: the file is cut short',)
    noted = lambda line: line._replace(notes=(*damage, *line.notes))
    keys = np.array(keys or [0] * keyed, np.int64)
    known = [time for time in pts if time is not None]
    if len(known) == len(pts) and (np.diff(known) > 0).all():
        ticks = np.array(known, np.int64)
        line = _timeline((ticks - ticks[0]) * base, (), rates, size, ticks, keys)
        return noted(_held_against(stated, base, line))
    # An AVI counts packets in their order: so do the frames, in theirs.
    counted = sorted(counts)
    if no_pts and len(counted) >= len(pts) and (np.diff(counted) > 0).all():
        ticks = np.array(counted[: len(pts)], np.int64)
        return noted(_timeline((ticks - ticks[0]) * base, (), rates, size, (), keys))
    if not rates:
        raise UserError(
            f'{path}: the file states no times and no frame rate; write it again with one, for '
            'instance ffmpeg -r 17'
        )
    steps = np.diff(np.array(known, np.float64)) * base
    back = np.flatnonzero(steps <= 0)
    if len(known) < len(pts) or 20 * len(back) > len(pts):
        note = f'states no times of its frames, counted at its nominal {rates[0]:g} per second'
        line = _timeline(np.arange(len(pts)) / rates[0], (), rates, size, (), keys)
        return noted(line._replace(notes=(note,)))
    # Recordings one after another, each with a clock of its own.
    steps[back] = 1 / rates[0]
    times = np.concatenate([[0.0], np.cumsum(steps)])
    return noted(_timeline(times, tuple(int(k) + 1 for k in back), rates, size, (), keys))


def _timeline(times, cuts, rates, size, pts=(), keys=()):
    cuts = tuple(sorted({*cuts, *_pauses(times)}))
    steps = np.delete(np.diff(times), [cut - 1 for cut in cuts])
    if len(steps):
        rate = next((r for r in rates if _bears_out(r, len(steps), steps.sum())), None)
        rate = rate or _rounded(len(steps) / steps.sum())
    else:
        rate = rates[0] if rates else windows.BASE_FPS
    long = [cut for cut in cuts if times[cut] - times[cut - 1] > PAUSE]
    notes = ()
    if long:
        longest = max(long, key=lambda cut: times[cut] - times[cut - 1])
        seconds, after = times[longest] - times[longest - 1], times[longest - 1]
        often = f'{len(long)} times, longest ' if len(long) > 1 else ''
        notes = (f'pauses {often}for {seconds:.3g} s after {after:.2f} s',)
    return Timeline(times, float(rate), cuts, size, notes, pts, keys)


def _pauses(times) -> list[int]:
    """Frames before which the recording paused."""
    steps = np.diff(times)
    long = np.flatnonzero(steps > PAUSE)

    def usual(k):
        around = steps[max(0, k - 3) : k], steps[k + 1 : k + 4]
        return max((np.median(part) for part in around if len(part)), default=np.inf)

    return [int(k) + 1 for k in long if steps[k] > PERIODS * usual(k)]


def numbered(
    path: str | os.PathLike, line: Timeline, key: int | None = None, careful: bool = False
):
    """Yields (number on the time axis, decoded frame), from the frame `key` of `line.keys` on where
    the container can go there; None: from the beginning. `careful` as in `decoding.opened`.
    """
    with decoding.opened(path, careful) as (container, stream):
        if key:
            try:
                container.seek(int(line.pts[key]), stream=stream)
            except decoding.FAILURES:
                return
        keyed = bool(len(line.keys))
        decoded = decoding.frames(container, stream, keyed)
        if not len(line.pts):
            yield from enumerate(decoded)
            return
        numbers = {int(time): number for number, time in enumerate(line.pts)}
        for frame in decoded:
            if frame.pts in numbers:
                yield numbers[frame.pts], frame


def _cached(real) -> pathlib.Path:
    name = hashlib.sha256(real.encode(errors='surrogateescape')).hexdigest()[:32]
    return remote.cache('timelines') / f'{name}.npz'


def _load(real, stamp):
    """(timeline, how it came about) from the cache; None where it holds none of this file."""
    try:
        with np.load(_cached(real), allow_pickle=False) as kept:
            about = json.loads(str(kept['about']))
            if tuple(about.pop('stamp')) != stamp:
                return None
            how = about.pop('how')
            about = {name: tuple(v) if isinstance(v, list) else v for name, v in about.items()}
            return Timeline(times=kept['times'], pts=kept['pts'], keys=kept['keys'], **about), how
    except Exception:  # a cache that cannot be read is none
        return None


def _save(real, stamp, known):
    line, how = known
    about = {'rate': line.rate, 'cuts': line.cuts, 'size': line.size, 'notes': line.notes}
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        times=line.times,
        pts=np.asarray(line.pts, np.int64),
        keys=np.asarray(line.keys, np.int64),
        about=json.dumps({'stamp': stamp, 'how': how, **about}),
    )
    try:
        files.write_bytes(_cached(real), packed.getvalue())
    except (UserError, OSError):  # no home, or none that may be written: measured anew next time
        pass
