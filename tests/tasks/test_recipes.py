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


@pytest.mark.long
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
    found = work('encoder:base')
    assert found.clips == 160_000 and found.epochs == pytest.approx(160)


def test_hours_follow_from_operations_peak_and_share():
    one = recipes.Work(100, 10.0, 1000, 1, 3.6e14, 1e9, 1e9, 'bfloat16')
    assert one.hours(100.0, 0.5) == pytest.approx(1000 * 3.6e14 / 50e12 / 3600)
    text = recipes.describe([('mine', one), ('cpu', one._replace(dtype='float32'))], 0.5)
    mine, cpu = text.splitlines()[3:5]
    kinds = [kind for _, kind in hardware.CARDS.values()]
    assert mine.split()[0] == 'mine' and mine.split()[-len(kinds) :].count('-') == 1
    assert cpu.split()[-len(kinds) :].count('-') == len(kinds) - 1
    assert '50% of it' in text and 'H100 (989 TFLOP/s)' in text
    assert all(len(line) <= 100 for line in text.splitlines()[6:])


def test_encoded_clips_need_no_frozen_network():
    frames = by_name('forecaster:small')
    frames.data.sources = ('world',)
    less = (
        recipes.work_of(frames, parts_of('small')).step_flops - work('forecaster:small').step_flops
    )
    encoder = 32 * 5 * 8 * 12 * 192**2 * (8 * 16 + 5) * 2  # its kernels alone
    assert encoder < less < 1.3 * encoder


def test_a_plan_puts_recipes_into_calls():
    one = recipes.Work(100, 10.0, 6000, 4, 98.9e12, 3.35e10, 1e9, 'bfloat16')  # 250, 10 ms
    found = [('a', one._replace(steps=600)), ('b', one._replace(steps=360)), ('c', one)]
    text = recipes.plan(found, mfu=0.4, minutes=5.0, first=1.0, each=0.5, rate=1e3)
    a, b, c = (line.split() for line in text.splitlines()[3:6])
    assert (a[0], a[-2:], b[0], b[-2:]) == ('1', ['3.0', '4.0'], '2', ['2.0', '3.0'])
    assert (c[0], c[-2:], c[6:9]) == ('3', ['25.5', '26.5'], ['250', '10.0', '4.00'])
    assert '34 minutes of one H100 in 3 calls' in text
    slow = recipes.plan([('d', one._replace(step_bytes=3.35e12))], 0.4, 5.0, 0.0, 0.0, 1e3)
    assert slow.splitlines()[3].split()[-1] == '100.0'  # 6,000 steps of a second
    starved = recipes.plan([('e', one)], 0.4, 5.0, 0.0, 0.0, rate=2.0)
    assert starved.splitlines()[3].split()[-1] == '200.0'


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
