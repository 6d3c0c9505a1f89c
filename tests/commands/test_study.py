"""The study: its configs differ in one thing, every checkpoint is evaluated once, its numbers and
verdicts are those of the reports.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.study import claims, numbers, rows
from re2pix_jax.evaluation.study import page as report
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.generator import backbone
from re2pix_jax.training.defaults import flatten
from tests.conftest import ROOT, load_config
from tests.training import toy

ROWS = ('baseline', 'baseline_large', 'truth_only', 'predicted_only', 'no_nested_dropout', 'full')


def fake_report(miou, video, clips=8):
    """An evaluation in which every frame has the same numbers, but for a Fréchet distance that
    grows with time.
    """
    steps = [
        {
            're2pix': {'miou': miou, 'psnr': 20.0, 'frechet_frames': video * number},
            'copy_last': {'miou': 0.2, 'psnr': 15.0, 'frechet_frames': 0.3},
            'vae': {'miou': 0.6, 'psnr': 27.0},
        }
        for number in (1, 2)
    ]
    overall = {
        # A mean over steps is what the table shows, so that these two are not read.
        're2pix': {'miou': 0.0, 'psnr': 0.0, 'frechet_frames': video, 'frechet_video': video},
        'copy_last': {'frechet_video': 9.0},
        'vae': {'frechet_video': 0.5},
    }
    protocol = {
        'model': 'model',
        'source': 'world',
        'split': 'validation',
        'clips': clips,
        'start_frame': 0,
        'window': 'start',
        'stride': 3,
        'fps': 5.0,
        'size': [64, 128],
        'label_size': [64, 128],
        'context_frames': 4,
        'horizon': 2,
        'last': False,
        'seed': 0,
        'sampler': 'euler',
        'sampler_steps': 20,
        'guidance': 0.0,
        'guidance_channels': 8,
        'channels': 0,
        'target': [],
        'context': [],
        'evals': {},
    }
    return {
        'format': 3,
        'overall': overall,
        'steps': steps,
        'about': {},
        'warnings': [],
        'left_out': [],
        'protocol': protocol,
    }


def points(**seeds_of):
    """{label: [(miou, frechet_video) of each seed]} → final `Point`s."""
    return [
        rows.Point(label.replace('_with_', ', '), str(seed), 100, 8, True, fake_report(*found))
        for label, seeds in seeds_of.items()
        for seed, found in enumerate(seeds)
    ]


@pytest.mark.parametrize('size', ['tiny', 'small', 'base'])
def test_rows_differ_from_full_in_what_their_name_says(size):
    full = flatten(load_config('study_train', f'full-{size}'))
    changed = {
        row: {
            name: value
            for name, value in flatten(load_config('study_train', f'{row}-{size}')).items()
            if value != full[name]
        }
        for row in ROWS
    }
    large = changed.pop('baseline_large')
    assert changed == {
        'baseline': {'model.components': 0},
        'truth_only': {'loss.predicted_fraction': 0.0},
        'predicted_only': {'loss.predicted_fraction': 1.0},
        'no_nested_dropout': {'loss.nested_dropout': False},
        'full': {},
    }
    assert large.pop('model.components') == 0
    assert {name.split('.')[0] for name in large} == {'model'}


def test_points_of_the_curve_follow_the_steps():
    config = load_config('study_train', 'full')
    config.steps = 1200
    assert config.checkpoint_every * config.keep == 1200


def parameters(create, fields, inputs):
    net = create(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
    )
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs(net))
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize('size', ['tiny', 'small', 'base'])
def test_the_large_baseline_has_at_least_the_parameters_of_both_stages(size):
    count = {
        row: parameters(
            backbone.create,
            load_config('study_train', f'{row}-{size}').model,
            lambda net: net.example(),
        )
        for row in ('full', 'baseline_large')
    }
    stage = load_config('forecaster_lowres') if size == 'base' else load_config('forecaster', size)
    forecaster = parameters(
        MaskedFeatureTransformer,
        stage.model,
        lambda net: [np.zeros((1, net.frames - 1, *net.grid, net.components), np.float32)],
    )
    assert (
        count['full'] + forecaster <= count['baseline_large'] <= 1.5 * (count['full'] + forecaster)
    )


def test_an_unknown_row_is_one_line():
    with pytest.raises(UserError, match="study row 'ful': expected one of baseline, "):
        load_config('study_train', 'ful')


@pytest.fixture
def folder(tmp_path):
    """Two toy runs of full and one of baseline, each with checkpoints of steps 2 and 4."""
    for row, seed in (('full', 0), ('full', 1), ('baseline', 0)):
        toy.train(tmp_path / 'runs' / row / str(seed), toy.make_config(steps=4, checkpoint_every=2))
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """Settings of each evaluation that the study asked for, with the run and step it is of."""
    asked = []

    def evaluate(model, settings):
        workdir, step = model
        asked.append((workdir.parent.name, workdir.name, step, settings))
        return {'': fake_report(0.3, 1.0, settings.clips)}, {'': []}

    monkeypatch.setattr(rows.held_out, 'evaluate', evaluate)
    return asked


def study(folder, config, **given):
    """The points of a study whose models are where they come from."""
    opened = lambda workdir, step: (pathlib.Path(workdir), step)
    return rows.evaluate(folder, config, opened, note=lambda line: None, **given)


def test_each_checkpoint_is_evaluated_once_for_each_way_of_using_it(folder, asked):
    config = load_config('study_evaluate')
    found = study(folder, config)
    base, clips, few = ('baseline', '0'), config.evaluation.clips, config.curve.clips
    assert {(*run, settings.clips, settings.channels) for *run, settings in asked} == {
        (*base, 2, few, 0),
        (*base, 4, few, 0),
        (*base, 4, clips, 0),
        ('full', '0', 2, few, 0),
        ('full', '0', 4, few, 0),
        ('full', '0', 4, clips, 0),
        ('full', '1', 4, clips, 0),
        ('full', '0', 4, clips, 8),
        ('full', '1', 4, clips, 8),
    }
    assert len(asked) == len(found) == 11  # guidance is another way again
    asked.clear()
    assert study(folder, config) == found and not asked
    with config.unlocked():
        config.evaluation.seed = 1
    study(folder, config)
    assert len(asked) == 11


def test_a_run_that_was_trained_anew_in_its_folder_is_evaluated_anew(folder, asked):
    config = load_config('study_evaluate')
    study(folder, config)
    asked.clear()
    shutil.rmtree(folder / 'runs' / 'full' / '1')
    fields = {'steps': 4, 'checkpoint_every': 2, 'seed': 7}
    toy.train(folder / 'runs' / 'full' / '1', toy.make_config(**fields))
    study(folder, config)
    assert {(*run, settings.channels, settings.guidance) for *run, settings in asked} == {
        ('full', '1', 4, 0, 0.0),
        ('full', '1', 4, 8, 0.0),
        ('full', '1', 4, 0, 0.4),
    }
    asked.clear()
    study(folder, config)
    assert not asked


def test_some_rows_are_evaluated_alone_into_another_folder(folder, asked):
    config = load_config('study_evaluate')
    config.curve.seeds = 0
    evaluate = lambda: study(folder, config, out=folder / 'other')
    config.only = ('full',)
    assert [point.label for point in evaluate()] == ['full', 'full']
    assert [(row, seed, settings.methods) for row, seed, _, settings in asked] == [
        ('full', '0', ()),
        ('full', '1', ('re2pix',)),
    ]
    assert not (folder / 'evaluations').exists()
    assert len(list((folder / 'other' / 'evaluations').iterdir())) == 2
    # What was evaluated beside the references is not evaluated again without them.
    config.only = ('baseline', 'full')
    assert [point.label for point in evaluate()] == ['baseline', 'full', 'full']
    assert [(row, seed, settings.methods) for row, seed, _, settings in asked[2:]] == [
        ('baseline', '0', ())
    ]
    config.only = ('ful', 'full')
    with pytest.raises(
        UserError, match='config.only: there is no row ful; choose among baseline; .*full, guided'
    ):
        evaluate()


def test_runs_that_end_at_different_steps_are_not_compared(folder):
    toy.train(folder / 'runs' / 'truth_only' / '0', toy.make_config(steps=2, checkpoint_every=2))
    with pytest.raises(
        UserError,
        match=r'runs/truth_only/0 at step 2, and others at 4: rows are compared after equal '
        r'steps; train on by',
    ):
        study(folder, load_config('study_evaluate'))


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


def test_a_study_without_runs_is_one_line(tmp_path):
    command = [
        sys.executable,
        '-m',
        're2pix_jax',
        'study',
        f'--config={ROOT}/configs/study_evaluate.py',
        f'--workdir={tmp_path}',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    assert f'{tmp_path}/runs holds no run of the rows baseline, baseline_large, full' in done.stderr


def test_numbers_are_means_and_sample_deviations_over_seeds():
    table = numbers.summarise(points(full=[(0.3, 1.0), (0.5, 3.0)], baseline=[(0.25, 4.0)]))
    assert table['full']['miou'] == pytest.approx((40, 10 * np.sqrt(2), 2))
    assert table['full']['frechet_video'] == pytest.approx((2, np.sqrt(2), 2))
    assert table['baseline']['miou'] == (25.0, None, 1)
    assert (
        table['copy-last']['miou'] == (20.0, None, 1)
        and table['VAE of the truth']['frechet_video'].mean == 0.5
    )
    assert 'fid' not in table['full']  # was not measured


def test_findings_are_judged_by_the_means_and_the_spread():
    table = {
        'full': [(0.3, 1.0), (0.3, 1.2)],
        'truth_only': [(0.35, 5.0), (0.35, 5.1)],
        'baseline': [(0.25, 4.0), (0.25, 4.2)],
        'no_nested_dropout': [(0.2, 1.0), (0.4, 0.9)],
        'full_with_8 channels': [(0.3, 1.5)],
    }
    verdicts = {
        verdict.claim: verdict.verdict
        for verdict in claims.judge(numbers.summarise(points(**table)))
    }
    assert verdicts['mIoU %: full is better than baseline'] == 'reproduced'
    assert verdicts['mIoU %: truth_only is better than full'] == 'reproduced'
    assert (
        verdicts['mIoU %: no_nested_dropout is better than baseline']
        == 'reproduced (within spread)'
    )
    assert verdicts['Fréchet video: full is better than no_nested_dropout'] == 'not reproduced'
    assert verdicts['Fréchet video: baseline is better than truth_only'] == 'reproduced'
    assert (
        verdicts['Fréchet video: with 8 channels nearer to full than the baseline is']
        == 'reproduced'
    )
    assert not any('predicted_only' in claim for claim in verdicts)  # not in this table


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
        rows.Point(label, '0', step, 4, False, fake_report(0.001 * step, 500 / step, 4))
        for label in ('full', 'baseline')
        for step in (50, 100)
    ]
    text = report.write(tmp_path, early + finals, [('a clip', np.zeros((8, 16, 3), np.uint8))])
    assert '31 ± 1.4' in text and 'copy-last' in text
    assert (
        'mIoU %: 10 of baseline at step 100 is reached by full at step 100, 1.0 times sooner'
        in text
    )
    assert (tmp_path / 'study.txt').read_text() == text + '\n'
    assert json.loads((tmp_path / 'study.json').read_text())['table']['baseline']['psnr'] == {
        'mean': 20.0,
        'spread': None,
        'count': 1,
    }
    page = (tmp_path / 'study.html').read_text()
    assert (
        page.count('<img src="data:image/png;base64,')
        == len(list((tmp_path / 'curves').glob('*.png'))) + 1
        == 6
    )
    assert (
        tmp_path / 'curves' / 'frechet_frames_by_time.png'
    ).is_file() and 'Fréchet frames by time' in text
    assert not list(tmp_path.rglob('*.partial'))
