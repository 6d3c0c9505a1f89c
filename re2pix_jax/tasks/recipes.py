"""What recipes ask for, found without training anything: how often one sees its data, and the
operations of its steps, counted on shapes alone.
"""

import math
import textwrap
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import tasks
from re2pix_jax.data import sources
from re2pix_jax.encoder import Encoder, Principal
from re2pix_jax.encoder.vit import VisionTransformer
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.report.table import Number, table
from re2pix_jax.training import hardware, resume
from re2pix_jax.training import state as states
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import AutoencoderKL

SIZES = ('tiny', 'small', 'base')
RECIPES = {
    'autoencoder': ('tiny', 'small', 'base'),
    'encoder': ('tiny', 'small', 'base'),
    'principal': ('tiny', 'small', 'base'),
    'head': ('tiny', 'small', 'base'),
    'judge': ('tiny',),
    'forecaster': ('tiny', 'tiny-unrolled', 'small', 'small-unrolled'),
    'forecaster_lowres': ('',),
    'forecaster_highres': ('',),
    'generator': ('tiny', 'small', 'base', 'base-unet', 'base-baseline-large', 'base-l', 'base-xl'),
    'study_train': ('full', 'full-small', 'full-base'),
}
"""Sizes of every config that trains; variants where they cost something else."""

ABOUT = """operations: matrix products and convolutions of a step, frozen networks and recomputation
included; state: parameters, their average and the optimiser, on every device unless mesh.fsdp cuts
it; hours: all operations by the nominal peak of {cards}, at {mfu:.0%} of it, where the data keeps
up; several cards share them. float32 recipes are made for CPU cores, the others for cards"""


class Work(NamedTuple):
    """What a recipe takes.

    Attributes:
        clips: of an epoch; epochs: passes over them; steps, batch: clips of a step.
        step_flops: operations of a step; step_bytes: the least that it moves in the memory.
        state_bytes: what is trained, and what belongs to it.
        dtype: what is computed in.
    """

    clips: int
    epochs: float
    steps: int
    batch: int
    step_flops: float
    step_bytes: float
    state_bytes: float
    dtype: str

    def hours(self, tflops: float, mfu: float) -> float:
        """Of one device of that nominal peak, at the share `mfu` of it."""
        return self.steps * self.step_flops / (tflops * 1e12 * mfu) / 3600

    def bounds(self, mfu: float) -> tuple[float, float]:
        """Milliseconds of a step on an H100: by its operations, by its bytes."""
        peak, _ = hardware.CARDS['H100']
        return self.step_flops / (peak * 1e9 * mfu), self.step_bytes / (
            hardware.H100_BANDWIDTH * 1e9
        )


def size_of(recipe: str) -> str:
    """The size whose frozen parts a recipe takes: 'generator:base-xl' → 'base'."""
    name, _, size = recipe.partition(':')
    sizes = [word for word in size.split('-') if word in SIZES]
    return sizes[0] if sizes else 'base' if name.startswith('forecaster_') else 'tiny'


def work_of(config: ConfigDict, parts: dict) -> Work:
    """What a training config asks for.

    Args:
        config: as a file of configs/ makes it.
        parts: frozen parts of its size, see `abstract_parts`.
    """
    if config.task == 'principal':
        return _of_components(config, parts)
    task = tasks.create(config, frozen=parts)
    transform, rate = resume.make_optimizer(task, config)
    batch = abstract_batch(config, parts)
    state = jax.eval_shape(lambda batch: states.create(task, transform, config.seed, batch), batch)
    step = states.make_step(task, transform, rate, config.seed, config.ema, config.accumulate)
    traced = jax.jit(step).trace(state, task.frozen, batch, jax.ShapeDtypeStruct((), jnp.int32))
    clips = config.epoch_clips or _clips(config)
    state_bytes = sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
    )
    return Work(
        clips,
        config.steps * config.batch_size / clips,
        config.steps,
        config.batch_size,
        hardware.flops(traced.jaxpr, _made_for(config)),
        hardware.bytes_moved(traced.jaxpr, _made_for(config)) + 2 * state_bytes,
        state_bytes,
        config.dtype,
    )


def _made_for(config):
    """The platform whose operations are counted."""
    return 'cpu' if config.dtype == 'float32' else 'cuda'


