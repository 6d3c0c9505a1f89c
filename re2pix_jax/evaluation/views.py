"""What every method puts in the place of the future frames of a batch, computed when asked for.

- re2pix: the predicted frames; copy_last: the last context frame; vae: the true frames through the
  VAE, the best that the decoder allows; truth: the true frames, what heads can score at best.
- oracle: the predicted frames, had stage 1 forecast the true components: what stage 2 can do.
- forecast: stage 1's components, without frames; encoder: the true frames' features as they are,
  not through the principal components as all others'.
- mean_map: one map of components for all clips and times, their mean over the split; only where an
  evaluator has measured it (`evaluators.components`).

What no evaluator asks for is never computed, and nothing twice: all of it is traced together.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.model import Re2Pix
from re2pix_jax.vae import Autoencoder

TITLES = {
    're2pix': 'Re2Pix',
    'oracle': 'oracle',
    'copy_last': 'copy',
    'vae': 'VAE',
    'truth': 'truth',
    'forecast': 'stage 1',
    'mean_map': 'mean map',
    'encoder': 'encoder',
}
FRAMES_AT_ONCE = 16
"""How many frames of a clip the encoder and the VAE are given together: memory does not grow with
the horizon.
"""


class View:
    """Arrays [B, K, ...] of K future frames, or of one that stands for all of them.

    Attributes:
        frames: uint8 [B, K, H, W, 3]; all_frames: with the context before them.
        components: float [B, K, h, w, P]; features: float [B, K, h, w, C].
        latents: float [B, K, h, w, c].
    """

    def __init__(self, forecaster=None, **given):
        """`given`: functions without arguments, by the name of what they give; components follow
        from frames and features from components by the `forecaster`'s own networks.
        """
        self._forecaster, self._given = forecaster, given

    def another(self, **given) -> 'View':
        """A view of something else by the same networks."""
        return View(self._forecaster, **given)

    def __getattr__(self, name):
        if name.startswith('_') or name not in (
            'frames',
            'all_frames',
            'components',
            'features',
            'latents',
        ):
            raise AttributeError(name)
        if name in self._given:
            value = self._given[name]()
        elif name == 'components':
            value = by_frames(self._forecaster.encode, self.frames)
        elif name == 'features':
            value = self._forecaster.features(self.components)
        else:
            raise AttributeError(f'{name} of this view: only {", ".join(self._given)} are there')
        setattr(self, name, value)
        return value


def by_frames(function, clips):
    """`function` of clips [B, T, ...], some frames at a time."""
    time = clips.shape[1]
    if time <= FRAMES_AT_ONCE:
        return function(clips)
    parts = -(-time // FRAMES_AT_ONCE)
    padding = [(0, 0), (0, parts * FRAMES_AT_ONCE - time)] + [(0, 0)] * (clips.ndim - 2)
    padded = jnp.pad(clips, padding, mode='edge')
    padded = padded.reshape(len(clips), parts, FRAMES_AT_ONCE, *clips.shape[2:])
    found = jnp.moveaxis(jax.lax.map(function, jnp.moveaxis(padded, 1, 0)), 0, 1)
    return found.reshape(len(clips), -1, *found.shape[3:])[:, :time]


def context_of(part) -> int:
    """How many frames a part is given before those it predicts; 0 where it predicts none."""
    if isinstance(part, Re2Pix):
        return part.context_frames
    return part.net.frames - 1 if hasattr(part, 'forecast') else 0


def keys(seed: int, records):
    """A key a clip: the seed's, folded with the record's number, so that a clip's noise depends on
    neither batch nor order.
    """
    fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
    return jax.vmap(fold)(jnp.asarray(records).astype(np.uint32))


def views_of(part, batch: dict, horizon: int, last: bool, sampling: dict, seed: int) -> dict:
    """{method: View} of an evaluated part, and 'context'.

    Args:
        part: a Re2Pix model, a Forecaster, an Autoencoder, an Encoder, or of a head that trains
            {'head', 'encoder', 'principal'}.
        batch: 'frames' uint8 [B, M + K, H, W, 3], or encoded 'components' and 'latents'.
        horizon: frames to forecast. With `last` the batch holds only the last of them (K = 1).
        sampling: options of `Re2Pix.rollout`; seed: of its noise.
    """
    context = context_of(part)
    if isinstance(part, Autoencoder):
        return _of_autoencoder(part, batch)
    if not context:
        return _of_features(part, batch)
    forecaster = getattr(part, 'forecaster', part)
    take = (lambda x: x[:, -1:]) if last else (lambda x: x)
    true = _true(forecaster, getattr(part, 'vae', None), batch)
    past = View(forecaster, **{name: _cut(true, name, slice(None, context)) for name in true})
    truth = View(forecaster, **{name: _cut(true, name, slice(context, None)) for name in true})
    copied = View(
        forecaster, **{name: _cut(true, name, slice(context - 1, context)) for name in true}
    )
    found = {'context': past, 'truth': truth, 'copy_last': copied}
    if 'frames' in batch:
        raw = functools.cache(lambda: by_frames(forecaster.encode_features, batch['frames']))
        found['encoder'] = View(features=lambda: raw()[:, context:])
    if isinstance(part, Re2Pix):
        roll = functools.cache(
            lambda known: part.rollout_encoded(
                past.components,
                past.latents,
                keys(seed, batch['record']),
                horizon,
                future_components=truth.components if known else None,
                **sampling,
            )
        )
        rolled = functools.partial(roll, known=False)
        found['re2pix'] = _predicted(forecaster, rolled, take)
        if part.generator.net.components and not last:  # what lies before the last is not known
            found['oracle'] = _predicted(forecaster, functools.partial(roll, known=True), take)
        forecast = lambda: take(rolled()['components'])
        if 'frames' in batch:
            decoded = functools.cache(lambda: by_frames(part.vae.decode, true['latents']()))
            found['vae'] = View(
                forecaster, frames=lambda: decoded()[:, context:], all_frames=decoded
            )
    else:
        forecast = lambda: take(forecaster.forecast(past.components, horizon))
    return found | {'forecast': View(forecaster, components=forecast)}


def _predicted(forecaster, rolled, take) -> View:
    return View(
        forecaster,
        frames=lambda: take(rolled()['frames']),
        latents=lambda: take(rolled()['latents']),
    )


def _true(forecaster, vae, batch) -> dict:
    """Functions that give what is known of all frames of a batch, each computed once."""
    found = {}
    if 'frames' in batch:
        found['frames'] = lambda: batch['frames']
        found['components'] = lambda: by_frames(forecaster.encode, batch['frames'])
        if vae is not None:
            found['latents'] = lambda: by_frames(vae.encode, batch['frames'])
    else:  # encoded clips
        for name in ('components', 'latents'):
            if name in batch:
                found[name] = lambda name=name: batch[name].astype(jnp.float32)
    return {name: functools.cache(function) for name, function in found.items()}


def _cut(true, name, frames):
    return lambda: true[name]()[:, frames]


def _of_autoencoder(part, batch) -> dict:
    decoded = functools.cache(lambda: part.decode(part.encode(batch['frames'])))
    return {
        'truth': View(frames=lambda: batch['frames']),
        'vae': View(frames=decoded, all_frames=decoded),
    }


def _of_features(part, batch) -> dict:
    """Of an encoder by itself; and through the principal components, where there are some."""
    encoder = part['encoder'] if isinstance(part, dict) else part
    raw = functools.cache(lambda: encoder.of_any_size().encode(batch['frames']))
    found = {'encoder': View(features=raw)}
    if isinstance(part, dict):
        principal = part['principal']
        found['truth'] = View(features=lambda: principal.reconstruct(principal.project(raw())))
    return found
