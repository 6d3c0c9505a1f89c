"""Reports as text."""

from re2pix_jax.evaluation import tables, views


def test_the_table_by_time_has_a_row_a_step_and_only_columns_with_numbers():
    steps = [
        {
            're2pix': {'psnr': 20.123, 'ssim': 0.8, 'miou': 0.555},
            'copy_last': {'psnr': 19.0, 'ssim': 0.7, 'miou': None},
            'truth': {'miou': 0.6},
        },
        {},
    ]
    (text,) = tables.by_time(steps, fps=17 / 3)
    lines = text.split('\n')
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


def test_what_was_gained_is_said_beside_the_copied_frame():
    report = lambda psnr, copied, error: {
        'overall': {
            're2pix': {'psnr': psnr, 'feature_error': error},
            'copy_last': {'psnr': copied, 'feature_error': 0.5},
        }
    }
    said = tables.gained(report(20, 24, 0.4), report(22, 23, 0.3))
    assert said.split('\n') == [
        'PSNR dB: 20.00 before, 22.00 after (better); '
        'copying the last frame is better still, 23.00',
        'feature error: 0.400 before, 0.300 after (better)',
    ]
    said = tables.gained(report(20, 18, None), report(19, 18, None))
    assert said == 'PSNR dB: 20.00 before, 19.00 after (no better)'


def test_only_the_columns_that_are_there_are_explained():
    assert tables.legend(['re2pix', 'copy_last']) == 'copy: the last context frame repeated'
    said = tables.legend(views.TITLES)
    assert all(f'{views.TITLES[name]}: ' in said for name in views.TITLES if name != 're2pix')
    assert max(map(len, said.split('\n'))) <= tables.WIDTH
