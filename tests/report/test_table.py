import pytest

from re2pix_jax.progress import track
from re2pix_jax.report.table import Number, table


def test_text_to_the_left_and_numbers_to_the_right():
    text = table(
        ['name', 'loss'],
        [['a', 1.23456], ['long name', None], ['b', float('nan')], ['c', Number('12.5 %')]],
    )
    assert text.split('\n') == [
        'name         loss',
        '---------  ------',
        'a           1.235',
        'long name       -',
        'b               -',
        'c          12.5 %',
    ]


def test_a_row_of_other_length_is_refused():
    with pytest.raises(ValueError, match='a row of 1 cells under 2 columns'):
        table(['a', 'b'], [[1]])


def test_progress_passes_everything_on_and_ends_with_a_plain_line(capsys):
    items = [[1, 2], [3, 4], [5]]
    assert list(track(items, 5, 'evaluate')) == items
    last = capsys.readouterr().err.strip().split('\n')[-1]
    assert last.startswith('evaluate: 5/5 clips ') and last.endswith(' 0s left')
