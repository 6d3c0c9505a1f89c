"""Videos whose frames say their own number, written in many containers and ways.

Frame k shows k as eight blocks across the top (white is 1), a red square at the bottom left and a
blue one at the bottom right.
"""

import fractions

import av
import numpy as np

HEIGHT, WIDTH = 96, 160
CODERS = {
    **dict.fromkeys(('mp4', 'mov', 'm4v', 'mkv', 'ts', 'mts', 'avi', 'flv'), 'libx264'),
    'webm': 'libvpx-vp9',
    'mpg': 'mpeg2video',
    'wmv': 'wmv2',
    'gif': 'gif',
}
FORMATS = {'m4v': 'mp4', 'mkv': 'matroska', 'ts': 'mpegts', 'mts': 'mpegts', 'wmv': 'asf'}
FORMATS |= {'mpg': 'mpeg'}
KINDS = ('constant', 'variable rate', 'b-frames', 'long gop', 'trimmed', 'late start')
IMPOSSIBLE = {  # AVI and MPEG-PS have one rate; these coders know no B-frames or no key frames
    ('avi', 'variable rate'),
    ('mpg', 'variable rate'),
    ('wmv', 'b-frames'),
    ('gif', 'b-frames'),
    ('gif', 'long gop'),
    ('gif', 'late start'),
}


def picture(number: int) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]"""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for block in range(8):
        left, right = block * WIDTH // 8 + 2, (block + 1) * WIDTH // 8 - 2
        frame[4:20, left:right] = 255 * (number >> (7 - block) & 1)
    frame[-24:-4, 4:24] = 220, 30, 30
    frame[-24:-4, -24:-4] = 30, 30, 220
    return frame


def number(frame: np.ndarray) -> int:
    """What a frame says, of any size."""
    height, width = frame.shape[:2]
    rows = frame[height * 6 // HEIGHT : height * 18 // HEIGHT]
    edges = [width * k // 8 for k in range(9)]
    inset = max(1, 4 * width // WIDTH)
    blocks = [rows[:, a + inset : b - inset].mean() > 128 for a, b in zip(edges, edges[1:])]
    return int(''.join(str(int(block)) for block in blocks), 2)


def numbers(frames) -> list[int]:
    return [number(frame) for frame in frames]


def write(path, shown, seconds, ending=None, b_frames=0, gop=15, matrix=None, **options):
    """Writes the frames that say the numbers `shown`, at these times; returns the path."""
    ending = ending or path.suffix[1:]
    rate = fractions.Fraction(30)
    base = fractions.Fraction(1, 600) if ending not in ('avi', 'mpg') else 1 / rate
    with av.open(str(path), 'w', format=FORMATS.get(ending, ending)) as container:
        stream = container.add_stream(CODERS[ending], rate=rate, options=coding(ending, options))
        coded = stream.codec_context
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = 'rgb8' if ending == 'gif' else 'yuv420p'
        coded.time_base, coded.gop_size, coded.max_b_frames = base, gop, b_frames
        if ending == 'gif':
            coded.time_base = base = fractions.Fraction(1, 100)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for k, second in zip(shown, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(k), format='rgb24')
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(second / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def coding(ending, options):
    if CODERS[ending] == 'libx264':
        return {
            'preset': 'veryfast',
            'crf': '18',
            'x264-params': 'scenecut=0:open-gop=0',
            **options,
        }
    if CODERS[ending] == 'libvpx-vp9':
        return {'deadline': 'realtime', 'cpu-used': '8', **options}
    return {'b': '2000000', **options} if ending in ('mpg', 'wmv') else options


def cut(source, path, seconds: float):
    """Copies packets from the key frame before `seconds` on: mp4 hides by an edit list what comes
    before, other containers begin at the key frame. Returns the first number that is shown.
    """
    ending = path.suffix[1:]
    hides = ending in ('mp4', 'mov', 'm4v')
    options = {'avoid_negative_ts': 'disabled' if hides else 'make_zero'}
    with (
        av.open(str(source)) as read,
        av.open(str(path), 'w', format=FORMATS.get(ending, ending), options=options) as written,
    ):
        packets = [packet for packet in read.demux(video=0) if packet.size]
        base = packets[0].time_base
        origin = min(packet.pts for packet in packets)
        begin = max(
            place
            for place, packet in enumerate(packets)
            if packet.is_keyframe and (packet.pts - origin) * base <= seconds + 1e-6
        )
        key = packets[begin].pts - origin
        first = round(seconds / base) if hides else key
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in packets[begin:]:
            packet.pts, packet.dts = packet.pts - origin - first, packet.dts - origin - first
            packet.stream = stream
            written.mux(packet)
    return round(first * base * 30)


def make(folder, ending: str, kind: str):
    """Writes one combination. Returns (path, numbers that a player shows, their seconds)."""
    path = folder / f'{kind.replace(" ", "_")}_{ending}.{ending}'
    shown = list(range(75))
    seconds = [k / 30 for k in shown]
    if ending == 'gif':  # counts hundredths
        seconds = [k / 25 for k in shown]
    options = {}
    if kind == 'variable rate':
        shown = [*range(45), *range(45, 105, 2)]
        seconds = [k / (25 if ending == 'gif' else 30) for k in shown]
    elif kind == 'b-frames':
        options = {'b_frames': 2}
    elif kind == 'long gop':
        options = {'gop': 250}
    elif kind == 'late start':
        write(path, shown, [second + 5 for second in seconds])
        return path, shown, seconds
    if kind != 'trimmed':
        return write(path, shown, seconds, **options), shown, seconds
    if ending == 'gif':
        return write(path, shown[22:], seconds[:-22]), shown[22:], seconds[:-22]
    b_frames = 2 if CODERS[ending] == 'libx264' and ending != 'avi' else 0
    whole = write(folder / f'.whole_{ending}.{ending}', shown, seconds, b_frames=b_frames)
    first = cut(whole, path, 22 / 30)
    whole.unlink()
    return path, shown[first:], [second - first / 30 for second in seconds[first:]]
