import pytest

from re2pix_jax.progress import track
from re2pix_jax.report.table import Number, horizon_table, table


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


def test_the_horizon_table_has_a_row_a_step_and_only_columns_with_numbers():
    steps = [
        {
            'step': 1,
            'seconds': 3 / 17,
            're2pix': {'psnr': 20.123, 'ssim': 0.8, 'miou': 0.555},
            'copy_last': {'psnr': 19.0, 'ssim': 0.7, 'miou': None},
            'truth': {'miou': 0.6},
        },
        {'step': 2, 'seconds': 6 / 17},
    ]
    lines = horizon_table(steps).split('\n')
    assert lines[0].split() == ['PSNR', 'dB', 'SSIM', 'mIoU', '%']
    assert lines[1].split() == [
        'step',
        'time',
        'Re2Pix',
        'copy',
        'Re2Pix',
        'copy',
        'Re2Pix',
        'truth',
    ]
    assert lines[3].split() == [
        '1',
        '+0.18',
        's',
        '20.12',
        '19.00',
        '0.800',
        '0.700',
        '55.5',
        '60.0',
    ]
    assert lines[4].split() == ['2', '+0.35', 's', '-', '-', '-', '-', '-', '-']


def test_progress_passes_everything_on_and_ends_with_a_plain_line(capsys):
    items = [[1, 2], [3, 4], [5]]
    assert list(track(items, 5, 'evaluate')) == items
    last = capsys.readouterr().err.strip().split('\n')[-1]
    assert last.startswith('evaluate: 5/5 clips, ') and last.endswith(' 0 s left')
