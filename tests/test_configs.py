"""Every config is traced at the sizes it names; the tiny ones train, shrunk, in test_train.py and
the published high resolution here.
"""

import functools
import runpy

import jax
import numpy as np
import pytest

from re2pix_jax import tasks
from re2pix_jax.data import loader
from re2pix_jax.tasks import recipes
from re2pix_jax.training import loop, writer
from tests.conftest import ROOT, load_config, shrink

TRAINED = ('autoencoder', 'encoder', 'head', 'forecaster', 'generator')
PUBLISHED = ('forecaster_lowres', 'forecaster_highres')  # of one size, each
SIZES = [
    (name, size)
    for name in TRAINED
    for size in ('tiny', 'small', 'base')
    if (name, size) != ('forecaster', 'base')
] + [('judge', 'tiny'), ('forecaster', 'tiny-unrolled'), ('forecaster', 'small-unrolled')]


def test_every_config_is_known_here():
    assert {path.stem for path in (ROOT / 'configs').glob('*.py')} == {
        *TRAINED,
        *PUBLISHED,
        'judge',
        'damages',
        'samplers',
        'principal',
        'evaluate',
        'eval_forecaster',
        'study_train',
        'study_evaluate',
    }


def config_of(name, size):
    """configs/<name>.py at a size; the published forecasters are of size base."""
    name = 'forecaster_lowres' if (name, size) == ('forecaster', 'base') else name
    if name in PUBLISHED:
        return runpy.run_path(str(ROOT / 'configs' / f'{name}.py'))['get_config']()
    return load_config(name, size)


@functools.cache
def parts_of(size):
    return recipes.abstract_parts(by_name, size)


def by_name(recipe):
    """'NAME[:SIZE]' → its config."""
    name, _, size = recipe.partition(':')
    return load_config(name, *filter(None, [size]))


@pytest.mark.long
@pytest.mark.parametrize(('name', 'size'), [*SIZES, *((name, 'base') for name in PUBLISHED)])
def test_config_traces_at_its_own_size(name, size):
    """Grids, channels and frames of all configs of a size fit together, forward and backward."""
    config = config_of(name, size)
    parts = parts_of(recipes.size_of(f'{name}:{size}'))
    task = tasks.create(config, frozen=parts)
    batch = recipes.abstract_batch(config, parts)
    batch['step'] = jax.ShapeDtypeStruct((config.batch_size,), np.int32)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(task.shapes))

    def step(variables, frozen, batch):
        return jax.value_and_grad(task.loss, has_aux=True)(
            variables, frozen, batch, jax.random.key(0), variables
        )

    (loss, (metrics, updates)), gradients = jax.eval_shape(step, task.shapes, task.frozen, batch)
    assert loss.shape == () and metrics
    shape_of = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
    assert shape_of(gradients) == shape_of(task.shapes)
    statistics = {name: task.shapes[name] for name in task.shapes if name != 'params'}
    assert shape_of(updates) == shape_of(statistics)


@pytest.mark.parametrize(
    ('name', 'batch_size', 'steps', 'rate'),
    [
        ('forecaster_lowres', 64, 37187, 6.4e-4),
        ('forecaster_lowres', 8, 297500, 8e-5),
        ('forecaster_highres', 64, 929, 8e-5),
    ],
)
def test_published_recipe_follows_the_batch_size(name, batch_size, steps, rate):
    config = config_of(name, 'base')
    config.batch_size = batch_size
    assert config.steps == steps
    assert config.optimizer.learning_rate == pytest.approx(rate)


@pytest.mark.long
def test_published_high_resolution_starts_from_the_low_one(micro_bundles, tmp_path):
    """Shrunk, the config trains from a bundle of half its grid."""
    config = shrink(
        config_of('forecaster_highres', 'base'),
        micro_bundles,
        init=str(micro_bundles / 'forecaster'),
    )
    config.model.grid = (8, 16)
    config.data.size, config.data.window = (64, 128), 'start'
    loader_of = lambda: loader.create(config.data, config.batch_size, config.seed)
    state = loop.train(tasks.create(config), config, str(tmp_path), loader_of())
    assert int(state.step) == 2 and state.params['d_2'].shape == (16, 8)
    assert writer.read_log(str(tmp_path))[0]['loss'] > 0


@pytest.mark.parametrize(
    ('recipe', 'epochs', 'steps'),
    [
        ('autoencoder:base', 300, 27890),
        ('head:base', 100, 18593),
        ('head:base-depth', 100, 18593),
        ('generator:base', 800, 37187),
        ('generator:base-xl', 800, 37187),
        ('study_train:full-base', 800, 37187),
    ],
)
def test_base_trains_on_cityscapes_by_epochs_and_is_evaluated_on_the_way(recipe, epochs, steps):
    config = by_name(recipe)
    assert config.epochs == epochs and config.steps == steps
    assert config.data.sources == config.eval_data.sources == ('records:data/cityscapes',)
    assert config.eval_data.split == 'validation'
    assert 0 < config.eval_every <= steps // 10 and config.evals
    assert 0 < config.optimizer.warmup_steps <= steps // 10
    config.epoch_clips, config.epochs, config.batch_size = 100, 7, 10
    assert config.steps == 70
    config.steps = 5  # given by itself it counts
    assert config.steps == 5


def test_the_base_encoder_is_evaluated_and_reads_what_was_rendered_once():
    config = load_config('encoder', 'base')
    assert config.data.sources == config.eval_data.sources == ('records:data/world_base',)
    assert config.epoch_clips == 160_000 and config.data.workers > 0
    assert 0 < config.eval_every <= config.steps // 10 and config.evals
    assert config.steps // 100 <= config.optimizer.warmup_steps <= config.steps // 10


@pytest.mark.parametrize(('size', 'warmup'), [('tiny', 50), ('small', 200), ('base', 1000)])
def test_a_row_of_the_study_warms_up_as_its_size_does_and_is_saved_often(size, warmup):
    config = load_config('study_train', f'full-{size}')
    assert config.optimizer.warmup_steps == warmup
    assert 0 < config.checkpoint_every <= 500


@pytest.mark.parametrize(('size', 'degrees'), [('tiny', 60.0), ('small', 60.0), ('base', 48.7)])
def test_normals_follow_from_the_view_of_the_cameras(size, degrees):
    config = load_config('head', f'{size}-normals')
    assert config.loss.field_of_view == config.evals.normals.field_of_view == degrees
    config.loss.field_of_view = 50.0
    assert config.evals.normals.field_of_view == 50.0


def test_components_of_the_published_recipe_are_of_the_labelled_frames():
    config = load_config('principal', 'base')
    assert config.data.sources == ('records:data/cityscapes',) and config.clips == 2975
    assert (config.data.size, config.data.window, config.data.flip) == ((448, 896), 'target', 0)


@pytest.mark.parametrize('name', [*TRAINED, 'principal'])
def test_unknown_size_is_named(name):
    with pytest.raises(ValueError, match="config size 'huge': expected one of tiny, small"):
        load_config(name, 'huge')
