"""What the page does, without a browser."""

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import video
from re2pix_jax.demo import session
from re2pix_jax.errors import UserError


@pytest.fixture(scope='module')
def served():
    return session.load('tiny', 'tiny/depth', session.Limits(futures=2, horizon=5))


@pytest.mark.long
def test_a_video_is_admitted_shown_and_predicted(served, brought, tmp_path):
    path = str(brought / 'street.mp4')
    longest = session.admit(served, path)
    assert longest == pytest.approx((18 - 1 - 3) / (17 / 3), abs=0.01)
    shown = session.moment(served, path, longest)
    assert shown.shape == (64, 4 * 128, 3) and shown.dtype == np.uint8
    found = session.answer(served, path, longest - 0.2, tmp_path, horizon=2, futures=2, seed=3)
    assert len(video.read(found.film)) == 6
    for picture in (found.sheet, found.overlay):
        assert np.asarray(Image.open(picture)).std() > 10
    assert 'tiny on street.mp4: 4 context frames' in found.text and 'PSNR' in found.text
    assert str(brought) not in found.text
    session.clear(tmp_path, None)
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    ('name', 'limits', 'said'),
    [
        ('letter.mp4', {}, 'letter.mp4: not a readable video'),
        ('short.mp4', {}, r'short.mp4: is 0.2 s long, and the model looks at 0.5 s before it'),
        ('long.mp4', {}, 'long.mp4: is 10h 00m long, at most 10m 00s are taken: cut a part of it'),
        ('street.mp4', {'megabytes': 0}, 'street.mp4: is larger than 0 MB: cut a part of it'),
        ('street.mp4', {'seconds': 1}, 'street.mp4: is 3s long, at most 1s are taken'),
    ],
)
def test_what_cannot_be_taken_is_said(served, brought, name, limits, said):
    small = served._replace(limits=served.limits._replace(**limits))
    with pytest.raises(UserError, match=said) as caught:
        session.admit(small, str(brought / name))
    text = str(caught.value)
    assert '\n' not in text and str(brought) not in text


def test_more_than_the_limits_is_refused(served, brought, tmp_path):
    for options, said in (
        ({'horizon': 6}, 'horizon: from 1 to 5 can be asked for, not 6'),
        ({'horizon': 2, 'futures': 3}, 'futures: from 1 to 2 can be asked for, not 3'),
        ({'horizon': 2, 'channels': 999}, 'predict: '),
    ):
        with pytest.raises(UserError, match=said):
            session.answer(served, str(brought / 'street.mp4'), 0.0, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_only_a_depth_head_reads_depth():
    with pytest.raises(UserError, match='tiny/head: reads segmentation: expected a head that'):
        session.load('tiny', 'tiny/head', session.Limits())
