"""What is measured on the device, batch by batch: on true clips (once), and on the frames that each
method puts in their place.

Everything here is a jitted function of arrays that lie split over the devices along the clips; what
goes back to the host is put together from all of them. Nothing that the generator does not change
is computed again for its frames.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from re2pix_jax.evaluation.evaluators import descriptors
from re2pix_jax.evaluation.evaluators import features as feature_metrics
from re2pix_jax.evaluation.evaluators.depth import DepthErrors
from re2pix_jax.evaluation.evaluators.segmentation import Confusion
from re2pix_jax.heads import Head

READ = {'segmentation': Head.labels, 'depth': Head.depth}
TRUTH = {'segmentation': 'labels', 'depth': 'depth'}
EMPTY = {'segmentation': Confusion.create, 'depth': DepthErrors.create}


def empty(kind, horizon):
    """Scores of nothing yet, a row a step."""
    return jax.tree.map(lambda x: jnp.stack([x] * horizon), EMPTY[kind]())


def _update(scores, kind, batch, read):
    """Adds what was read in the last K frames, [B, K, H, W], or in one frame that stands for all of
    them.
    """
    truth = batch[TRUTH[kind]][:, -jax.tree.leaves(scores)[0].shape[0] :]
    read = jnp.broadcast_to(read, truth.shape)
    return jax.vmap(type(scores).update, in_axes=(0, 1, 1))(scores, truth, read)


def _read(heads, scores, batch, features):
    size = tuple(batch['frames'].shape[2:4])
    return {
        kind: _update(scores[kind], kind, batch, READ[kind](head, features, size))
        for kind, head in heads.items()
    }


def _together(tree):
    """On every device whole, so that each process may look at it."""
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def _describe(components):
    return {
        'frechet_frames': descriptors.of_frames(components[:, 1:]),
        'frechet_video': descriptors.of_videos(components),
    }


@functools.partial(jax.jit, static_argnames=('context', 'horizon', 'references'))
def observe_clips(forecaster, heads, probes, scores, batch, context, horizon, references):
    """What needs no generator: stage 1's forecast, the true frames, and the last context frame in
    their place.

    Args:
        forecaster: `Forecaster`.
        heads: {kind: `Head`}, kinds of READ.
        probes: {name: `probe.Probe`}.
        scores: {reader: {kind: scores so far}}, as `readers` names them.
        batch: 'frames' uint8 [B, M + horizon, H, W, 3], 'labels' and 'depth' [B, M + horizon, H,
            W].
        context, horizon: M and the number of future frames.
        references: whether stage 1, true frames and copy-last are measured too.

    Returns:
        (scores, {'error': {method: [B, horizon]}, method: {descriptor: ...}}, components [B, M +
        horizon, h, w, P]); of the errors none without references.
    """
    features = forecaster.encode_features(batch['frames'])
    components = forecaster.principal.project(features)
    past, truth = components[:, :context], components[:, context:]
    seen = {'truth': _describe(components[:, context - 1 :])}
    found = {
        name: {
            'segmentation': _update(
                scores[name]['segmentation'],
                'segmentation',
                batch,
                fitted.labels(features[:, context:]),
            )
        }
        for name, fitted in probes.items()
    }
    if references:
        forecast = forecaster.forecast(past, horizon)
        copied = jnp.broadcast_to(past[:, -1:], truth.shape)
        seen['error'] = {
            'forecast': feature_metrics.smooth_l1(forecast, truth),
            'copy_last': feature_metrics.smooth_l1(copied, truth),
        }
        seen['copy_last'] = _describe(jnp.concatenate([past[:, -1:], copied], axis=1))
        through = forecaster.features(components[:, context - 1 :])
        found['truth'] = _read(heads, scores['truth'], batch, through[:, 1:])
        found['copy_last'] = _read(heads, scores['copy_last'], batch, through[:, :1])
        if labels := {kind: head for kind, head in heads.items() if kind == 'segmentation'}:
            found['head'] = _read(labels, scores['head'], batch, features[:, context:])
            found['forecast'] = _read(
                labels, scores['forecast'], batch, forecaster.features(forecast)
            )
    return found, _together(seen), components


def readers(heads, probes, references):
    """{reader of `observe_clips`: kinds that it reads}."""
    of_heads = {'truth': tuple(heads), 'copy_last': tuple(heads)}
    of_labels = (
        {'head': ('segmentation',), 'forecast': ('segmentation',)}
        if 'segmentation' in heads
        else {}
    )
    return {name: ('segmentation',) for name in probes} | (
        of_heads | of_labels if references else {}
    )


@jax.jit
def observe_frames(forecaster, heads, scores, batch, frames, components):
    """What the encoder and the heads see in frames uint8 [B, K, H, W, 3] that stand for the last K
    of the batch's.

    Args:
        scores: {kind: scores so far} of this method.
        components: of the true clips, [B, M + K, h, w, P].

    Returns:
        (scores, {'feature_error': [B, K], descriptors}).
    """
    horizon = frames.shape[1]
    found = forecaster.encode(frames)
    read = _read(heads, scores, batch, forecaster.features(found)) if heads else {}
    before = components[:, -horizon - 1 : -horizon]
    error = feature_metrics.smooth_l1(found, components[:, -horizon:])
    return read, _together(
        {'feature_error': error, **_describe(jnp.concatenate([before, found], axis=1))}
    )


@jax.jit
def reconstruct(vae, frames):
    """Frames through the autoencoder and back, uint8."""
    return vae.decode(vae.encode(frames))


together = jax.jit(_together)
