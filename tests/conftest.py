"""Micro versions of every network, and a world small enough that every test can afford to train."""

import importlib.metadata
import importlib.util
import os
import pathlib
import tempfile

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# What is kept of a video between runs is kept for these tests alone.
os.environ['XDG_CACHE_HOME'] = (_cache := tempfile.TemporaryDirectory(prefix='re2pix_tests_')).name
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Compiling, not computing, takes the time of these tests.
if os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true') == 'true':
    # The emitters of fusions take two fifths of it; later versions do not know the flag.
    if importlib.metadata.version('jaxlib').startswith('0.10.'):
        os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false')

import hypothesis
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from tests import typecheck

# The shapes that the networks' annotations state are checked; before anything imports them.
ROOMS = ('nn', 'encoder', 'forecaster', 'generator', 'vae', 'heads')
jaxtyping.install_import_hook(
    [f're2pix_jax.{room}' for room in ROOMS], f'{typecheck.__name__}.check'
)

# A busy machine stands still for longer than the 200 ms that an example may take.
hypothesis.settings.register_profile(
    'tests', deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile('tests')

ROOT = pathlib.Path(__file__).parent.parent
SIZE = (32, 64)
LONGEST = (
    'test_overfit.py',
    'test_exactness.py',
    'test_configs.py',
    'test_tasks.py',
    'test_evaluate.py',
    'test_train.py',
    'test_predict.py',
    'test_convert.py',
    'test_loop.py',
)
MICRO = {
    'autoencoder': dict(
        block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, norm_groups=4
    ),
    'encoder': dict(
        patch_size=8,
        width=24,
        depth=4,
        heads=3,
        registers=2,
        layers=(0, 1, 2, 3),
        position_grid=(4, 8),
    ),
    'head': dict(features=8, channels=(8, 8, 8, 8)),
    'forecaster': dict(components=32, width=24, depth=2, heads=2, grid=(4, 8)),
    'generator': dict(
        latent_channels=4,
        latent_grid=(8, 16),
        components=32,
        width=24,
        depth=2,
        heads=2,
        ffn_multiple=8,
    ),
    'judge': dict(widths=(4, 6, 8), reads=4),
}


def pytest_addoption(parser):
    parser.addoption(
        '--slow', action='store_true', help='run the tests that take a minute each, too'
    )


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes a minute; runs with --slow alone')
    config.addinivalue_line('markers', 'long: takes some seconds; left out of the quick run')


def pytest_collection_modifyitems(config, items):
    """The files that take longest come first, so that no worker is left alone with one of them at
    the end.
    """
    if not config.getoption('--slow'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(
                    pytest.mark.skip(reason='takes a minute: bash launch/test.sh --slow')
                )
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        )
    )


def load_config(name, *size):
    """configs/<name>.py as it stands, of its default size or another."""
    spec = importlib.util.spec_from_file_location(f'config_{name}', ROOT / 'configs' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*size)


def shrink(config, bundles=None, **overrides):
    """The config with micro sizes, two clips a batch and few steps, on the clips beside `bundles`;
    other fields keep their values.
    """
    config.model.update({name: value for name, value in MICRO[config.task].items()})
    config.update(
        steps=2, batch_size=2, dtype='float32', log_every=1, eval_every=0, checkpoint_every=0
    )
    for data in (config.data, config.eval_data):
        data.update(size=SIZE, sources=(f'records:{bundles}/clips',), most_enlarged=1.0)
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, 1)
    for name in config.frozen:
        if (config.task, name) != ('autoencoder', 'vae'):  # which leaves only a decoder to train
            config.frozen[name] = str(bundles / name)
    config.update(overrides)
    return config


def random_variables(net, *inputs):
    """Variables of a network as numpy draws them: at once where `net.init` compiles for seconds,
    and with no layer at zero.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = path[-1].key
        if name in ('scale', 'gamma', 'var'):
            return np.ones(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == 'kernel' else 2500
        return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(net.init, jax.random.key(0), *inputs)
    )


@pytest.fixture(scope='session')
def micro_bundles(tmp_path_factory):
    """A folder of bundles with random weights, one per part, that fit each other, and of a few
    prepared clips of the world.
    """
    from re2pix_jax import bundles
    from re2pix_jax.data import frame_records
    from re2pix_jax.data.sources.world import World
    from re2pix_jax.encoder import Encoder, principal
    from re2pix_jax.encoder.vit import VisionTransformer
    from re2pix_jax.evaluation.networks.judge import Judge, VideoNetwork
    from re2pix_jax.forecaster import Forecaster
    from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
    from re2pix_jax.generator import Generator
    from re2pix_jax.generator.dit import SpaceTimeDiT
    from re2pix_jax.heads import Head
    from re2pix_jax.heads.dpt import DPTHead
    from re2pix_jax.model import Re2Pix
    from re2pix_jax.vae import Autoencoder
    from re2pix_jax.vae.autoencoder import AutoencoderKL

    folder = tmp_path_factory.mktemp('bundles')
    # Rendered once: 22 frames, as much as eight at stride 3 take.
    frame_records.write_frames(
        folder / 'clips',
        {'train': World('train', 6, 22, SIZE), 'validation': World('validation', 5, 22, SIZE)},
    )
    frames = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, *SIZE, 3)), jnp.uint8)
    images = jnp.zeros((1, *SIZE, 3))

    net = VisionTransformer(**MICRO['encoder'])
    encoder = Encoder(params=random_variables(net, images), net=net)
    features = encoder.encode(frames)
    components = principal.fit(
        principal.Moments().update(features), MICRO['forecaster']['components']
    )
    net = AutoencoderKL(**MICRO['autoencoder'], quant_conv=True, mid_attention=True)
    vae = Autoencoder(
        params=random_variables(net, images), net=net, scaling_factor=1.5, shift_factor=0.1
    )
    net = MaskedFeatureTransformer(**MICRO['forecaster'], frames=5)
    forecaster = Forecaster(
        params=random_variables(net, jnp.zeros((1, 4, 4, 8, 32))),
        net=net,
        encoder=encoder,
        principal=components,
    )
    net = DPTHead(classes=19, **MICRO['head'])
    head = Head(params=random_variables(net, features[0, :1]), net=net)
    net = SpaceTimeDiT(**MICRO['generator'], patch_size=2, context_frames=4, future_frames=4)
    latents, parts = jnp.zeros((1, 4, 8, 16, 4)), jnp.zeros((1, 4, 4, 8, 32))
    generator = Generator(
        params=random_variables(net, latents, latents, jnp.zeros((1,)), parts, parts), net=net
    )
    net = VideoNetwork(**MICRO['judge'])
    judge = Judge(params=random_variables(net, jnp.zeros((1, 5, *SIZE, 3))), net=net)
    model = Re2Pix(
        forecaster=forecaster, vae=vae, generator=generator, head=head, size=SIZE, sampler_steps=2
    )
    for name, part in dict(
        encoder=encoder,
        principal=components,
        vae=vae,
        forecaster=forecaster,
        head=head,
        generator=generator,
        judge=judge,
        re2pix=model,
    ).items():
        bundles.save(str(folder / name), part)
    return folder
