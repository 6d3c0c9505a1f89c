"""Every config is traced at the sizes it names; the tiny ones train, shrunk, in test_train.py and
the published high resolution here.
"""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles, tasks
from re2pix_jax.data import loader
from re2pix_jax.encoder import Encoder, Principal
from re2pix_jax.encoder.vit import VisionTransformer
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.training import loop, writer
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import AutoencoderKL
from tests.conftest import ROOT, load_config, shrink

TRAINED = ('autoencoder', 'encoder', 'head', 'forecaster', 'generator')
PUBLISHED = ('forecaster_lowres', 'forecaster_highres')  # of one size, each
SIZES = [
    (name, size)
    for name in TRAINED
    for size in ('tiny', 'small', 'base')
    if (name, size) != ('forecaster', 'base')
] + [('judge', 'tiny')]


def test_every_config_is_known_here():
    assert {path.stem for path in (ROOT / 'configs').glob('*.py')} == {
        *TRAINED,
        *PUBLISHED,
        'judge',
        'damages',
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


def network(cls, name, size):
    """The network that a config describes."""
    fields = {
        key: tuple(value) if isinstance(value, (list, tuple)) else value
        for key, value in config_of(name, size).model.items()
    }
    return cls(**fields)


def abstract_parts(size):
    """The frozen parts of a size, with shapes for arrays: enough to trace a loss, too little to
    cost memory.
    """
    key = jax.random.key(0)
    encoder_net, vae_net = (
        network(VisionTransformer, 'encoder', size),
        network(AutoencoderKL, 'autoencoder', size),
    )
    net = network(MaskedFeatureTransformer, 'forecaster', size)
    channels = encoder_net.width * len(encoder_net.layers)
    height, width = config_of('forecaster', size).data.size
    vae_frames = config_of('autoencoder', size).data.size
    array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    encoder = Encoder(
        params=jax.eval_shape(encoder_net.init, key, array(1, height, width, 3)), net=encoder_net
    )
    count = config_of('principal', size).components
    principal = Principal(
        array(channels), array(channels), array(channels), array(count, channels), array(count)
    )
    params = jax.eval_shape(net.init, key, array(1, net.frames - 1, *net.grid, net.components))
    return {
        'encoder': encoder,
        'principal': principal,
        'forecaster': Forecaster(params=params, net=net, encoder=encoder, principal=principal),
        'vae': Autoencoder(
            params=jax.eval_shape(vae_net.init, key, array(1, *vae_frames, 3)), net=vae_net
        ),
    }


@pytest.mark.parametrize(('name', 'size'), [*SIZES, *((name, 'base') for name in PUBLISHED)])
def test_config_traces_at_its_own_size(name, size, monkeypatch):
    """Grids, channels and frames of all configs of a size fit together, forward and backward."""
    parts = abstract_parts(size)
    monkeypatch.setattr(bundles, 'load', lambda path, *_: parts[path])
    monkeypatch.setattr(bundles, 'digest', lambda path, *_: path)
    config = config_of(name, size)
    for part in config.frozen:
        config.frozen[part] = part
    task = tasks.create(config)
    shape = (config.batch_size, config.data.frames, *config.data.size)
    batch = {
        'frames': jax.ShapeDtypeStruct((*shape, 3), np.uint8),
        'record': jax.ShapeDtypeStruct(shape[:1], np.int32),
    }
    if config.data.labels:
        batch |= {
            'labels': jax.ShapeDtypeStruct(shape, np.uint8),
            'depth': jax.ShapeDtypeStruct(shape, np.float32),
        }
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


@pytest.mark.parametrize('name', [*TRAINED, 'principal'])
def test_unknown_size_is_named(name):
    with pytest.raises(ValueError, match="config size 'huge': expected one of tiny, small"):
        load_config(name, 'huge')
