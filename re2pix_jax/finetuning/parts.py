"""The parts that are tuned, each on what comes before it, and the clips they see."""

import contextlib
import math
import shutil

import jax
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import bundles, tasks
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.data import loader, prepare, records, video
from re2pix_jax.evaluation import fitness, held_out
from re2pix_jax.finetuning.plan import HORIZON, Run, once
from re2pix_jax.tasks import principal, recipes
from re2pix_jax.training import goodput, loop, writer
from re2pix_jax.training import mesh as meshes

POOR_PSNR = 26.0
"""dB of the VAE's reconstruction of this footage, below which it is tuned. [O]"""
LEAST_EXPLAINED = 0.8
"""Of the features' variance: where the components hold less they are fitted anew. [O]"""
SHARES = {'vae': 0.15, 'forecaster': 0.3, 'generator': 0.7}
"""Of the training time: the first is taken off the others'. [O]"""
TRIED = 6
"""Steps that tell how many fit into a time; the first two warm up."""
LEAST_STEPS = 20
LOOKED_AT = 64
"""Frames by which VAE and components are judged."""
RATES = {'vae': 5e-4, 'forecaster': 1.5e-3, 'generator': 1.5e-3}
"""Learning rates: below those of a training from nothing. [O]"""


class Stopped(Exception):  # noqa: N818 (no error: a signal ended a training, which is saved)
    """A SIGTERM came."""


def tuned(run: Run) -> None:
    """Prepares the footage and tunes the parts one after the other, up to the bundle.

    Raises:
        Stopped: a SIGTERM came, the checkpoint is saved.
    """
    if (run.out / 'config.json').is_file():
        return
    prepared(run)
    model, chosen = run.model, dict.fromkeys(('encoder', 'principal', 'vae'), run.name)
    found = once(run, 'judged', lambda: judged(run))
    poor, refitted = found['psnr'] < POOR_PSNR, found['explained'] < LEAST_EXPLAINED
    print(
        f'the VAE gives this footage back at {found["psnr"]:.1f} dB, '
        f'{"poor: it is tuned" if poor else "kept as it is"}; the components hold '
        f'{found["explained"]:.1%} of its variance, '
        f'{"too little: they are fitted anew" if refitted else "kept as they are"}',
        flush=True,
    )
    if poor:
        chosen['vae'] = train(run, 'vae', config_of(run, 'vae', 'autoencoder'))
    if refitted:
        chosen['principal'] = fitted(run)
    encoded(run, chosen)
    config = config_of(run, 'forecaster', 'forecaster', '-unrolled')
    config.data.frames = model.forecaster.net.frames - 1 + HORIZON
    config.loss.unroll = HORIZON
    config.frozen.update({name: chosen[name] for name in ('encoder', 'principal')})
    if refitted:  # components of another meaning: nothing to go on from
        config.init = ''
    chosen['forecaster'] = train(run, 'forecaster', config)
    config, generator = config_of(run, 'generator', 'generator'), model.generator
    config.data.frames = generator.net.context_frames + generator.net.future_frames
    for holder, names in (
        (generator, ('path', 'target', 'schedule')),
        (model, ('sampler', 'sampler_steps', 'sampler_grid')),
    ):
        config.loss.update({name: getattr(holder, name) for name in names})
    config.frozen.update({name: chosen[name] for name in ('forecaster', 'vae')})
    config.frozen.head = run.name if model.head is not None else ''
    bundles.save(run.out, bundles.load(train(run, 'generator', config), 're2pix'))


def prepared(run: Run) -> None:
    """The footage as clips at the model's size, a tenth of the minutes held out."""
    if not (run.work / 'clips').is_dir():
        storing = {'image_format': 'png', 'quality': 95, 'processes': 0, 'strict': False}
        given = {'size': run.model.size, 'folder_fps': run.folder_fps} | storing
        splits = ('train', 'validation')
        prepare.raw(run.work / 'clips', 'video_folder', run.footage, splits, **given)


def judged(run: Run) -> dict:
    """`fitness.of_frozen` of the bundle, on frames of the training clips."""
    source = records.Records(run.work / 'clips', 'train')
    places = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)).tolist()
    read = lambda index: source.read(index, [0], labels=False)['frames']
    frames = (video.fit(read(index), run.model.size)[0] for index in places)
    return fitness.of_frozen(run.model, frames)


def fitted(run: Run) -> str:
    """Bundle of components of this footage's own features."""
    place = run.work / 'parts' / 'principal'
    if not place.is_dir():
        config = recipe(run, 'principal')
        with config.unlocked():
            config.components = run.model.forecaster.principal.num_components
            config.frozen.encoder, config.seed = run.name, run.seed
            config.data.update(sources=(run.source,), size=tuple(run.model.size), unreadable='skip')
            config.data.update(crop=(1.0, 1.0), window='start')
        print(principal.fit(config, place), flush=True)
    return str(place)


