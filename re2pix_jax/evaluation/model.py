"""Evaluates a Re2Pix model on held-out clips: every stage by itself, then the predicted frames step by step.

Each clip has M context frames and `horizon` true future frames at the model's stride. All comparisons are made on the
same frames:

- re2pix: the predicted frame; copy_last: the last context frame repeated; vae: the true frame through the VAE, the best
  that the decoder allows; truth: the true frame itself, which bounds what the head can score.
- PSNR and SSIM are means over frames; mIoU is taken over all pixels of a step, labels of the true frame against what
  the head reads from the frozen encoder on the compared frame (features through the principal components, as the head
  was trained).

A clip's noise comes from the seed and its record number, so results do not depend on batch size or order, up to
rounding.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax.clips import loader, sampling
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.metrics import features as feature_metrics
from re2pix_jax.metrics import image, probe, segmentation
from re2pix_jax.prediction import stride_of
from re2pix_jax.report import table
from re2pix_jax.report.progress import track

FORMAT = 1
METHODS = ('re2pix', 'copy_last', 'vae')


class StageOne(flax.struct.PyTreeNode):
    """A forecaster by itself, with what a whole model would say of its frames."""

    forecaster: Forecaster
    size: tuple[int, int] = flax.struct.field(pytree_node=False)
    fps: float = flax.struct.field(pytree_node=False)
    context_frames: int = flax.struct.field(pytree_node=False)


def evaluate(model, config):
    """All numbers of a model, or of a forecaster by itself.

    Args:
        model: `pipeline.Re2Pix`, whose mIoUs are left out without a head, or a `Forecaster`, of which only its encoder's
            probes and its own errors are given.
        config: as configs/evaluate.py makes it: clips, horizon, split, source, start, batch_size, workers, seed,
            guidance, sampler_steps (0 = the model's), probe {clips, steps, batch_size} (0 clips = no probe).

    Returns:
        JSON-able dict {'format', 'protocol', 'vae', 'encoder', 'head', 'forecaster', 'steps'}; see `describe` for how
        it reads.

    Raises:
        UserError: clips that can't be read, are too few or too short, or settings out of range.
    """
    whole = not isinstance(model, Forecaster)
    if not whole:
        patch = model.encoder.net.patch_size
        size = tuple(side * patch for side in model.net.grid)
        model = StageOne(model, size, sampling.BASE_FPS / sampling.STRIDE, model.net.frames - 1)
    _check(model, config)
    sampler_steps = config.sampler_steps or (model.sampler_steps if whole else 0)
    probes = fit_probes(model, config)
    totals = _Totals(config.horizon)
    batches = loader.create(
        _data(model, config, config.split, config.clips, model.context_frames + config.horizon),
        config.batch_size,
        config.seed,
        training=False,
    )
    batches = _first(batches, config.clips)
    size = lambda batch: len(batch['record'])
    for batch in track(batches, config.clips, 'evaluate', size=size):
        clips, labels, record = (_pad(batch[name], config.batch_size) for name in ('frames', 'labels', 'record'))
        labels[len(batch['record']) :] = segmentation.IGNORE
        seen = _observe_features(model, probes, clips, config.horizon)
        if whole:
            keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(config.seed)))(record.astype(np.uint32))
            frames = _observe_frames(model, clips, keys, config.horizon, config.guidance, sampler_steps)
            seen = {name: seen[name] | frames[name] for name in seen} | {'frames': frames['frames']}
        totals.add(clips, labels, seen, len(batch['record']))
    if not totals.clips:
        raise UserError(f'{config.source}: split {config.split} holds no clips to evaluate')
    protocol = {
        'source': config.source,
        'split': config.split,
        'clips': totals.clips,
        'start_frame': config.start,
        'stride': stride_of(model),
        'fps': model.fps,
        'size': list(model.size),
        'context_frames': model.context_frames,
        'horizon': config.horizon,
        'sampler_steps': sampler_steps,
        'guidance': config.guidance,
        'seed': config.seed,
        'probe': dict(config.probe) | {'split': 'train'},
    }
    return {'format': FORMAT, 'protocol': protocol} | totals.report(model.fps, whole)


def _check(model, config):
    for name in ('clips', 'horizon', 'batch_size'):
        if config[name] < 1:
            raise UserError(f'config.{name} = {config[name]}: expected at least 1')
    if config.guidance < 0 or config.sampler_steps < 0:
        raise UserError(
            f'config.guidance = {config.guidance}, config.sampler_steps = {config.sampler_steps}: expected none below 0'
        )
    if config.probe.clips < 0 or (config.probe.clips and min(config.probe.steps, config.probe.batch_size) < 1):
        raise UserError(
            f'config.probe = {dict(config.probe)}: expected at least 1 step and 1 frame a batch, and no negative clips'
        )
    stride_of(model)


def _data(model, config, split, clips, frames):
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


def _first(batches, clips):
    """The first `clips` clips of a loader, which is closed at the end."""
    try:
        left = clips
        while left > 0 and (batch := next(batches, None)) is not None:
            yield {name: values[:left] for name, values in batch.items()}
            left -= len(batch['record'])
    finally:
        batches.close()


def _pad(values, length):
    """Repeats the last clip up to `length` clips, so that the last batch compiles nothing anew."""
    values = np.asarray(values)
    return np.concatenate([values, np.repeat(values[-1:], length - len(values), axis=0)])


def fit_probes(model, config):
    """{kind: `probe.Probe`} fitted to the frozen encoder on single frames of as many clips of the train split; {} for
    none."""
    if not config.probe.clips:
        return {}
    batches = loader.create(
        _data(model, config, 'train', config.probe.clips, 1), config.batch_size, config.seed, training=False
    )
    batches = track(
        _first(batches, config.probe.clips),
        config.probe.clips,
        'probe: features',
        size=lambda batch: len(batch['record']),
    )
    features, labels = [], []
    for batch in batches:
        encoded = model.forecaster.encoder.encode(_pad(batch['frames'], config.batch_size))
        features.append(np.asarray(encoded[: len(batch['record']), 0], np.float32))
        labels.append(batch['labels'][:, 0])
    if not features:
        raise UserError(
            f'{config.source}: split train holds no clips to fit the probe on; set config.probe.clips=0 to go without'
        )
    features, labels = np.concatenate(features), np.concatenate(labels)
    if (labels == segmentation.IGNORE).all():
        return {}
    return {
        kind: probe.fit(
            features, labels, kind, seed=config.seed, steps=config.probe.steps, batch_size=config.probe.batch_size
        )
        for kind in probe.KINDS
        if kind != 'subpixel' or not any(a % b for a, b in zip(labels.shape[1:], features.shape[1:3]))
    }


@functools.partial(jax.jit, static_argnames='horizon')
def _observe_features(model, probes, clips, horizon):
    """What stage 1 makes of clips uint8 [B, M + horizon, H, W, 3]: feature errors, and the labels that each reader of
    features sees."""
    context = model.context_frames
    forecaster = model.forecaster
    features = forecaster.encoder.encode(clips)
    components = forecaster.principal.project(features)
    forecast = forecaster.forecast(components[:, :context], horizon)
    copied = jnp.broadcast_to(components[:, context - 1 : context], components[:, context:].shape)
    error = {
        're2pix': feature_metrics.smooth_l1(forecast, components[:, context:]),
        'copy_last': feature_metrics.smooth_l1(copied, components[:, context:]),
    }
    guessed = {f'probe_{kind}': fitted.labels(features[:, context:]) for kind, fitted in probes.items()}
    if getattr(model, 'head', None) is not None:
        read = lambda values: model.head.labels(values, tuple(clips.shape[2:4]))
        true = read(forecaster.features(components[:, context - 1 :]))
        guessed |= {
            'truth': true[:, 1:],
            'copy_last': jnp.broadcast_to(true[:, :1], true[:, 1:].shape),
            'head': read(features[:, context:]),
            'forecast': read(forecaster.features(forecast)),
        }
    return {'error': error, 'guessed': guessed}


@functools.partial(jax.jit, static_argnames=('horizon', 'guidance', 'sampler_steps'))
def _observe_frames(model, clips, keys, horizon, guidance, sampler_steps):
    """What the whole model makes of the clips: predicted and reconstructed frames, and the labels that the head reads in
    them."""
    context = model.context_frames
    predicted = model.rollout(clips[:, :context], keys, horizon, guidance=guidance, sampler_steps=sampler_steps)['frames']
    reconstructed = model.vae.decode(model.vae.encode(clips))
    vae = reconstructed[:, context:]
    truth = model.forecaster.encode(clips[:, context:])
    error = {'vae': feature_metrics.smooth_l1(model.forecaster.encode(vae), truth)}
    guessed = {'re2pix': model.segment(predicted), 'vae': model.segment(vae)} if model.head is not None else {}
    return {'frames': {'re2pix': predicted, 'vae': reconstructed}, 'error': error, 'guessed': guessed}


_count = jax.jit(jax.vmap(segmentation.Confusion.update, in_axes=(0, 1, 1)))


class _Totals:
    """Sums over clips: image metrics and feature errors a clip and step, confusion matrices a step."""

    def __init__(self, horizon):
        self.horizon, self.clips = horizon, 0
        self.values = {}
        self.confusions = {}

    def add(self, clips, labels, seen, count):
        """`count` of the clips are real, the rest is padding, whose labels are all ignored."""
        context = clips.shape[1] - self.horizon
        if 'frames' in seen:
            future = clips[:count, context:]
            frames, reconstructed = (np.asarray(seen['frames'][name])[:count] for name in ('re2pix', 'vae'))
            copied = np.broadcast_to(clips[:count, context - 1 : context], future.shape)
            for method, compared in zip(METHODS, (frames, copied, reconstructed[:, context:]), strict=True):
                self._append(method, 'psnr', image.psnr(compared, future))
                self._append(method, 'ssim', image.ssim(compared, future))
            self._append('all', 'psnr', image.psnr(reconstructed, clips[:count]))
        for method, error in seen['error'].items():
            self._append(method, 'feature_error', np.asarray(error)[:count])
        for name, guessed in seen['guessed'].items():
            empty = jax.tree.map(lambda x: jnp.stack([x] * self.horizon), segmentation.Confusion.create())
            self.confusions[name] = _count(self.confusions.get(name, empty), labels[:, context:], guessed)
        self.clips += count

    def _append(self, method, metric, values):
        self.values.setdefault((method, metric), []).append(np.asarray(values, np.float64))

    def _step(self, method, metric, step):
        return float(np.concatenate([values[:, step] for values in self.values[method, metric]]).mean())

    def _scores(self, name, step=None):
        """Scores of one step or, over all steps together, of the whole set; None where no frame had labels."""
        if name not in self.confusions:
            return None
        parts = [jax.tree.map(lambda x, k=k: x[k], self.confusions[name]) for k in range(self.horizon)]
        whole = parts[step] if step is not None else functools.reduce(segmentation.Confusion.merge, parts)
        return whole.scores().to_dict() if whole.counts().any() else None

    def report(self, fps, whole):
        """The sections of `evaluate`'s result; of a forecaster by itself only those of stage 1."""
        report = {
            'encoder': {f'probe_{kind}': self._scores(f'probe_{kind}') for kind in probe.KINDS},
            'head': {'true_features': self._scores('head'), 'true_principal_features': self._scores('truth')},
            'forecaster': {'steps': [self._forecaster_row(step) for step in range(self.horizon)]},
        }
        if whole:
            psnr = np.concatenate([values.ravel() for values in self.values['all', 'psnr']])
            report['vae'] = {'reconstruction_psnr': float(psnr.mean()), 'frames': int(psnr.size)}
            report['steps'] = [self._frames_row(step, fps) for step in range(self.horizon)]
        return report

    def _forecaster_row(self, step):
        ours, copy = (self._step(method, 'feature_error', step) for method in ('re2pix', 'copy_last'))
        scores = self._scores('forecast', step) or {}
        return {
            'step': step + 1,
            'smooth_l1': ours,
            'copy_last': copy,
            'ratio': ours / copy if copy else None,
            'miou': scores.get('miou'),
            'moving_miou': scores.get('moving_miou'),
        }

    def _frames_row(self, step, fps):
        row = {'step': step + 1, 'seconds': (step + 1) / fps}
        for method in (*METHODS, 'truth'):
            scores = self._scores(method, step) or {}
            row[method] = {metric: self._step(method, metric, step) for name, metric in self.values if name == method}
            row[method] |= {name: scores[name] for name in ('miou', 'moving_miou') if name in scores}
        return row


def describe(report):
    """A report as text: the protocol, each stage by itself, then the table of steps."""
    protocol = report['protocol']
    height, width = protocol['size']

    def percent(scores, name='miou'):
        return f'{100 * scores[name]:.1f}' if scores and scores[name] is not None else '-'

    heading = (
        f'{report.get("model", "model")} on {protocol["clips"]} clips of {protocol["source"]}, split '
        f'{protocol["split"]}: {protocol["context_frames"]} context and {protocol["horizon"]} future frames at stride '
        f'{protocol["stride"]} ({protocol["fps"]:.3g} frames per second), {height}x{width} pixels, from frame '
        f'{protocol["start_frame"]} on; {protocol["sampler_steps"]} sampler steps, guidance {protocol["guidance"]:g}, '
        f'seed {protocol["seed"]}'
    )
    stages = []
    if vae := report.get('vae'):
        stages.append(['VAE', f'PSNR of reconstruction ({vae["frames"]} frames)', f'{vae["reconstruction_psnr"]:.2f} dB'])
    for kind, how in (('bilinear', 'logits a patch, upsampled'), ('subpixel', 'logits a pixel of the patch')):
        if scores := report['encoder'][f'probe_{kind}']:
            stages.append(['encoder', f'mIoU of linear probe, {how}', f'{percent(scores)} %'])
    for name, how in (('true_features', ''), ('true_principal_features', ' through the PCA')):
        if scores := report['head'][name]:
            value = f'{percent(scores)} % ({percent(scores, "moving_miou")} %)'
            stages.append(['head', f'mIoU (moving) on true features{how}', value])
    forecaster = report['forecaster']['steps']
    read = ('miou', 'moving_miou') if forecaster[0]['miou'] is not None else ()
    rows = [
        [row[name] for name in ('step', 'smooth_l1', 'copy_last', 'ratio')]
        + [table.Number(percent(row, name)) for name in read]
        for row in forecaster
    ]
    header = ['step', 'forecast', 'copy last', 'ratio', *(table.METRICS[name] for name in read)]
    blocks = [
        heading,
        table.table(['stage', 'measure', 'value'], stages),
        'Stage 1: SmoothL1 on principal components, beta 0.1\n' + table.table(header, rows),
    ]
    if 'steps' in report:
        blocks += ['Predicted frames\n' + table.horizon_table(report['steps']), table.LEGEND]
    return '\n\n'.join(blocks)
