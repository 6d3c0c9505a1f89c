"""Frames as a player shows them, held against what ffmpeg's filters and Pillow make of them."""

import fractions

import av
import numpy as np
import pytest
from av.filter import Graph
from PIL import Image, ImageOps

from re2pix_jax.data import decoding, shown, video
from re2pix_jax.errors import UserError
from tests.data import index_coded

TURN = 1 << 16
UNIT = 1 << 30
MATRICES = {  # display matrices (a, b, c, d): all eight ways to lay a picture
    'as stored': (1, 0, 0, 1),
    'mirrored': (-1, 0, 0, 1),
    'half a turn': (-1, 0, 0, -1),
    'upside down': (1, 0, 0, -1),
    'clockwise': (0, 1, -1, 0),
    'anticlockwise': (0, -1, 1, 0),
    'transposed': (0, 1, 1, 0),
    'transversed': (0, -1, -1, 0),
}


def rendered(frame, *filters):
    """uint8 [H, W, 3]: a decoded frame after these filters of ffmpeg."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=fractions.Fraction(1, 30),
    )
    steps = [graph.add(*step) for step in (*filters, ('format', 'rgb24'))]
    sink = graph.add('buffersink')
    graph.link_nodes(source, *steps, sink).configure()
    source.push(frame)
    return sink.pull().to_ndarray()


def turning(matrix, rotation):
    """The filters by which ffmpeg's own player turns a frame."""
    theta = round(-rotation) % 360
    if theta == 90:
        return [('transpose', 'cclock_flip' if matrix[2] > 0 else 'clock')]
    if theta == 180:
        return [('hflip', '')] * (matrix[0] < 0) + [('vflip', '')] * (matrix[3] < 0)
    if theta == 270:
        return [('transpose', 'clock_flip' if matrix[2] < 0 else 'cclock')]
    return [('vflip', '')] if matrix[3] < 0 else []


@pytest.mark.parametrize('name', MATRICES)
def test_a_display_matrix_turns_as_ffmpeg_turns(tmp_path, name):
    a, b, c, d = MATRICES[name]
    matrix = [a * TURN, b * TURN, 0, c * TURN, d * TURN, 0, 0, 0, UNIT]
    path = index_coded.write(tmp_path / 'a.mp4', range(3), np.arange(3) / 30, matrix=matrix)
    clip = video.read(path)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    np.testing.assert_array_equal(clip[0], rendered(frame, *turning((a, b, c, d), frame.rotation)))
    stored = index_coded.picture(0)
    upright = stored if abs(a) else stored.transpose(1, 0, 2)
    assert clip[0].shape == upright.shape and video.probe(path)[2:] == upright.shape[:2]
    # Where the red square of the bottom left goes: x' = a x + c y, y' = b x + d y.
    x, y = (a * -1 + c * 1), (b * -1 + d * 1)
    corner = clip[0][-20:-8] if y > 0 else clip[0][8:20]
    corner = corner[:, -20:-8] if x > 0 else corner[:, 8:20]
    assert corner.mean((0, 1)) == pytest.approx([220, 30, 30], abs=30)


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = tmp_path / 'wide.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=30)
        stream.width, stream.height, stream.pix_fmt = 120, 96, 'yuv420p'
        stream.codec_context.sample_aspect_ratio = fractions.Fraction(4, 3)
        for number in range(4):
            squeezed = Image.fromarray(index_coded.picture(number)).resize((120, 96))
            container.mux(stream.encode(av.VideoFrame.from_image(squeezed)))
        container.mux(stream.encode(None))
    clip = video.read(path)
    assert clip.shape == (4, 96, 160, 3) and index_coded.numbers(clip) == [0, 1, 2, 3]
    assert video.probe(path)[2:] == (96, 160)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    ffmpeg = rendered(frame, ('scale', '160:96:flags=bilinear'))
    # ffmpeg scales before it converts: edges of colour differ.
    assert np.quantile(np.abs(clip[0].astype(int) - ffmpeg), 0.9) <= 3


def coloured(matrix, full, width=64, height=32, form='yuv420p'):
    """A frame of blocks of colour that says this of its matrix and range."""
    rng = np.random.default_rng(0)
    frame = av.VideoFrame(width, height, form)
    for plane in frame.planes:
        coarse = rng.integers(60, 190, (plane.height // 8 + 1, plane.line_size // 8 + 1))
        fine = coarse.repeat(8, 0).repeat(8, 1)[: plane.height, : plane.line_size]
        plane.update(fine.astype(np.uint8).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def by_hand(frame, kr, kb, full):
    """The definition of Y'CbCr, of a frame of blocks."""
    y, u, v = (
        np.frombuffer(bytes(p), np.uint8).reshape(p.height, p.line_size)[:, : p.width].astype(float)
        for p in frame.planes
    )
    u, v = (plane.repeat(2, 0).repeat(2, 1) for plane in (u, v))
    y = y / 255 if full else (y - 16) / 219
    u, v = ((plane - 128) / (255 if full else 224) for plane in (u, v))
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], -1), 0, 1) * 255