def encoded(run: Run, chosen: dict) -> None:
    """Components and latents of every frame, once, by the bundles of {part: bundle}."""
    place = run.work / 'encoded'
    if not place.is_dir():
        parts = {name: bundles.load(path, name) for name, path in chosen.items()}
        digests = {name: bundles.digest(path, name) for name, path in chosen.items()}
        prepare.encode(place, run.source, parts, digests, ('train',), tuple(run.model.size))


def recipe(run: Run, name: str, variant: str = '') -> ConfigDict:
    """The config of that name, of the sizes that it has the one whose frames are nearest to the
    bundle's; in float32 on a CPU, where half precision is slower.
    """
    sizes = [size + variant for size in recipes.SIZES]
    found = [run.load(f'{name}:{size}') for size in sizes if size in recipes.RECIPES[name]]
    config = min(found, key=lambda one: abs(math.log(one.data.size[0] / run.model.size[0])))
    with config.unlocked():
        if 'dtype' in config and jax.default_backend() == 'cpu':
            config.dtype = 'float32'
    return config


def config_of(run: Run, kind: str, name: str, variant: str = '') -> ConfigDict:
    """The config that tunes a part: the recipe's, with the part's network and the model's time and
    size; the VAE's reads frames, the others' what is encoded.
    """
    config, net = recipe(run, name, variant), getattr(run.model, kind).net
    with config.unlocked():
        config.model = ConfigDict(KINDS[kind].fields_of(net))
        config.init, config.seed = run.name, run.seed
        for data in (config.data, config.eval_data):
            data.update(sources=(run.source,), size=tuple(run.model.size))
            data.update(crop=(1.0, 1.0), window='start', unreadable='skip', labels=False)
            data.strides = (held_out.stride_of(run.model),)
            data.least_share = 0.0  # of clips with a window, which `look` counted
        if kind == 'vae':  # whose features it keeps, where the recipe has it keep some
            config.frozen.encoder = config.frozen.encoder and run.name
        else:
            config.data.update(sources=(f'encoded:{run.work / "encoded"}',), flip=0.0)
        config.optimizer.learning_rate = RATES[kind]
        config.update(eval_every=0, keep=1)
        config.log.update(parameters=0, writers=())
    return config


def train(run: Run, kind: str, config: ConfigDict) -> str:
    """Trains a part for its share of the time and saves it; gives the bundle's path.

    Args:
        kind: of the part.
        config: what is trained, without its steps.

    Raises:
        Stopped: a SIGTERM came, the checkpoint is saved.
    """
    place = run.work / 'parts' / kind
    if place.is_dir():
        return str(place)
    steps = run.steps.get(kind) or once(run, f'{kind}_steps', lambda: tried(run, kind, config))
    config.steps = steps
    config.optimizer.warmup_steps = min(20, steps // 10)
    config.ema = min(0.99, max(0.0, 1 - 10 / steps))  # over the last tenth [O]
    config.checkpoint_every = max(10, steps // 20)
    config.log_every = min(20, max(1, steps // 10))  # a curve of short trainings, too
    task, state = _trained(config, run.work / kind)
    if kind == 'vae':  # at its own scale, which the generator knows
        bundles.save(place, run.model.vae.replace(params=state.ema))
    else:
        task.save(state.ema, place)
    return str(place)


def tried(run: Run, kind: str, config: ConfigDict) -> int:
    """How many steps fit into the time of a part, from a few of them."""
    config, place = ConfigDict(config), run.work / f'{kind}_tried'
    shutil.rmtree(place, ignore_errors=True)
    config.update(steps=TRIED, log_every=1, checkpoint_every=0)
    config.optimizer.warmup_steps = 1
    _trained(config, place)
    rates = [row['steps_per_second'] for row in writer.read_log(str(place), writer.TIMING)]
    shutil.rmtree(place)
    taken = SHARES['vae'] if (run.work / 'parts' / 'vae').is_dir() else 0.0
    share = SHARES[kind] * (1 - taken)
    return max(LEAST_STEPS, int(60 * run.minutes * share * float(np.median(rates[2:]))))


def _trained(config, workdir):
    goodput.begin()
    devices = meshes.create(**meshes.sizes(config))
    config.batch_size = meshes.filled(config.batch_size, devices)
    task = tasks.create(config)
    with contextlib.closing(loader.create(config.data, config.batch_size, config.seed)) as data:
        task.check_data(data.encoded_by(), data.depth_kinds())
        state = loop.train(task, config, str(workdir), data)
    if int(state.step) < config.steps:
        raise Stopped
    return task, state