def _of_components(config, parts):
    """The encoder on every frame, and the products of its channels with each other."""
    frames, encoder = abstract_batch(config, parts)['frames'], parts['encoder']
    encode = jax.jit(encoder.of_any_size().encode).trace(frames)
    *grid, channels = jax.eval_shape(encoder.of_any_size().encode, frames).shape
    steps = -(-config.clips // config.batch_size)
    products = 2.0 * math.prod(grid) * channels**2
    return Work(
        config.clips,
        1.0,
        steps,
        config.batch_size,
        hardware.flops(encode.jaxpr) + products,
        hardware.bytes_moved(encode.jaxpr),
        8.0 * channels**2,
        encoder.net.dtype,
    )


def _clips(config) -> int:
    """Clips that the source has by itself, of which only the world is always at hand."""
    (source,) = config.data.sources
    return len(sources.open_source(source, 'train', config.data.size, config.data.clips))


def abstract_batch(config, parts: dict) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of a training config, whose frames are perhaps encoded by `parts`."""
    shape = (config.batch_size, config.data.frames, *config.data.size)
    batch = {'record': jax.ShapeDtypeStruct(shape[:1], np.int32)}
    if config.data.sources[0].startswith('encoded:'):
        stage, vae = parts['forecaster'].net, parts['vae'].net
        latents = [side // vae.factor for side in shape[2:]]
        return batch | {
            name: jax.ShapeDtypeStruct((*shape[:2], *of_frame), np.float16)
            for name, of_frame in (
                ('components', (*stage.grid, stage.components)),
                ('latents', (*latents, vae.latent_channels)),
            )
        }
    batch['frames'] = jax.ShapeDtypeStruct((*shape, 3), np.uint8)
    if config.data.labels:
        shape = (*shape[:2], *(config.data.label_size or config.data.size))
        batch |= {
            'labels': jax.ShapeDtypeStruct(shape, np.uint8),
            'depth': jax.ShapeDtypeStruct(shape, np.float32),
        }
    return batch


def abstract_parts(load: Callable[[str], ConfigDict], size: str) -> dict:
    """The frozen parts of a size, with shapes for arrays: enough to trace a step, too little to
    cost memory.

    Args:
        load: 'NAME:SIZE' → config.
        size: 'tiny' | 'small' | 'base'.
    """
    stage = load('forecaster_lowres' if size == 'base' else f'forecaster:{size}')
    encoder_config, vae_config = load(f'encoder:{size}'), load(f'autoencoder:{size}')
    key, array = jax.random.key(0), lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    encoder_net = _network(VisionTransformer, encoder_config)
    encoder = Encoder(
        params=jax.eval_shape(encoder_net.init, key, array(1, *stage.data.size, 3)),
        net=encoder_net,
    )
    channels, count = encoder_net.width * len(encoder_net.layers), stage.model.components
    principal = Principal(*[array(channels)] * 3, array(count, channels), array(count))
    net = _network(MaskedFeatureTransformer, stage)
    params = jax.eval_shape(net.init, key, array(1, net.frames - 1, *net.grid, net.components))
    vae_net = _network(AutoencoderKL, vae_config)
    vae = jax.eval_shape(vae_net.init, key, array(1, *vae_config.data.size, 3))
    return {
        'encoder': encoder,
        'principal': principal,
        'forecaster': Forecaster(params=params, net=net, encoder=encoder, principal=principal),
        'vae': Autoencoder(params=vae, net=vae_net),
    }


def _network(cls, config):
    """The network that a config describes."""
    fields = {
        name: tuple(value) if isinstance(value, (list, tuple)) else value
        for name, value in config.model.items()
    }
    return cls(**fields, dtype=config.dtype)


def describe(found: Iterable[tuple[str, Work]], mfu: float) -> str:
    """A table of recipes and what they take, with what its numbers mean."""
    cards = hardware.CARDS
    rows = []
    for name, work in found:
        made_for = 'cores' if work.dtype == 'float32' else 'cards'
        hours = [
            _rounded(work.hours(tflops, mfu)) if made_for == kind else None
            for tflops, kind in cards.values()
        ]
        rows.append(
            [
                name,
                Number(f'{work.clips:,}'),
                _rounded(work.epochs),
                Number(f'{work.steps:,}'),
                work.batch,
                _rounded(work.step_flops / 1e12),
                _rounded(work.steps * work.step_flops / 1e15),
                _rounded(work.state_bytes / 1e9),
                *hours,
            ]
        )
    header = ['', 'clips', 'epochs', 'steps', 'batch', 'TFLOP\na step', 'PFLOP\nin all']
    header += ['state\nGB', *(f'hours\n{name}' for name in cards)]
    peaks = ', '.join(f'{name} ({tflops:g} TFLOP/s)' for name, (tflops, _) in cards.items())
    about = ABOUT.format(cards=peaks, mfu=mfu)
    return f'{table(header, rows)}\n\n{textwrap.fill(about, 100)}'


def plan(
    found: Iterable[tuple[str, Work]],
    mfu: float,
    minutes: float,
    first: float,
    each: float,
    rate: float,
) -> str:
    """A table of when each of several recipes, one after the other, is trained on one H100.

    Args:
        mfu: share of the nominal peak that is reached.
        minutes: of a call; a recipe that does not fit into what is left of one begins the next.
        first: minutes that each call takes before; each: that a recipe takes beside its steps.
        rate: clips a second that the data gives.
    """
    rows, call, used, whole = [], 1, first, first
    for name, work in found:
        bounds = *work.bounds(mfu), 1e3 * work.batch / rate
        takes = work.steps * max(bounds) / 6e4 + each
        if used + takes > minutes and used > first:
            call, used, whole = call + 1, first, whole + first
        used, whole = used + takes, whole + takes
        counted = [_rounded(work.step_flops / 1e12), _rounded(work.step_bytes / 1e9)]
        rows.append([call, name, Number(f'{work.steps:,}'), work.batch, *counted])
        rows[-1] += [*map(_rounded, bounds), Number(f'{takes:.1f}'), Number(f'{used:.1f}')]
    header = ['call', '', 'steps', 'batch', 'TFLOP\na step', 'GB\na step', 'ms by\noperations']
    header += ['ms by\nbytes', 'ms by\ndata', 'minutes', 'of the\ncall']
    about = (
        f'{whole:.0f} minutes of one H100 in {call} calls: of each step the longest of its '
        f'operations at {mfu:.0%} of the nominal peak, its bytes at {hardware.H100_BANDWIDTH:g} '
        f'TB/s, and its data at {rate:g} clips a second; {each:g} minutes to start, compile and '
        f'export each; {first:g} at the beginning of each call for the data, where the last call '
        'did not leave it there'
    )
    return f'{table(header, rows)}\n\n{textwrap.fill(about, 100)}'


def _rounded(value: float) -> Number:
    """To three digits, without exponents."""
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return Number(f'{value:,.{min(digits, 4)}f}')
