"""What recipes ask for: counted operations against arithmetic by hand, epochs, hours; and every
config that trains is among them.
"""

import jax
import numpy as np
import pytest

from re2pix_jax import tasks
from re2pix_jax.benchmarks import forecaster_work
from re2pix_jax.tasks import recipes
from re2pix_jax.training import hardware
from tests.conftest import ROOT
from tests.running import outcomes
from tests.test_configs import by_name, parts_of


def work(recipe):
    return recipes.work_of(by_name(recipe), parts_of(recipes.size_of(recipe)))


def test_every_config_that_trains_is_counted():
    evaluating = {'evaluate', 'eval_forecaster', 'study_evaluate', 'damages', 'samplers'}
    assert recipes.RECIPES.keys() == {p.stem for p in (ROOT / 'configs').glob('*.py')} - evaluating


@pytest.mark.parametrize(
    ('recipe', 'size'),
    [
        ('generator:base-xl', 'base'),
        ('generator:tiny', 'tiny'),
        ('forecaster_highres', 'base'),
        ('study_train:full', 'tiny'),
        ('study_train:full-small', 'small'),
        ('head:base-depth', 'base'),
    ],
)
def test_sizes_of_frozen_parts(recipe, size):
    assert recipes.size_of(recipe) == size


def test_a_step_of_the_published_stage_1_by_hand():
    found = work('forecaster_lowres')
    by_hand = 64 * sum(forecaster_work.flops(12).values())
    assert found.step_flops == pytest.approx(by_hand, rel=0.02)
    assert (found.clips, found.steps, found.batch) == (2975, 37187, 64)
    assert found.epochs == pytest.approx(800, abs=0.1)
    count = sum(
        np.prod(leaf.shape)
        for leaf in jax.tree.leaves(
            tasks.create(by_name('forecaster_lowres'), frozen=parts_of('base')).shapes['params']
        )
    )
    assert found.state_bytes == pytest.approx(16 * count, rel=1e-3)  # itself, average, Adam's two


def test_components_are_one_pass():
    found = work('principal:tiny')
    assert (found.clips, found.epochs, found.steps) == (1000, 1.0, 20)
    tokens, channels = 50 * 8 * 16, 384
    assert found.step_flops > 2 * tokens * channels**2


def test_the_world_has_as_many_clips_as_it_is_asked_for():
    found = work('encoder:small')
    assert found.clips == 20_000 and found.epochs == pytest.approx(160)


def test_hours_follow_from_operations_peak_and_share():
    one = recipes.Work(100, 10.0, 1000, 1, 3.6e14, 1e9, 'bfloat16')
    assert one.hours(100.0, 0.5) == pytest.approx(1000 * 3.6e14 / 50e12 / 3600)
    text = recipes.describe([('mine', one), ('cpu', one._replace(dtype='float32'))], 0.5)
    mine, cpu = text.splitlines()[3:5]
    kinds = [kind for _, kind in hardware.CARDS.values()]
    assert mine.split()[0] == 'mine' and mine.split()[-len(kinds) :].count('-') == 1
    assert cpu.split()[-len(kinds) :].count('-') == len(kinds) - 1
    assert '50% of it' in text and 'H100 (989 TFLOP/s)' in text
    assert all(len(line) <= 100 for line in text.splitlines()[6:])


def test_the_command():
    found = outcomes(
        'recipes',
        {
            'one': ['forecaster:tiny', '--mfu=0.5'],
            'evaluation': ['evaluate:x'],
            'size': ['generator:huge'],
        },
    )
    status, out, err = found['one']
    assert status == 0 and out.splitlines()[3].startswith('forecaster:tiny  1,000'), err
    assert found['evaluation'][0] == 2 and 'evaluate:x: trains nothing' in found['evaluation'][2]
    assert found['size'][0] == 2 and "config size 'huge'" in found['size'][2]
