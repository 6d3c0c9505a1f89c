"""A study's numbers are those of its reports, over seeds and horizons; findings are judged by
intervals over clips and seeds.
"""

import json
import re

import numpy as np
import pytest

from re2pix_jax.evaluation.evaluators.frechet import Moments, distance
from re2pix_jax.evaluation.study import claims, intervals, numbers
from re2pix_jax.evaluation.study import page as report
from tests.evaluation.studies import fake_report, point, points, sets


def test_metrics_by_time_are_means_over_seeds_at_the_frames_that_have_them():
    found = numbers.by_time(
        points(full=[(0.3, 1.0), (0.5, 3.0)], baseline=[(0.25, 4.0)]), 'frechet_frames'
    )
    assert found == {
        'full': {
            0.2: pytest.approx((2, np.sqrt(2), 2)),
            0.4: pytest.approx((4, 2 * np.sqrt(2), 2)),
        },
        'baseline': {0.2: (4.0, None, 1), 0.4: (8.0, None, 1)},
        'copy-last': {0.2: (0.3, None, 1), 0.4: (0.3, None, 1)},
    }
    assert numbers.by_time(points(full=[(0.3, 1.0)]), 'frechet_video') == {}  # of one window alone


def test_a_table_by_time_shows_a_few_frames_from_the_first_to_the_last():
    cells = {
        round(0.1 * number, 1): numbers.Cell(float(number), None, 1) for number in range(1, 17)
    }
    title, header, _, row = report.describe_by_time('frechet_frames', {'full': cells}).split('\n')
    assert title == 'Fréchet frames by time'
    assert header.split() == '+0.10 s +0.40 s +0.70 s +1.00 s +1.30 s +1.60 s'.split()
    assert row.split() == ['full', '1', '4', '7', '10', '13', '16']


def test_numbers_are_means_and_sample_deviations_over_seeds():
    seeds = points(full=[(0.3, 1.0), (0.5, 3.0)], baseline=[(0.25, 4.0)])
    table = numbers.summarise(seeds, horizon=2)
    assert table['full']['forecast']['miou'] == pytest.approx((40, 10 * np.sqrt(2), 2))
    assert table['full']['oracle']['miou'] == pytest.approx((80, 20 * np.sqrt(2), 2))
    assert table['full']['forecast']['frechet_video'] == pytest.approx((2, np.sqrt(2), 2))
    assert table['baseline']['forecast']['miou'] == (25.0, None, 1)
    assert table['copy-last']['']['miou'] == (20.0, None, 1)
    assert table['VAE of the truth']['']['frechet_video'].mean == 0.5
    assert 'fid' not in table['full']['forecast']  # was not measured


def test_a_shorter_horizon_is_of_its_frames_alone():
    report = fake_report(0.3, 1.0)
    report['steps'][1]['re2pix'] = {'miou': 0.1, 'psnr': None}
    rng = np.random.default_rng(0)
    truth, found = (rng.normal(size=(40, 2, 3)) for _ in range(2))
    found[:, 1] += 5  # in the second window alone
    full = point('full', 0, report, sets(truth, re2pix=found))
    whole, first = (numbers.summarise([full], horizon)['full'] for horizon in (4, 2))
    assert whole['forecast']['miou'].mean == pytest.approx(20)
    assert whole['forecast']['psnr'].mean == 20  # of the frames that have one
    assert numbers.read('miou', full, 're2pix', 1) == pytest.approx(30)
    gaussian = lambda x: Moments().update(x).gaussian()
    for cells, windows in ((whole, slice(None)), (first, slice(1))):
        expected = distance(gaussian(truth[:, windows]), gaussian(found[:, windows]))
        assert cells['forecast']['frechet_judge'].mean == pytest.approx(expected)
    assert whole['forecast']['frechet_judge'].mean > 5 * first['forecast']['frechet_judge'].mean
    # Of what kept no features there is the whole evaluation, and nothing shorter.
    assert 'frechet_video' in numbers.summarise([full], 2)['full']['forecast']
    assert 'frechet_video' not in numbers.summarise([full], 1)['full']['forecast']


def test_drawn_clips_are_those_of_a_set_in_which_they_stand_as_often():
    rng = np.random.default_rng(0)
    truth, found = rng.normal(size=(30, 2, 4)), rng.normal(0.5, 2, size=(30, 2, 4))
    draws = intervals.Resampling(30, 3)
    assert (draws.weights[0] == 1).all() and (draws.weights.sum(1) == 30).all()
    gaussian = lambda x: Moments().update(x).gaussian()
    for drawn, weights in zip(
        intervals.distances(found, truth, draws.weights), draws.weights.astype(int), strict=True
    ):
        repeated = [np.repeat(x, weights, axis=0) for x in (truth, found)]
        assert drawn == pytest.approx(distance(*map(gaussian, repeated)))


