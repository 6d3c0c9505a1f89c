import numpy as np
import pytest

from re2pix_jax.report import panels
from re2pix_jax.report.panels import Panel

SECONDS = [-0.2, 0.0, 0.2, 0.4]


def frame(value, size=(20, 40)):
    return np.full((*size, 3), value, np.uint8)


def four():
    frames = [frame(v) for v in (40, 80, 120, 160)]
    return [
        Panel('truth', [*frames[:3], None]),
        Panel('prediction', frames),
        Panel('a', frames),
        Panel('b', frames),
    ]


def test_enlarging_repeats_pixels_until_text_can_be_read():
    picture = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    np.testing.assert_array_equal(panels.enlarge(picture), picture.repeat(2, 0).repeat(2, 1))
    assert panels.enlarge(frame(0, (20, 40))).shape == (140, 280, 3)
    assert panels.enlarge(frame(0, (256, 512))).shape == (256, 512, 3)


@pytest.mark.parametrize(
    'seconds, text', [(3 / 17, '+0.18 s'), (0.0, '0.00 s'), (-6 / 17, '-0.35 s'), (1e-9, '0.00 s')]
)
def test_moments(seconds, text):
    assert panels.moment(seconds) == text


def test_the_video_shows_every_panel_in_its_place():
    video = panels.video(four(), SECONDS)
    height, width = 140 + panels.BAR, 280
    assert (
        video.shape[0] == 4
        and video.dtype == np.uint8
        and video.shape[1] % 2 == video.shape[2] % 2 == 0
    )
    for step, value in enumerate((40, 80, 120, 160)):
        for place in range(4):
            top = panels.MARGIN + place // 2 * (height + panels.MARGIN) + panels.BAR
            left = panels.MARGIN + place % 2 * (width + panels.MARGIN)
            shown = video[step, top : top + 140, left : left + 280]
            if (place, step) == (0, 3):
                assert (shown[0] == panels.GREY).all()
                assert (shown != panels.GREY).any(), 'the grey panel says why it is grey'
            else:
                assert (shown == value).all()


def test_the_video_says_what_is_context():
    video = panels.video(four(), SECONDS)
    bars = video[:, panels.MARGIN : panels.MARGIN + panels.BAR]
    assert (bars[0] != bars[2]).any(), (
        'the time of a context frame and that of a predicted one read differently'
    )
    assert (bars > 200).any()


def test_the_sheet_has_a_row_a_panel_and_a_column_a_step():
    sheet = panels.sheet(four(), SECONDS, 'tiny on drive.mp4')
    gutter = sheet.shape[1] - 4 * (280 + panels.MARGIN)
    top = panels.MARGIN + 2 * panels.BAR
    assert 0 < gutter < 280
    assert sheet.shape[0] == top + 4 * (140 + panels.MARGIN)
    for row in range(4):
        for column, value in enumerate((40, 80, 120, 160)):
            left, upper = gutter + column * (280 + panels.MARGIN), top + row * (140 + panels.MARGIN)
            shown = sheet[upper : upper + 140, left : left + 280]
            assert (shown[0] == (panels.GREY if (row, column) == (0, 3) else value)).all()


def test_a_long_sheet_keeps_the_first_and_the_last_step():
    count = 100
    values = [frame(v) for v in range(count)]
    sheet = panels.sheet([Panel('x', values)], np.arange(count) / 10)
    pitch = 280 + panels.MARGIN
    gutter = sheet.shape[1] - panels.MAXIMUM_COLUMNS * pitch
    shown = sheet[-panels.MARGIN - 1, gutter::pitch, 0]
    assert len(shown) == panels.MAXIMUM_COLUMNS
    assert (shown[0], shown[-1]) == (0, 99) and (np.diff(shown.astype(int)) > 0).all()


def test_panels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'panels of \[4\] frames for 3 times'):
        panels.sheet([Panel('x', [frame(0)] * 4)], SECONDS[:3])
    with pytest.raises(ValueError, match='one size'):
        panels.video([Panel('x', [frame(0)]), Panel('y', [frame(0, (30, 40))])], [0.0])
