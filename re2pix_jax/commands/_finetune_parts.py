"""The parts that `re2pix finetune` tunes, each on what comes before it, and the clips they see."""

import contextlib
import shutil
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import bundles, tasks
from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.commands import _config
from re2pix_jax.commands._finetune import HORIZON, Run, Stopped, once
from re2pix_jax.data import loader, prepare, records, video
from re2pix_jax.evaluation import held_out
from re2pix_jax.tasks import principal
from re2pix_jax.training import loop, writer

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


def prepared(run: Run) -> None:
    """The footage as clips at the model's size, a tenth of the minutes held out."""
    if not (run.work / 'clips').is_dir():
        prepare.raw(
            run.work / 'clips',
            'video_folder',
            run.footage,
            ('train', 'validation'),
            size=run.model.size,
            folder_fps=run.folder_fps,
            image_format='png',
            quality=95,
            processes=0,
            strict=False,
        )


def judged(run: Run) -> dict:
    """How well the bundle's VAE and components take this footage: {'psnr', 'explained'}, on held-in
    frames, one a clip.
    """
    source, model = records.Records(run.work / 'clips', 'train'), run.model
    places = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int))
    frames = jnp.asarray(
        np.concatenate(
            [
                video.fit(source.read(int(k), [0], labels=False)['frames'], model.size)
                for k in places
            ]
        )
    )[:, None]
    kept = model.forecaster.principal
    errors, lost, whole = [], [], []
    for block in np.array_split(np.arange(len(frames)), -(-len(frames) // 8)):
        x = frames[block]
        again = model.vae.decode(model.vae.encode(x)).astype(jnp.float32)
        errors.append(jnp.square(again - x).mean())
        features = model.forecaster.encoder.replace(image_size=None).encode(x)
        rest = features - kept.reconstruct(kept.project(features))
        lost.append(jnp.square(rest / kept.std).mean())
        whole.append(jnp.square((features - kept.mean) / kept.std).mean())
    return {
        'psnr': float(10 * np.log10(255**2 / np.mean(errors))),
        'explained': float(1 - np.mean(lost) / np.mean(whole)),
    }


def config_of(run: Run, kind: str, name: str, part) -> ConfigDict:
    """The config that tunes a part: the recipe's, with the part's network and the model's time and
    size.
    """
    config, stride = _config.load(name), held_out.stride_of(run.model)
    with config.unlocked():
        config.model = ConfigDict(KINDS[kind].fields_of(part.net))
        config.init, config.seed = run.name, run.seed
        for data in (config.data, config.eval_data):
            data.update(sources=(run.source,), size=tuple(run.model.size))
            data.update(crop=(1.0, 1.0), unreadable='skip', labels=False, strides=(stride,))
            data.least_share = 0.0  # of clips with a window, which `look` counted
        config.optimizer.learning_rate = RATES[kind]
        config.update(eval_every=0, keep=1, log_every=20)
        config.log.update(parameters=0, tensorboard=False)
    return config


def train(run: Run, kind: str, config: ConfigDict, save: Callable) -> str:
    """Trains a part for its share of the time and saves it; gives the bundle's path.

    Args:
        kind: of the part.
        config: what is trained, without its steps.
        save: (task, averaged variables, path), writes the bundle.

    Raises:
        Stopped: a SIGTERM came, the checkpoint is saved.
    """
    place = run.parts / kind
    if place.is_dir():
        return str(place)
    steps = run.steps.get(kind) or once(run, f'{kind}_steps', lambda: tried(run, kind, config))
    config.steps = steps
    config.optimizer.warmup_steps = min(20, steps // 10)
    config.ema = min(0.99, max(0.0, 1 - 10 / steps))  # over the last tenth [O]
    config.checkpoint_every = max(10, steps // 20)
    task, state = _trained(config, run.work / kind)
    if int(state.step) < steps:
        raise Stopped
    save(task, state.ema, place)
    return str(place)


def _trained(config, workdir):
    task = tasks.create(config)
    with contextlib.closing(loader.create(config.data, config.batch_size, config.seed)) as data:
        task.check_data(data.encoded_by(), data.depth_kinds())
        return task, loop.train(task, config, str(workdir), data)


def tried(run: Run, kind: str, config: ConfigDict) -> int:
    """How many steps fit into the time of a part, from a few of them."""
    config, place = ConfigDict(config), run.work / f'{kind}_tried'
    shutil.rmtree(place, ignore_errors=True)
    config.update(steps=TRIED, log_every=1, checkpoint_every=0)
    config.optimizer.warmup_steps = 1
    _, state = _trained(config, place)
    if int(state.step) < TRIED:
        raise Stopped
    rates = [row['steps_per_second'] for row in writer.read_log(str(place), writer.TIMING)]
    shutil.rmtree(place)
    taken = SHARES['vae'] if (run.parts / 'vae').is_dir() else 0.0
    share = SHARES[kind] * (1 - taken)
    return max(LEAST_STEPS, int(60 * run.minutes * share * float(np.median(rates[2:]))))


def tuned(run: Run) -> None:
    """Tunes the parts one after the other, each on what comes before it, up to the bundle."""
    if (run.out / 'config.json').is_file():
        return
    found = once(run, 'judged', lambda: judged(run))
    chosen = dict.fromkeys(('encoder', 'principal', 'vae'), run.name)
    print(
        f'the VAE gives this footage back at {found["psnr"]:.1f} dB, '
        f'{"poor: it is tuned" if found["psnr"] < POOR_PSNR else "kept as it is"}; the components '
        f'hold {found["explained"]:.1%} of its variance, '
        f'{"too little: they are fitted anew" if refitted(found) else "kept as they are"}',
        flush=True,
    )
    if found['psnr'] < POOR_PSNR:
        config = config_of(run, 'vae', 'autoencoder:tiny', run.model.vae)
        # The generator knows the latents at their scale.
        keep = lambda task, variables, place: bundles.save(
            place, run.model.vae.replace(params=variables)
        )
        chosen['vae'] = train(run, 'vae', config, keep)
    if refitted(found):
        chosen['principal'] = str(run.parts / 'principal')
        if not (run.parts / 'principal').is_dir():
            fit(run, chosen)
    encode(run, chosen)
    config = config_of(run, 'forecaster', 'forecaster:tiny-unrolled', run.model.forecaster)
    on_encoded(run, config, context=run.model.forecaster.net.frames - 1, future=HORIZON)
    config.loss.unroll = HORIZON
    config.frozen.update({name: chosen[name] for name in ('encoder', 'principal')})
    if refitted(found):  # components of another meaning: nothing to go on from
        config.init = ''
    save = lambda task, variables, place: task.save(variables, place)
    chosen['forecaster'] = train(run, 'forecaster', config, save)
    net = run.model.generator.net
    config = config_of(run, 'generator', 'generator:tiny', run.model.generator)
    on_encoded(run, config, context=net.context_frames, future=net.future_frames)
    config.loss.update(path=run.model.generator.path, target=run.model.generator.target)
    config.loss.schedule = run.model.generator.schedule
    for name in ('sampler', 'sampler_steps', 'sampler_grid'):
        config.loss[name] = getattr(run.model, name)
    config.frozen.update({name: chosen[name] for name in ('forecaster', 'vae')})
    config.frozen.head = run.name if run.model.head is not None else ''
    path = train(run, 'generator', config, save)
    bundles.save(run.out, bundles.load(path, 're2pix'))


def refitted(found: dict) -> bool:
    """Whether the components are fitted anew."""
    return found['explained'] < LEAST_EXPLAINED


def on_encoded(run: Run, config: ConfigDict, context: int, future: int) -> None:
    """Lets a training read the encoded clips, in windows of so many frames."""
    source = f'encoded:{run.work / "encoded"}'
    config.data.update(sources=(source,), flip=0.0, frames=context + future)


def fit(run: Run, chosen: dict) -> None:
    """Components of this footage's own features."""
    config = _config.load('principal:tiny')
    with config.unlocked():
        config.components = run.model.forecaster.principal.num_components
        config.frozen.encoder, config.seed = chosen['encoder'], run.seed
        config.data.update(sources=(run.source,), size=tuple(run.model.size), unreadable='skip')
    print(principal.fit(config, run.parts / 'principal'), flush=True)


def encode(run: Run, chosen: dict) -> None:
    """Components and latents of every frame, once."""
    if (run.work / 'encoded').is_dir():
        return
    names = ('encoder', 'principal', 'vae')
    parts = {name: bundles.load(chosen[name], name) for name in names}
    digests = {name: bundles.digest(chosen[name], name) for name in names}
    splits = ('train',)
    prepare.encode(run.work / 'encoded', run.source, parts, digests, splits, tuple(run.model.size))
