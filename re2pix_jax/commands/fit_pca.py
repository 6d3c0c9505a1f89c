"""Fits the standardisation and principal components of an encoder's features in one pass, and
writes them as a bundle.

    python -m re2pix_jax fit_pca --config=configs/principal.py:tiny --out=runs/bundles/principal \
        --config.frozen.encoder=runs/bundles/encoder

Clips are split over all devices. A pass that was cut off goes on where the last minute was saved,
when the same command is given again. `explained_variance.png` in the bundle shows how much each
number of components holds.
"""

from re2pix_jax.commands import (
    cli,
)  # first: it quietens what the native libraries print while they load

# isort: split
import contextlib
import io
import json
import os
import pathlib
import time

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from tqdm import tqdm

from re2pix_jax import bundles
from re2pix_jax.data import loader
from re2pix_jax.encoder import principal
from re2pix_jax.errors import UserError
from re2pix_jax.report import curves
from re2pix_jax.training import checkpoint, mesh

CONFIG = cli.config_flag()
OUT = flags.DEFINE_string('out', None, 'folder of the bundle to write', required=True)
SAVE_SECONDS = 60


def main(argv):
    del argv
    config, out = CONFIG.value, pathlib.Path(OUT.value)
    if not config.frozen.encoder:
        raise UserError('config.frozen.encoder: expected the path of an encoder bundle, got none')
    bundles.check_place(out, 'principal')
    mesh.initialize_processes()
    devices = mesh.create(config.mesh.data, config.mesh.model)
    mesh.check_batch_size(config.batch_size, devices)
    # The grid is that of the frames: an encoder that was last used at another size does not bring
    # them back to that.
    encoder = bundles.load(config.frozen.encoder, 'encoder').replace(image_size=None)
    _check(config, encoder.net)
    run = {
        'config': checkpoint.plain(config),
        'encoder': bundles.digest(config.frozen.encoder, 'encoder'),
    }
    progress = Progress(out.with_name(out.name + '.progress.npz'), run)
    with (
        contextlib.closing(loader.create(config.data, config.batch_size, config.seed)) as clips,
        jax.set_mesh(devices),
    ):
        encoder = jax.device_put(encoder, mesh.replicated(devices))
        moments = progress.restore(clips)
        steps = -(-config.clips // config.batch_size)
        for _ in tqdm(
            range(progress.step, steps),
            desc='features',
            mininterval=5,
            initial=progress.step,
            total=steps,
        ):
            batch = mesh.global_batch({'frames': next(clips)['frames']}, devices)
            moments.update(encoder.encode(batch['frames']))
            progress.advance(moments, clips)
    fitted = principal.fit(moments, config.components)
    if jax.process_index() == 0:
        _save(out, fitted, config.frozen.encoder)
        progress.path.unlink(missing_ok=True)
        print(
            f'{moments.count} tokens: {config.components} of {len(fitted.mean)} components explain '
            f'{100 * float(fitted.variance.sum()):.1f} % of the variance; written to {out}'
        )


def _check(config, net):
    """Refuses, before the pass over the data, components that the features cannot have."""
    count, channels, clips = config.components, len(net.layers) * net.width, config.clips
    if not 1 <= count <= channels:
        raise UserError(
            f'config.components = {count}: the encoder {config.frozen.encoder} gives {channels} '
            'channels; '
            f'ask for 1 to {channels}'
        )
    if any(source.startswith('encoded:') for source in config.data.sources):
        raise UserError(
            'config.data.sources: encoded clips hold no frames, which components are fitted to; '
            'take a source of frames'
        )
    batches, grid = (
        -(-clips // config.batch_size),
        [side // net.patch_size for side in config.data.size],
    )
    tokens = max(0, batches) * config.batch_size * config.data.frames * grid[0] * grid[1]
    if tokens <= count:
        raise UserError(
            f'config.clips = {clips}: with data.frames = {config.data.frames} and a grid of '
            f'{grid[0]}x{grid[1]} they make '
            f'{tokens} tokens, and {count} components need more than {count}; take more clips or '
            'fewer components'
        )


def _save(out, fitted, encoder):
    """Writes the bundle with its plot, all of it or nothing: the plot is drawn beside it first and
    takes no more room then.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    plot = out.with_name(out.name + '.partial.png')
    try:
        curves.explained_variance(plot, np.asarray(fitted.variance))
        bundles.save(out, fitted, parts={'encoder': encoder})
        os.replace(plot, out / 'explained_variance.png')
    finally:
        plot.unlink(missing_ok=True)


class Progress:
    """Moments and the data's position in a file beside the bundle, for a pass that is cut off."""

    def __init__(self, path: pathlib.Path, run: dict):
        self.path, self.run, self.step, self.saved = path, run, 0, time.monotonic()

    def restore(self, clips) -> principal.Moments:
        """What an earlier call with the same settings gathered, and `clips` brought to where it
        stopped.

        Raises:
            UserError: the file is damaged, belongs to another pass, or not all processes see it.
        """
        moments = self._read(clips) if self.path.is_file() else principal.Moments()
        steps = (
            multihost_utils.process_allgather(np.int32(self.step))
            if jax.process_count() > 1
            else self.step
        )
        if np.any(steps != self.step):
            raise UserError(
                f'{self.path}: not seen by every process; put --out on a file system that all of '
                'them share'
            )
        return moments

    def _read(self, clips) -> principal.Moments:
        try:
            with np.load(self.path, allow_pickle=False) as state:
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

    def advance(self, moments, clips) -> None:
        """Counts a batch; once a minute, saves. Moments and position in the data are the same on
        every process: one writes.
        """
        self.step += 1
        if time.monotonic() - self.saved < SAVE_SECONDS or jax.process_index():
            return
        about = json.dumps({'run': self.run, 'step': self.step, 'data': clips.get_state()})
        buffer = io.BytesIO()
        np.savez(buffer, about=np.asarray(about), **moments.state())
        partial = self.path.with_suffix('.partial')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(buffer.getvalue())
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)
        self.saved = time.monotonic()
