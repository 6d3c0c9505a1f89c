"""Fits the principal components of an encoder's features: no gradient, one pass over clips that can
be cut off.
"""

import contextlib
import io
import json
import os
import pathlib
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from re2pix_jax import bundles, files, remote
from re2pix_jax.data import loader
from re2pix_jax.encoder import principal
from re2pix_jax.errors import UserError, blaming
from re2pix_jax.progress import Progress
from re2pix_jax.report import curves
from re2pix_jax.training import checkpoint, defaults
from re2pix_jax.training import mesh as meshes

SAVE_SECONDS = 60
PLOT = 'explained_variance.png'


def fit(config, out, overwrite: bool = False) -> str:
    """Fits what `config` (configs/principal.py) describes and writes the bundle `out`; with
    `overwrite`, in the place of a bundle of components.

    Returns:
        A line that says what was found.

    Raises:
        UserError: components that the features cannot have, or a pass begun with another config.
    """
    remote.check(out)
    out = remote.address(out) if remote.is_remote(out) else pathlib.Path(out)
    defaults.check(config)
    if not config.frozen.encoder:
        raise UserError('config.frozen.encoder: expected the path of an encoder bundle, got none')
    mesh = meshes.create(**meshes.sizes(config))
    config = config.copy_and_resolve_references()
    config.batch_size = meshes.filled(config.batch_size, mesh)  # what is found hardly depends on it
    encoder = bundles.load(config.frozen.encoder, 'encoder').of_any_size()
    check(config, encoder.net)
    run = {
        'config': checkpoint.plain(config),
        'encoder': bundles.digest(config.frozen.encoder, 'encoder'),
    }
    begun = Pass(f'{out}.progress.npz', run)
    steps = -(-config.clips // config.batch_size)
    with (
        contextlib.closing(
            loader.create(config.data, config.batch_size, config.seed, share=meshes.share(mesh))
        ) as clips,
        jax.set_mesh(mesh),
    ):
        encoder = jax.device_put(encoder, meshes.replicated(mesh))
        moments = begun.restore(clips)
        progress = Progress(steps, 'features', 'step', begun.step, bool(jax.process_index()))
        with contextlib.closing(progress):
            while begun.step < steps:
                batch = meshes.global_batch({'frames': next(clips)['frames']}, mesh)
                moments.update(encoder.encode(batch['frames']))
                begun.advance(moments, clips)
                progress.add()
    with blaming('config.components or config.data'):
        fitted = principal.fit(moments, config.components)
    if jax.process_index() == 0:
        save(out, fitted, config.frozen.encoder, overwrite)
        remote.remove(begun.path)
    return (
        f'{moments.count} tokens: {config.components} of {len(fitted.mean)} components explain '
        f'{100 * float(fitted.variance.sum()):.1f} % of the variance; written to {out}'
    )


def check(config, net) -> None:
    """Refuses, before the pass over the data, components that the features cannot have."""
    count, channels, clips = config.components, len(net.layers) * net.width, config.clips
    if not 1 <= count <= channels:
        raise UserError(
            f'config.components = {count}: the encoder {config.frozen.encoder} gives {channels} '
            f'channels; ask for 1 to {channels}'
        )
    if any(source.startswith('encoded:') for source in config.data.sources):
        raise UserError(
            'config.data.sources: encoded clips hold no frames, which components are fitted to; '
            'take a source of frames'
        )
    batches = max(0, -(-clips // config.batch_size))
    rows, columns = (side // net.patch_size for side in config.data.size)
    tokens = batches * config.batch_size * config.data.frames * rows * columns
    if tokens <= count:
        raise UserError(
            f'config.clips = {clips}: with data.frames = {config.data.frames} and a grid of '
            f'{rows}x{columns} they make {tokens} tokens, and {count} components need more than '
            f'{count}; take more clips or fewer components'
        )


def save(out, fitted: principal.Principal, encoder: str, overwrite: bool = False) -> None:
    """Writes the bundle with its plot, all of it or nothing: the plot is drawn beside it first and
    takes no more room then.
    """
    if remote.is_remote(out):
        with remote.writing(remote.join(out, PLOT)) as plot:
            curves.explained_variance(plot, np.asarray(fitted.variance))
            bundles.save(out, fitted, parts={'encoder': encoder}, overwrite=overwrite)
        return
    out = pathlib.Path(out)
    plot = out.with_name(out.name + '.partial.png')
    with files.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            curves.explained_variance(plot, np.asarray(fitted.variance))
            bundles.save(out, fitted, parts={'encoder': encoder}, overwrite=overwrite)
            os.replace(plot, out / PLOT)
        finally:
            plot.unlink(missing_ok=True)


class Pass:
    """Moments and the data's position in a file beside the bundle, for a pass that is cut off."""

    def __init__(self, path: str, run: dict):
        self.path, self.run, self.step, self.saved = path, run, 0, time.monotonic()

    def restore(self, clips) -> principal.Moments:
        """What an earlier call with the same settings gathered, and `clips` brought to where it
        stopped.

        Raises:
            UserError: the file is damaged, belongs to another pass, or not all processes see it.
        """
        moments = self._read(clips) if remote.local(self.path).is_file() else principal.Moments()
        steps = np.int32(self.step)
        if jax.process_count() > 1:
            steps = multihost_utils.process_allgather(steps)
        if np.any(steps != self.step):
            raise UserError(
                f'{self.path}: not seen by every process; put --out on a file system that all of '
                'them share'
            )
        return moments

    def _read(self, clips) -> principal.Moments:
        try:
            with np.load(remote.local(self.path), allow_pickle=False) as state:
                about = json.loads(str(state['about']))
                moments = principal.Moments.from_state(state)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f'{self.path}: is damaged ({error}); remove it to start over'
            ) from error
        if about['run'] != self.run:
            raise UserError(
                f'{self.path}: belongs to a pass with another config or encoder; remove it to '
                'start over'
            )
        clips.set_state(about['data'])
        self.step = about['step']
        return moments

    def advance(self, moments: principal.Moments, clips) -> None:
        """Counts a batch; once a minute, saves. Moments and position in the data are the same on
        every process: one writes.
        """
        self.step += 1
        if time.monotonic() - self.saved < SAVE_SECONDS or jax.process_index():
            return
        about = json.dumps({'run': self.run, 'step': self.step, 'data': clips.get_state()})
        buffer = io.BytesIO()
        np.savez(buffer, about=np.asarray(about), **moments.state())
        files.write_bytes(self.path, buffer.getvalue())
        self.saved = time.monotonic()