@pytest.mark.parametrize('full', [False, True])
@pytest.mark.parametrize(
    'matrix, size, weights',
    [
        (1, (64, 32), (0.2126, 0.0722)),
        (5, (64, 32), (0.299, 0.114)),
        (9, (64, 32), (0.2627, 0.0593)),
        (2, (64, 32), (0.299, 0.114)),  # says nothing, small: BT.601
        (2, (1280, 720), (0.2126, 0.0722)),  # says nothing, large: BT.709
        (5, (1280, 720), (0.299, 0.114)),
    ],
)
def test_colours_are_those_of_the_matrix_and_range(matrix, size, weights, full):
    frame = coloured(matrix, full, *size)
    truth = by_hand(coloured(matrix, full, *size), *weights, full)
    assert np.abs(shown.Screen('a.mp4')(frame) - truth)[2::4, 2::4].max() < 3
    if matrix != 2:
        ffmpeg = rendered(coloured(matrix, full, *size), ('scale', ''))
        np.testing.assert_array_equal(shown.Screen('a.mp4')(frame), ffmpeg)


def test_what_is_written_says_its_colours(tmp_path):
    frames = np.zeros((4, 64, 96, 3), np.uint8)
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 30), (128, 128, 128)]
    for place, colour in enumerate(colours):
        frames[:, :, place * 16 : place * 16 + 16] = colour
    video.write(tmp_path / 'a.mp4', frames, 17)
    with av.open(str(tmp_path / 'a.mp4')) as container:
        coded = container.streams.video[0].codec_context
        said = coded.colorspace, coded.color_primaries, coded.color_trc, coded.color_range
        assert [int(value) for value in said] == [1, 1, 1, 1]
        frame = next(container.decode(video=0))
    middle = lambda picture: picture[:, 8::16][:, :5].astype(int)
    assert np.abs(middle(video.read(tmp_path / 'a.mp4')[0]) - middle(frames[0])).max() <= 3
    assert np.abs(middle(rendered(frame, ('scale', ''))) - middle(frames[0])).max() <= 3


def interlaced(top, bottom):
    """A frame whose two fields show two pictures."""
    woven = np.where(np.arange(len(top))[:, None, None] % 2, bottom, top)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(woven), format='rgb24')
    steps = ('scale', 'interl=1'), ('format', 'yuv420p'), ('setfield', 'tff')
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format='rgb24', time_base=fractions.Fraction(1, 30)
    )
    ends = source, *(graph.add(*step) for step in steps), graph.add('buffersink')
    graph.link_nodes(*ends).configure()
    source.push(frame)
    return ends[-1].pull()


