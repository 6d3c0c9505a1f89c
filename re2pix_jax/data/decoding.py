"""A video file as libav gives it: opened, demuxed and decoded, whatever is wrong with it in one
line.

What a player skips is skipped: a packet that does not decode, and those after it up to the next key
frame, for they build on it.
"""

import contextlib
import fractions
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import av

from re2pix_jax import files
from re2pix_jax.errors import UserError

FAILURES = (av.error.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)
"""What libav and its binding raise for damaged files."""

# PyAV 18 refuses a file for a title that is not UTF-8 unless told otherwise; 19 need not be told.
LENIENT = {'metadata_errors': 'ignore'} if int(av.__version__.partition('.')[0]) < 19 else {}
MOST_PIXELS = 1 << 26
"""Of a frame: twice those of 8K. What a header claims beyond is not allocated. [O]"""


class Packet(NamedTuple):
    """What a container says of a coded picture, in its order; times count the stream's base."""

    pts: int | None
    dts: int | None
    key: bool
    hidden: bool  # by an edit list: decoded, not shown
    damaged: bool


@contextlib.contextmanager
def opened(path: str | os.PathLike, careful: bool = False) -> Iterator[tuple]:
    """(container, stream of pictures) of a file.

    Args:
        path: of the file.
        careful: decode one frame after the other: slower, but of frames at work beside a damaged
            one none is lost.

    Raises:
        UserError: not a readable video, none in it, or one of a kind that is not known.
    """
    try:
        container = av.open(str(path), **LENIENT)
    except FAILURES as error:
        raise _unreadable(path, error) from error
    with container:
        # A picture of the cover is a stream too.
        covers = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers]
        best = container.streams.best('video')
        stream = best if best in streams else next(iter(streams), None)
        if stream is None:
            raise UserError(f'{path}: the file holds no video stream, expected a video such as mp4')
        if stream.codec_context is None:
            raise UserError(
                f'{path}: its pictures are coded in a way that is not known here; convert the file '
                'to H.264, for instance by ffmpeg'
            )
        stream.codec_context.options = {'max_pixels': str(MOST_PIXELS)}
        stream.thread_type = 'NONE' if careful else 'AUTO'
        yield container, stream


def _unreadable(path, error) -> UserError:
    try:
        with open(path, 'rb') as file:
            found = files.instead(file.read(512))
    except OSError as refused:
        return UserError(f'{path}: cannot be read ({reason(refused).lower()}); make it readable')
    if found:
        what, advice = found
        return UserError(f'{path}: is {what}, not a readable video: {advice}')
    said = reason(error)
    # What libav says where a file ends within its header; the disk's own error is told above.
    if isinstance(error, av.error.EOFError) or 'input/output' in said.lower():
        said = 'it ends too early'
    return UserError(f'{path}: not a readable video ({said}), expected a whole file such as mp4')


def packets(container, stream) -> Iterator:
    """The packets of a stream, up to the end of what can be read; empty ones are left out."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FAILURES:
        return


def listed(container, stream) -> list[Packet]:
    """All packets of a stream, without their contents."""
    return [
        Packet(p.pts, p.dts, bool(p.is_keyframe), bool(p.is_discard), bool(p.is_corrupt))
        for p in packets(container, stream)
    ]


def frames(container, stream, keyed: bool = True) -> Iterator[av.VideoFrame]:
    """The frames that a player shows from where the container stands, in the order of showing.

    Args:
        container, stream: as `opened` gives them.
        keyed: whether the container tells which packets hold key frames.
    """
    lost = keyed  # until a picture that builds on no other
    for packet in packets(container, stream):
        if lost and keyed and not packet.is_keyframe:
            continue
        try:
            decoded = packet.decode()
            lost = False
        except FAILURES:
            lost = True
            continue
        yield from decoded
    for _ in range(2):  # what the decoder still holds; it may tell of damage before
        with contextlib.suppress(*FAILURES):
            yield from stream.codec_context.decode(None)


def stated_rates(stream) -> list[float]:
    """Frame rates (Hz) that the header states, the likeliest first."""
    rates = []
    for name in ('average_rate', 'guessed_rate', 'base_rate'):
        with contextlib.suppress(*FAILURES):
            rates.append(getattr(stream, name))
    return [float(rate) for rate in rates if rate and 0 < rate < 1000]


def stated_seconds(container, stream) -> float | None:
    """When the last picture ends, by the header of a container that counts no frames: Matroska."""
    if 'matroska' not in container.format.name:
        return None
    told = re.fullmatch(r'(\d+):(\d\d):(\d\d[.\d]*)', stream.metadata.get('DURATION', ''))
    if told:
        hours, minutes, seconds = map(float, told.groups())
        return 3600 * hours + 60 * minutes + seconds
    alone = len(container.streams) == 1  # else it may be the sound's
    return container.duration / av.time_base if alone and container.duration else None


def aspect(stream) -> fractions.Fraction:
    """Width of a stored pixel over its height; 1 where nothing likely is stated."""
    with contextlib.suppress(*FAILURES):
        stated = stream.sample_aspect_ratio
        if stated and fractions.Fraction(1, 8) <= stated <= 8:
            return stated
    return fractions.Fraction(1)


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    return ' '.join(str(getattr(error, 'strerror', None) or error or type(error).__name__).split())