def test_an_interval_is_over_clips_and_seeds():
    draws = intervals.Resampling(clips=10, count=400)
    gain = lambda ours, theirs: theirs - ours
    # Two rows, two seeds; nothing depends on the clips.
    ours, theirs = np.array([1.0, 12.0]), np.array([2.0, 17.0])
    values = np.broadcast_to(np.stack([ours, theirs])[:, :, None], (2, 2, 401))
    # Seeds are drawn for both rows at once: gains are 1, 3 or 5, a quarter of them 1 and 5 each.
    assert draws.interval(values, gain, clips=False) == (3.0, 1.0, 5.0, 0, 2)
    assert draws.interval(values, gain, clips=True) == pytest.approx((3.0, 1.0, 5.0, 10, 2), 0.1)
    # One seed; what clips do to both rows alike does not count.
    noise = np.random.default_rng(0).normal(size=401)
    both = np.stack([1.0 + noise, 2.0 + noise])[:, None]
    assert draws.interval(both, gain, clips=True)[:3] == pytest.approx((1.0, 1.0, 1.0))
    alone = np.stack([1.0 + noise, np.full(401, 2.0)])[:, None]
    found = draws.interval(alone, gain, clips=True)
    assert found.value - 2.5 < found.low < found.value - 1.5
    assert found.value + 1.5 < found.high < found.value + 2.5
    # Neither clips nor seeds: nothing to draw from.
    assert draws.interval(both[:, :, :1], gain, clips=False)[1:] == (None, None, 0, 1)


def test_an_interval_is_about_the_value_whatever_repeated_clips_do_to_a_distance():
    random = np.random.default_rng(0)
    truth, other = random.normal(size=(2, 128, 1, 16))
    draws = intervals.Resampling(128, 100)
    # One follows the truth clip by clip: clips that repeat do nothing to it, but to the other.
    follows, strays = (
        intervals.distances(found, truth, draws.weights) for found in (truth + 0.2, other)
    )
    gain = lambda ours, theirs: theirs - ours
    found = draws.interval(np.stack([follows, strays])[:, None], gain, clips=True)
    drawn = (strays - follows)[1:]
    assert drawn.min() > found.value  # all of them
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(np.ptp(np.percentile(drawn, [2.5, 97.5])))


