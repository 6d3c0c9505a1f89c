"""Evaluates a Re2Pix model on held-out clips: every stage by itself, then the predicted frames step
by step.

Each clip has M context frames and `horizon` true future frames at the model's stride. All
comparisons are made on the same
frames:

- re2pix: the predicted frame; copy_last: the last context frame repeated; vae: the true frame
  through the VAE, the best that the decoder allows; truth: the true frame itself, which bounds what
  a head can score.
- PSNR, SSIM and LPIPS are means over frames; mIoU is taken over all pixels of a step and depth
  errors over frames: labels and depth of the true frame against what the heads read from the frozen
  encoder on the compared frame (features through the principal components, as heads are trained).
  The feature error of a compared frame is that of the encoder's features of it.
- Fréchet distances are between the set of compared frames (or videos) and that of the true ones: in
  the features of the frozen encoder always, in those of Inception (FID) and I3D (FVD) where their
  weights are given.

A clip's noise comes from the seed and its record number, so results do not depend on batch size,
order, or the number of devices and processes, up to rounding.
"""

import functools

import flax.struct
import jax
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import loader, windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import frames as measured
from re2pix_jax.evaluation.batches import whole as whole_batch
from re2pix_jax.evaluation.evaluators import probe
from re2pix_jax.evaluation.judges import Judges
from re2pix_jax.evaluation.prediction import stride_of
from re2pix_jax.evaluation.protocol import Protocol
from re2pix_jax.evaluation.tables import describe
from re2pix_jax.evaluation.totals import Totals
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.progress import track
from re2pix_jax.training import mesh as meshes

__all__ = ['FORMAT', 'Judges', 'describe', 'evaluate', 'fit_probes']

FORMAT = 2


class StageOne(flax.struct.PyTreeNode):
    """A forecaster by itself, with what a whole model would say of its frames."""

    forecaster: Forecaster
    size: tuple[int, int] = flax.struct.field(pytree_node=False)
    fps: float = flax.struct.field(pytree_node=False)
    context_frames: int = flax.struct.field(pytree_node=False)


def evaluate(model, config, judges: Judges | None = None):
    """All numbers of a model, or of a forecaster by itself.

    Args:
        model: `pipeline.Re2Pix`, whose mIoUs are left out without a head, or a `Forecaster`, of
            which only its encoder's probes and its own errors are given.
        config: as configs/evaluate.py makes it.
        judges: what measures frames beside the model's own parts; None: those that the config
            names.

    Returns:
        JSON-able dict {'format', 'protocol', 'vae', 'encoder', 'head', 'forecaster', 'steps',
        'distances', 'warnings', 'left_out'}; see `describe` for how it reads. Without
        config.references what no generator changes is left out: 'vae', 'forecaster', the head's
        scores on true features and the methods but re2pix.

    Raises:
        UserError: clips that can't be read, are too few or too short, or settings out of range.
    """
    whole = not isinstance(model, Forecaster)
    if not whole:
        patch = model.encoder.net.patch_size
        size = tuple(side * patch for side in model.net.grid)
        model = StageOne(model, size, windows.BASE_FPS / windows.STRIDE, model.net.frames - 1)
    _check(model, config)
    mesh = meshes.create(config.mesh.data, config.mesh.model)
    meshes.check_batch_size(config.batch_size, mesh)
    judges = (Judges.load(config) if judges is None else judges) if whole else Judges()
    judges = judges.fitting(model, config)
    batches = loader.create(
        data(model, config, config.split, config.clips, model.context_frames + config.horizon),
        config.batch_size,
        config.seed,
        training=False,
    )
    try:
        clips = min(config.clips, batches.clips)
        if not clips:
            raise UserError(f'{config.source}: split {config.split} holds no clips to evaluate')
        probes = fit_probes(model, config)
        with jax.set_mesh(mesh):
            placed = jax.device_put((model, judges, probes), meshes.replicated(mesh))
            totals = _observe(*placed, batches, clips, config, mesh, whole)
    finally:
        batches.close()
    protocol = Protocol(
        source=config.source,
        split=config.split,
        clips=clips,
        start_frame=config.start,
        stride=stride_of(model),
        fps=model.fps,
        size=list(model.size),
        context_frames=model.context_frames,
        horizon=config.horizon,
        sampler=config.sampler,
        sampler_steps=_steps(model, config),
        guidance=config.guidance,
        guidance_channels=config.guidance_channels,
        channels=config.channels,
        seed=config.seed,
        probe=dict(config.probe) | {'split': 'train'},
        features=judges.features(model, config, totals.true_moments()) if whole else {},
    )
    return {'format': FORMAT, 'protocol': protocol.to_dict()} | totals.report(
        model.fps, whole, judges.left_out
    )


