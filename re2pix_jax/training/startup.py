"""What a run says of itself before its first step."""

import collections
import os

import flax
import jax
from clu import parameter_overview

from re2pix_jax import remote
from re2pix_jax.progress import counted
from re2pix_jax.training import hardware


def describe(task, config, workdir: str, mesh, state, placed: dict, clips: int | None) -> str:
    """The text: devices, what is trained, on what, with which frozen bundles, where it goes.

    Args:
      task, config, workdir: as `loop.train` takes them.
      state: TrainState, or its shapes.
      placed: from sharding.place.
      clips: of an epoch, None where the data does not say.
    """
    kinds = collections.Counter(device.device_kind for device in jax.devices())
    peak = hardware.peak_tflops(jax.devices()[0].device_kind)
    params = flax.core.unfreeze(state.params)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    held = sum(at.bytes for at in placed.values())
    data = (
        f'{counted(clips, "clip")}, {clips / config.batch_size:.4g} steps an epoch'
        if clips
        else '?'
    )
    parts = f', in {config.accumulate} parts' if config.accumulate > 1 else ''
    lines = [
        ('devices', ', '.join(f'{number} x {kind}' for kind, number in kinds.items())),
        ('nominal peak', f'{peak:.0f} TFLOP/s in bf16, each' if peak else 'not known'),
        ('processes', str(jax.process_count())),
        ('mesh', ' x '.join(f'{name} {size}' for name, size in mesh.shape.items())),
        ('trained', f'{config.task}, {count:,} parameters, computed in {config.dtype}'),
        ('state', f'{config.sharding}, {held / 1e6:.1f} MB of parameters on each device'),
        *[('kept whole', f'{path}: {at.note}') for path, at in placed.items() if at.note],
        ('data', f'{", ".join(config.data.sources)}: {data}'),
        ('length', _length(config, clips)),
        ('batch', f'{counted(config.batch_size, "clip")}{parts}'),
        *[
            (f'frozen {name}', f'{bundle["path"]} {bundle["identity"][:12]}')
            for name, bundle in task.bundles.items()
        ],
        ('written to', workdir if remote.is_remote(workdir) else os.path.abspath(workdir)),
    ]
    width = max(len(name) for name, _ in lines)
    text = '\n'.join(f'{name.ljust(width)}  {value}' for name, value in lines)
    if config.log.parameters == 0:
        return text
    overview = parameter_overview.get_parameter_overview(
        params,
        include_stats=False,
        max_lines=None if config.log.parameters < 0 else config.log.parameters,
    )
    return f'{text}\n{overview}'


def _length(config, clips: int | None) -> str:
    """Steps, and how often they see the data that there is; what to set where the config counts
    other clips.
    """
    if not clips:
        return f'{config.steps:,} steps'
    text = f'{config.steps:,} steps, {config.steps * config.batch_size / clips:.4g} epochs'
    of_epochs = config.epochs * config.epoch_clips // config.batch_size
    if of_epochs == config.steps and config.epoch_clips != clips:
        text += (
            f'; the config counts {config.epoch_clips:,} clips an epoch: with '
            f'--config.epoch_clips={clips} these are {config.epochs:,} epochs'
        )
    return text
