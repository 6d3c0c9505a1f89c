"""How much of a folder of videos is held out: minutes, not files."""

import numpy as np
import pytest

from re2pix_jax.data import prepare
from re2pix_jax.data.sources import videos
from re2pix_jax.data.sources.source import CLIP_SECONDS
from tests.data import index_coded


def pieces(name, seconds):
    count = max(1, int(seconds / CLIP_SECONDS))
    frames = round(30 * seconds / count)
    return [
        videos.Piece(name, f'{name}#{k * frames}', k * frames, frames, frames, 30.0, (96, 160))
        for k in range(count)
    ]


def held(lengths):
    cut = {name: pieces(name, seconds) for name, seconds in lengths.items()}
    names = videos._held_out(cut)
    return names, [[p.name in names for p in of_file] for of_file in cut.values()]


def test_of_an_hour_six_whole_minutes_are_held_out():
    names, (chosen,) = held({'hour.mp4': 3600})
    edges = np.flatnonzero(np.diff([0, *map(int, chosen), 0]))
    blocks = edges.reshape(-1, 2)
    assert len(blocks) == 6 and len(names) * CLIP_SECONDS == pytest.approx(360, rel=0.05)
    assert all(abs((last - first) * CLIP_SECONDS - 60) < 4 for first, last in blocks)


def test_a_long_file_among_short_ones_does_not_take_all():
    lengths = {'hour.mp4': 3600} | {f'{k}.mp4': 12 for k in range(40)}
    names, _ = held(lengths)
    assert len(names) * CLIP_SECONDS == pytest.approx(0.1 * (3600 + 40 * 12), rel=0.25)


def test_another_file_moves_no_clip():
    lengths = {f'{k}.mp4': 30 * (k + 1) for k in range(12)}
    before, _ = held(lengths)
    after, _ = held(lengths | {'new.mp4': 700})
    assert {name for name in after if not name.startswith('new')} == before


def test_of_few_clips_at_least_one_is_held_out_and_one_is_left():
    for lengths in ({'a.mp4': 4}, {'a.mp4': 2, 'b.mp4': 2}, {f'{k}.mp4': 2 for k in range(5)}):
        names, chosen = held(lengths)
        assert 1 <= len(names) < sum(map(len, chosen))
    assert held({'a.mp4': 2})[0] == set()


def test_what_cannot_be_read_is_not_held_out():
    cut = {f'{k}.mp4': pieces(f'{k}.mp4', 2) for k in range(3)}
    bad = {
        f'bad{k}.mp4': [videos.Piece('', f'bad{k}.mp4#0', 0, 0, 0, 0.0, (1, 1), None, 'cut off')]
        for k in range(8)
    }
    assert videos._held_out(cut | bad) == videos._held_out(cut) != set()


def test_both_splits_of_a_file_are_disjoint_and_complete_and_an_empty_one_is_told(tmp_path, capsys):
    for name in ('raw', 'short'):
        (tmp_path / name).mkdir()
    index_coded.write(tmp_path / 'raw' / 'one.mp4', range(240), np.arange(240) / 30)
    shown = []
    for split in ('train', 'validation'):
        source = videos.Videos(tmp_path / 'raw', split)
        shown += [k for p in source.pieces for k in range(p.first, p.first + p.shown)]
    assert sorted(shown) == list(range(240))
    index_coded.write(tmp_path / 'short' / 'one.mp4', range(40), np.arange(40) / 30)
    options = dict(image_format=None, quality=95, processes=1, strict=False)
    written = prepare.raw(
        tmp_path / 'out', 'video_folder', tmp_path / 'short', size=(16, 32), **options
    )
    assert len(written['train']['clips']) == 1
    err = capsys.readouterr().err
    assert 'warning: split validation is empty: nothing that is trained on these clips can' in err