def _observe(model, judges, probes, batches, clips, config, mesh, whole):
    """`Totals` over the clips."""
    heads, references = judges.heads, config.references or not whole
    totals = Totals(config.horizon)
    scores = {
        name: {kind: measured.empty(kind, config.horizon) for kind in kinds}
        for name, kinds in measured.readers(heads, probes, references).items()
    }
    frame_scores = {
        method: {kind: measured.empty(kind, config.horizon) for kind in heads}
        for method in ('re2pix', 'vae')
    }
    context = model.context_frames
    numbered = zip(batches, range(0, clips, config.batch_size))
    for local, first in track(
        numbered, clips, 'evaluate', size=lambda item: min(config.batch_size, clips - item[1])
    ):
        batch = meshes.global_batch(whole_batch(local, config.batch_size, first, clips), mesh)
        scores, seen, components = measured.observe_clips(
            model.forecaster, heads, probes, scores, batch, context, config.horizon, references
        )
        if whole:
            past, truth = batch['frames'][:, :context], batch['frames'][:, context:]
            compared = {
                're2pix': model.rollout(
                    past,
                    keys(config.seed, batch['record']),
                    config.horizon,
                    **options(model, config),
                )['frames']
            }
            if references:
                reconstructed = measured.reconstruct(model.vae, batch['frames'])
                compared['vae'] = reconstructed[:, context:]
            for method, frames in compared.items():
                frame_scores[method], found = measured.observe_frames(
                    model.forecaster, heads, frame_scores[method], batch, frames, components
                )
                seen[method] = found
            if references:
                compared['copy_last'] = past[:, -1:]
            for method, frames in {**compared, 'truth': truth}.items():
                seen[method] = seen[method] | judges.describe(past, frames, truth)
            shown = {'clips': batch['frames'], **compared}
            if references:
                shown['reconstructed'] = reconstructed
            seen['frames'] = measured.together(shown)
        totals.add(
            jax.device_get(seen),
            np.asarray(jax.device_get(measured.together(batch['known']))),
            context,
        )
    totals.scores = scores | (frame_scores if whole else {})
    return totals


@jax.jit
def keys(seed, records):
    """A key a clip: the seed's, folded with the record's number."""
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(
        records.astype(np.uint32)
    )


def options(model, config) -> dict:
    """What of a roll-out the config sets."""
    return {
        'guidance': config.guidance,
        'guidance_channels': config.guidance_channels,
        'channels': config.channels or None,
        'sampler': config.sampler,
        'sampler_steps': _steps(model, config),
    }


def _steps(model, config):
    return config.sampler_steps or getattr(model, 'sampler_steps', 0)


def _check(model, config):
    for name in ('clips', 'horizon', 'batch_size', 'guidance_channels'):
        if config[name] < 1:
            raise UserError(f'config.{name} = {config[name]}: expected at least 1')
    for name in ('guidance', 'sampler_steps', 'channels'):
        if config[name] < 0:
            raise UserError(f'config.{name} = {config[name]}: expected none below 0')
    if config.probe.clips < 0 or (
        config.probe.clips and min(config.probe.steps, config.probe.batch_size) < 1
    ):
        raise UserError(
            f'config.probe = {dict(config.probe)}: expected at least 1 step and 1 frame a batch, '
            'and no negative clips'
        )
    stride_of(model)


def data(model, config, split, clips, frames):
    """The loader's fields for fixed windows at the model's size and stride."""
    return ConfigDict(
        {
            'sources': (config.source,),
            'weights': (1.0,),
            'split': split,
            'size': tuple(model.size),
            'frames': frames,
            'strides': (stride_of(model),),
            'clips': clips,
            'start': config.start,
            'workers': config.workers,
        }
    )


def fit_probes(model, config):
    """{'probe_' + kind: `probe.Probe`} fitted to the frozen encoder on single frames of as many
    clips of the train split; {} for none. Every process reads them all.
    """
    if not config.probe.clips:
        return {}
    batches = loader.create(
        data(model, config, 'train', config.probe.clips, 1),
        config.batch_size,
        config.seed,
        training=False,
        process=(0, 1),
    )
    features, labels = [], []
    try:
        clips = min(config.probe.clips, batches.clips)
        numbered = zip(batches, range(0, clips, config.batch_size))
        for batch, first in track(
            numbered,
            clips,
            'probe: features',
            size=lambda item: min(config.batch_size, clips - item[1]),
        ):
            known = min(len(batch['record']), clips - first)
            rows = np.minimum(
                np.arange(config.batch_size), known - 1
            )  # of one length, so that the last batch compiles nothing anew
            encoded = model.forecaster.encode_features(batch['frames'][rows])
            features.append(np.asarray(encoded[:known, 0], np.float32))
            labels.append(batch['labels'][:known, 0])
    finally:
        batches.close()
    if not features:
        raise UserError(
            f'{config.source}: split train holds no clips to fit the probe on; set '
            'config.probe.clips=0 to go without'
        )
    features, labels = np.concatenate(features), np.concatenate(labels)
    if (labels == IGNORE).all():
        return {}
    return {
        f'probe_{kind}': probe.fit(
            features,
            labels,
            kind,
            seed=config.seed,
            steps=config.probe.steps,
            batch_size=config.probe.batch_size,
        )
        for kind in probe.KINDS
        if kind != 'subpixel'
        or not any(a % b for a, b in zip(labels.shape[1:], features.shape[1:3]))
    }