def test_of_an_interlaced_frame_one_field_is_shown(tmp_path):
    top, bottom = index_coded.picture(0b10101010), index_coded.picture(0b01010101)
    path = tmp_path / 'fields.mp4'
    with av.open(str(path), 'w') as container:
        options = {'x264-params': 'tff=1', 'crf': '10'}
        stream = container.add_stream('libx264', rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = (
            index_coded.WIDTH,
            index_coded.HEIGHT,
            'yuv420p',
        )
        for _ in range(3):
            container.mux(stream.encode(interlaced(top, bottom)))
        container.mux(stream.encode(None))
    clip = video.read(path)
    assert index_coded.numbers(clip) == [0b10101010] * 3 and clip.shape[1:] == top.shape
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.interlaced_frame
    np.testing.assert_array_equal(clip[0][::2], rendered(frame, ('field', 'type=top')))
    assert np.abs(clip[0].astype(int) - top).mean() < 6


@pytest.mark.parametrize('transfer', [16, 18])
def test_high_dynamic_range_is_tone_mapped(transfer):
    frame = av.VideoFrame(256, 16, 'yuv420p10le')
    for plane, level in zip(frame.planes, (np.linspace(64, 940, 256), 512, 512)):
        values = np.zeros((plane.height, plane.line_size // 2), '<u2')
        values[:, : plane.width] = level
        plane.update(values.tobytes())
    frame.colorspace, frame.color_range, frame.color_primaries = 9, 1, 9
    frame.color_trc = transfer
    ramp = shown.Screen('a.mp4')(frame)[0].astype(int)
    assert (np.diff(ramp.mean(-1)) >= -0.5).all() and np.ptp(ramp, axis=-1).max() <= 2
    assert ramp[0].max() <= 2 and ramp[-1].min() > 200
    plain = rendered(frame, ('scale', 'out_range=full'))[0].astype(int)
    assert np.abs(ramp - plain).max() > 10, 'the code values are not those of a screen'


def test_pixels_that_cannot_be_shown_are_refused(monkeypatch):
    def broken(*_, **__):
        raise av.error.ArgumentError(22, 'Invalid argument')

    frame = coloured(1, False)
    monkeypatch.setattr(shown, '_filtered', broken)
    frame.color_trc = 16
    with pytest.raises(
        UserError, match='a.mp4: frames of 64x32 pixels of kind yuv420p cannot be shown'
    ):
        shown.Screen('a.mp4')(frame)
    assert decoding.reason(ValueError('two\nlines')) == 'two lines'


def test_exif_turns_as_pillow_turns(tmp_path):
    stored = Image.fromarray(index_coded.picture(0b11001010))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[shown.ORIENTATION] = orientation
        stored.save(tmp_path / 'a.png', exif=exif)
        with Image.open(tmp_path / 'a.png') as image:
            truth = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
        np.testing.assert_array_equal(shown.image(tmp_path / 'a.png'), truth)
        stored.save(tmp_path / 'a.jpg', exif=exif)
        with Image.open(tmp_path / 'a.jpg') as image:
            truth = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
        np.testing.assert_array_equal(shown.image(tmp_path / 'a.jpg'), truth)


def test_damaged_exif_turns_nothing(tmp_path):
    stored = Image.fromarray(index_coded.picture(3))
    stored.save(tmp_path / 'a.png', exif=b'Exif\x00\x00II*\x00\xff\xff\xff\x7f')
    np.testing.assert_array_equal(shown.image(tmp_path / 'a.png'), index_coded.picture(3))


def kinds():
    """{name: an image of another mode}"""
    picture = Image.fromarray(index_coded.picture(0b10110010))
    clear = picture.convert('RGBA')
    clear.putalpha(Image.linear_gradient('L').resize(picture.size))
    return {
        'palette.png': picture.convert('P', palette=Image.Palette.ADAPTIVE),
        'alpha.png': clear,
        'alpha.webp': clear,
        'grey.png': picture.convert('L'),
        'grey alpha.png': picture.convert('LA'),
        'cmyk.jpg': picture.convert('CMYK'),
        'cmyk.tif': picture.convert('CMYK'),
        'one bit.png': picture.convert('1'),
        'plain.bmp': picture,
        'plain.ppm': picture,
    }


@pytest.mark.parametrize('name', kinds())
def test_kinds_of_images_are_shown_as_pillow_shows_them(tmp_path, name):
    kinds()[name].save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        truth = np.asarray(image.convert('RGB'))
    is_shown = shown.image(tmp_path / name)
    np.testing.assert_array_equal(is_shown, truth)
    assert is_shown.shape == (index_coded.HEIGHT, index_coded.WIDTH, 3)
    assert index_coded.number(is_shown) == 0b10110010


@pytest.mark.parametrize('form', ['gray16be', 'rgb48be', 'rgba64be'])
def test_sixteen_bits_are_shown_as_ffmpeg_shows_them(tmp_path, form):
    rng = np.random.default_rng(0)
    channels = {'gray16be': (), 'rgb48be': (3,), 'rgba64be': (4,)}[form]
    values = rng.integers(0, 1 << 16, (32, 48, *channels), np.uint16)
    encoder = av.CodecContext.create('png', 'w')
    encoder.width, encoder.height, encoder.pix_fmt = 48, 32, form
    encoder.time_base = fractions.Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(values, format=form)
    frame.pts = 0
    (tmp_path / 'deep.png').write_bytes(b''.join(map(bytes, encoder.encode(frame))))
    with av.open(str(tmp_path / 'deep.png')) as container:
        ffmpeg = rendered(next(container.decode(video=0)), ('scale', ''))
    difference = np.abs(shown.image(tmp_path / 'deep.png').astype(int) - ffmpeg)
    assert difference.max() <= 1
    assert (
        np.abs(
            shown.image(tmp_path / 'deep.png')[..., 0] * 257.0 - values.reshape(32, 48, -1)[..., 0]
        ).max()
        < 300
    )


def test_numbers_that_are_no_colours_are_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / 'depth.tif')
    Image.fromarray(np.full((8, 8), 1 << 20, np.int32)).save(tmp_path / 'counts.tif')
    for name in ('depth.tif', 'counts.tif'):
        with pytest.raises(
            UserError, match=f'{name}: an image of numbers .*expected one of colours'
        ):
            shown.image(tmp_path / name)
