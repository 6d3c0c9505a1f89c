"""The gallery: which predictions it shows, and its page."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from re2pix_jax.evaluation import gallery
from tests.running import outcomes

PICTURE = np.zeros((2, 2, 3), np.uint8)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(-9, 9)), max_size=30), st.integers(1, 4))
def test_best_middle_and_worst_each_once(gains, count):
    found = [gallery.Shown(str(k), gain, 20.0, PICTURE, b'') for k, gain in enumerate(gains)]
    picked = gallery.chosen(found, count)
    known = sorted((gain for gain in gains if not math.isnan(gain)), reverse=True)
    assert len({one.name for _, one in picked}) == len(picked) == min(len(known), 3 * count)
    shown = [one.gain for _, one in picked]
    assert shown == sorted(shown, reverse=True)
    if known:
        assert shown[0] == known[0] and shown[-1] == known[-1]


@pytest.mark.slow
def test_the_page_is_one_file_with_sheets_and_films(tmp_path):
    (tmp_path / 'notes.mp4').write_text('no video')
    (tmp_path / 'frames').mkdir()
    for number in range(20):
        Image.new('RGB', (128, 64), (number, 90, 90)).save(tmp_path / f'frames/{number:02}.png')
    found = outcomes(
        'gallery',
        {
            'world': ['--world=validation', '--clips=2', '--horizon=1', f'--out={tmp_path}/page'],
            'both': ['--world=validation', '--video=x.mp4', f'--out={tmp_path}/no'],
            'split': ['--world=holiday', f'--out={tmp_path}/no'],
            'none': [f'--video={tmp_path}/none.mp4', f'--out={tmp_path}/no'],
            'some': [
                *(f'--video={tmp_path}/{name}' for name in ('frames', 'notes.mp4')),
                *('--every=100', '--horizon=1', f'--out={tmp_path}/some'),
            ],
        },
    )
    status, out, err = found['world']
    assert status == 0 and '2 predictions of 1 frames' in out, err
    page = (tmp_path / 'page' / 'index.html').read_text()
    assert page.count('data:image/png') == page.count('data:video/mp4') == 2
    assert 'among the best: world validation:' in page and 'src="http' not in page
    status, out, err = found['some']
    assert status == 2 and '1 prediction' in out and 'left out: ' in err and 'notes.mp4' in err, err
    for name, said in (
        ('both', 'error: gallery: expected either --video or --world'),
        ('split', 'error: --world=holiday: expected a split of '),
        ('none', 'error: '),
    ):
        assert found[name][0] == 2 and said in found[name][2], found[name]
    assert not (tmp_path / 'no').exists()