def drawn_points(**shifts):
    """{label: [shift of each seed]} → points whose features are the truth's, shifted, with noise of
    their own.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 2, 4))
    return [
        point(
            label,
            seed,
            fake_report(0.3 + 0.1 * shift, 1.0, clips=60),
            sets(truth, re2pix=truth + shift + 0.1 * rng.normal(size=truth.shape)),
        )
        for label, seeds in shifts.items()
        for seed, shift in enumerate(seeds)
    ]


def verdicts_of(found, clips=60):
    return {
        verdict.claim: verdict
        for verdict in claims.judge(found, 4, intervals.Resampling(clips, 100))
    }


def test_findings_are_judged_by_their_intervals():
    found = verdicts_of(
        drawn_points(
            full=[0.2, 0.25, 0.22],
            truth_only=[1.0, 1.1, 1.05],
            predicted_only=[0.1, 0.4, 0.2],
            no_nested_dropout=[0.02, 0.03, 0.01],
            baseline=[2.0],
        )
    )
    judged = lambda words: found[f'Fréchet judge: {words}']
    worse = judged('full is better than truth_only')
    assert (worse.verdict, worse.rests_on) == ('reproduced', '60 clips, 3 seeds')
    one, other = (float(number) for number in worse.found.split(' against '))
    gain, low, high = map(float, re.fullmatch(r'(\S+) \[(\S+), (\S+)\]', worse.gain).groups())
    assert low < gain < high and gain == pytest.approx(other - one, abs=0.01)
    # Seeds of predicted_only lie on both sides of full's.
    assert judged('full is better than predicted_only').verdict == 'undecided'
    assert judged('full is better than no_nested_dropout').verdict == 'not reproduced'
    alone = judged('full is better than baseline')
    assert (alone.verdict, alone.rests_on) == ('reproduced', '60 clips, 1 seed')
    # No clips are drawn for labels, and one seed has no interval.
    labels = found['mIoU %: truth_only is better than full']
    assert (labels.verdict, labels.rests_on) == ('reproduced', '3 seeds')
    labels = found['mIoU %: full is better than baseline']
    assert (labels.verdict, labels.rests_on) == ('not reproduced (no interval)', '1 seed')
    assert not any('guided' in claim for claim in found)  # not in this table


def test_eight_channels_are_held_against_the_baselines_distance():
    shifts = {'full, 8 channels': [0.4], 'full': [0.2], 'baseline': [2.0]}
    claim = f'Fréchet judge: {claims.EIGHT}'
    assert verdicts_of(drawn_points(**shifts))[claim].verdict == 'reproduced'
    shifts |= {'full, 8 channels': [4.0]}
    assert verdicts_of(drawn_points(**shifts))[claim].verdict == 'not reproduced'


def test_what_is_not_judged_is_named_with_the_reason():
    found = drawn_points(full=[0.1], truth_only=[0.3])
    found[0].report['left_out'].append("FVD: config.evals.fvd.network = '' names no bundle")
    lines = claims.missing(found, 4)
    assert lines[0].startswith('no claim about baseline, baseline_large, final_tenth_undropped, ')
    assert "no claim about FVD: config.evals.fvd.network = '' names no bundle" in lines
    assert not any('Fréchet judge' in line for line in lines)


@pytest.mark.parametrize(
    ('values', 'step', 'times'), [((0.1, 0.3, 0.5), 150, 2.0), ((0.25, 0.3, 0.5), 100, 3.0)]
)
def test_how_much_sooner_the_baselines_end_is_reached(values, step, times):
    found = {
        'full': ([100, 200, 300], list(values)),
        'baseline': ([100, 200, 300], [0.0, 0.1, 0.2]),
    }
    assert numbers.sooner(found, 'miou') == pytest.approx((step, times))
    lower = {label: (steps, [-value for value in curve]) for label, (steps, curve) in found.items()}
    assert numbers.sooner(lower, 'frechet_video') == pytest.approx((step, times))
    assert numbers.sooner(found, 'miou', 'baseline', 'full') is None


def test_tables_curves_and_page_are_written(tmp_path):
    finals = points(full=[(0.3, 1.0), (0.32, 1.2)], baseline=[(0.25, 4.0)])
    early = [
        point(label, 0, fake_report(0.001 * step, 500 / step, 4), final=False, step=step)
        for label in ('full', 'baseline')
        for step in (50, 100)
    ]
    text = report.write(
        tmp_path,
        early + finals,
        horizons=(1, 2, 16),
        bootstrap=10,
        sheets=[('a clip', np.zeros((8, 16, 3), np.uint8))],
        shared={'shared': 3600.0},
    )
    lines = text.split('\n')
    assert '31 ± 1.4' in text and 'copy-last' in text
    # A line of what stage 1 forecasts, and beside it one of the truth.
    rows = [line.split()[:2] for line in lines[lines.index('1 future frames') :]]
    assert rows[3:7] == [['full', 'forecast'], ['full', 'oracle']] + [
        ['baseline', 'forecast'],
        ['baseline', 'oracle'],
    ]
    # As many horizons as the evaluation has frames for.
    assert '2 future frames' in lines and '16 future frames' not in lines
    assert (
        'mIoU %: 10 of baseline at step 100 is reached by full at step 100, 1.0 times sooner'
        in text
    )
    # Evaluations take a minute each, two of the curve and two of seeds; points are two minutes of
    # training each.
    assert re.search(r'^full +8m 00s +4m 00s$', text, re.M)
    assert re.search(r'^shared +1h 00m +0s$', text, re.M)
    assert (tmp_path / 'study.txt').read_text() == text + '\n'
    stored = json.loads((tmp_path / 'study.json').read_text())
    assert stored['tables']['2']['baseline']['oracle']['psnr'] == {
        'mean': 25.0,
        'spread': None,
        'count': 1,
    }
    page = (tmp_path / 'study.html').read_text()
    # Curves of mIoU, PSNR, and the two Fréchet distances over training, one of frames by time, and
    # the sheet.
    pictures = {path.stem for path in (tmp_path / 'curves').glob('*.png')}
    assert pictures == {
        'miou',
        'psnr',
        'frechet_video',
        'frechet_frames',
        'frechet_frames_by_time',
    }
    assert page.count('<img src="data:image/png;base64,') == len(pictures) + 1
    assert not list(tmp_path.rglob('*.partial'))
