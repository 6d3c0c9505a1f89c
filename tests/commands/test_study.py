"""The study: its configs differ in one thing, and every checkpoint is evaluated once."""

import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import results
from re2pix_jax.evaluation.study import rows
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.generator import backbone
from re2pix_jax.training.defaults import flatten
from tests.conftest import ROOT, load_config
from tests.evaluation.studies import fake_report
from tests.training import toy

ROWS = (
    'full',
    'truth_only',
    'predicted_only',
    'no_nested_dropout',
    'full_doublings',
    'final_tenth_undropped',
    'baseline',
    'baseline_large',
)


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
        'full_doublings': {'loss.nested_counts': 'doublings'},
        'final_tenth_undropped': {'loss.nested_share': 0.9},
        'full': {},
    }
    assert full['loss.nested_counts'] == 'multiples' and full['model.patch_size'] == 2
    assert large.pop('model.components') == 0
    assert {name.split('.')[0] for name in large} == {'model'}


@pytest.mark.parametrize('size', ['tiny', 'small', 'base'])
def test_what_is_shared_is_the_generator_of_the_baselines(size):
    model = lambda row: load_config('study_train', f'{row}-{size}').model.to_dict()
    assert model('shared') == model('baseline') and model('shared_large') == model('baseline_large')


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
    with pytest.raises(UserError, match="study row 'ful': expected one of shared, "):
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

    def measure(model, settings, keep):
        workdir, step = model
        asked.append((workdir.parent.name, workdir.name, step, settings))
        report = fake_report(0.3, 1.0, settings.clips)
        del report['format']
        kept = {'frechet_judge/ends': np.arange(1)} if keep else {}
        return {'': results.Report(**report, kept=kept)}, {'': []}

    monkeypatch.setattr(rows.held_out, 'measure', measure)
    return asked


def study(folder, config, **given):
    """The points of a study whose models are where they come from."""
    opened = lambda workdir, step: (pathlib.Path(workdir), step)
    return rows.evaluate(folder, config, opened, note=lambda line: None, **given)


def test_each_checkpoint_is_evaluated_once_for_each_way_of_using_it(folder, asked):
    config = load_config('study_evaluate')
    config.curve.seeds = 1
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
    }
    # The last with guidance is a ninth way.
    assert len(asked) == len(found) == 9
    assert {(settings.clips, settings.horizon) for *_, settings in asked} == {
        (clips, config.evaluation.horizon),
        (few, config.horizons[0]),
    }
    asked.clear()
    assert study(folder, config) == found and not asked
    assert all(bool(point.features) == point.final for point in found)
    with config.unlocked():
        config.evaluation.seed = 1
    study(folder, config)
    assert len(asked) == 9


def test_a_run_that_was_trained_anew_in_its_folder_is_evaluated_anew(folder, asked):
    config = load_config('study_evaluate')
    study(folder, config)
    asked.clear()
    shutil.rmtree(folder / 'runs' / 'full' / '1')
    fields = {'steps': 4, 'checkpoint_every': 2, 'seed': 7}
    toy.train(folder / 'runs' / 'full' / '1', toy.make_config(**fields))
    study(folder, config)
    assert [run for *run, _ in asked] == [['full', '1', 4]]
    asked.clear()
    study(folder, config)
    assert not asked


def test_what_a_checkpoint_learned_anew_is_evaluated_anew(folder, asked, monkeypatch):
    config = load_config('study_evaluate')
    study(folder, config)
    asked.clear()
    workdir = folder / 'runs' / 'full' / '1'
    before = rows.checkpoint.Checkpoints(workdir, read_only=True).digest(4)
    shutil.rmtree(workdir)
    # By the same config, on other batches.
    create = toy.Data.__init__
    monkeypatch.setattr(
        toy.Data, '__init__', lambda self, *given: (create(self, *given), next(self))[0]
    )
    toy.train(workdir, toy.make_config(steps=4, checkpoint_every=2))
    assert rows.checkpoint.Checkpoints(workdir, read_only=True).digest(4) != before
    study(folder, config)
    assert [run for *run, _ in asked] == [['full', '1', 4]]


def test_another_network_of_a_measure_evaluates_anew(folder, asked, micro_bundles, tmp_path):
    config = load_config('study_evaluate')
    config.only = ('baseline',)
    judge = tmp_path / 'judge'
    config.evaluation.evals.frechet_judge.network = str(judge)
    study(folder, config)
    shutil.copytree(micro_bundles / 'judge', judge)
    study(folder, config)
    assert len(asked) == 2  # it was not there, and then it was
    part = bundles.load(judge)
    bundles.save(judge, part, storage='float16', overwrite=True)
    study(folder, config)
    assert len(asked) == 2  # a copy is the same network
    halved = jax.tree.map(lambda leaf: leaf / 2, part.params)
    bundles.save(judge, part.replace(params=halved), overwrite=True)
    study(folder, config)
    assert len(asked) == 3


def test_a_run_that_is_under_way_is_left_out_and_named(folder, asked):
    toy.train(folder / 'runs' / 'full' / '2', toy.make_config(steps=4, checkpoint_every=2), stop=2)
    said = []
    opened = lambda workdir, step: (pathlib.Path(workdir), step)
    found = rows.evaluate(folder, load_config('study_evaluate'), opened, said.append)
    assert {point.seed for point in found if point.label == 'full'} == {'0', '1'}
    assert f'left out: {folder}/runs/full/2 is at step 2 of 4' in said


def test_some_rows_are_evaluated_alone_into_another_folder(folder, asked):
    config = load_config('study_evaluate')
    config.curve.seeds = 0
    evaluate = lambda: study(folder, config, out=folder / 'other')
    config.only = ('full',)
    assert [point.label for point in evaluate()] == ['full', 'full']
    assert [(row, seed, settings.methods) for row, seed, _, settings in asked] == [
        ('full', '0', ('re2pix', 'oracle', 'copy_last', 'vae')),
        ('full', '1', ('re2pix',)),
    ]
    assert not (folder / 'evaluations').exists()
    # A report of each, and the features beside it.
    assert len(list((folder / 'other' / 'evaluations').iterdir())) == 2 * 2
    # What was evaluated beside the references is not evaluated again without them.
    config.rows = {name: config.rows[name] for name in ('baseline', 'full', 'full, guided')}
    config.only = ('baseline', 'full')
    assert [point.label for point in evaluate()] == ['baseline', 'full', 'full']
    assert [(row, seed, settings.methods) for row, seed, _, settings in asked[2:]] == [
        ('baseline', '0', ('re2pix', 'oracle', 'copy_last', 'vae'))
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
    assert (
        f'{tmp_path}/runs holds no run of the rows baseline, baseline_large, final_tenth_undropped'
        in done.stderr
    )
