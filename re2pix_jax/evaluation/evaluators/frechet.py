"""The Fréchet distance between two sets of features: that between the Gaussians which share their
means and covariances.

    d² = |m₁ - m₂|² + tr S₁ + tr S₂ - 2 tr √(S₁ S₂)

FID and FVD are this number of the features of Inception and of I3D. As in pytorch-fid it is d² that
is reported, and a covariance divides by n - 1. Everything is float64 on the host, and independent
of how the set was cut into batches up to rounding.
"""

import functools

import jax.numpy as jnp
import numpy as np

from re2pix_jax import bundles
from re2pix_jax.errors import UserError, blaming
from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.evaluators import descriptors
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator
from re2pix_jax.evaluation.networks import i3d, inception
from re2pix_jax.evaluation.networks.random3d import Random3D


class Sets(list):
    """The `Moments` of every place; features: of the batches, [B, places, D] each, where they are
    kept.
    """

    def __init__(self, places: int):
        super().__init__(Moments() for _ in range(places))
        self.features = []


class Moments:
    """Count, mean and scatter of features, gathered batch by batch in memory that does not grow
    with their number.

    Batches join by the pairwise update (Chan et al.), about the means themselves, so nothing large
    cancels.
    """

    def __init__(self):
        self.count, self.mean, self.scatter = 0, None, None

    def update(self, features) -> 'Moments':
        """Adds features [..., D] of any leading shape; returns itself.

        Raises:
            UserError: one is not finite, or they are not as many as those before.
        """
        features = np.asarray(features, np.float64)
        features = features.reshape(-1, features.shape[-1])
        if not np.isfinite(features).all():
            raise UserError(
                'features for a Fréchet distance hold NaN or infinite values: check the network '
                'and the frames it was given'
            )
        if len(features) == 0:
            return self
        batch, mean = Moments(), features.mean(axis=0)
        batch.count, batch.mean, batch.scatter = (
            len(features),
            mean,
            (features - mean).T @ (features - mean),
        )
        return self.merge(batch)

    def merge(self, other: 'Moments') -> 'Moments':
        """Adds what another has gathered, e.g. of another process; returns itself."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.mean, self.scatter = (
                other.count,
                other.mean.copy(),
                other.scatter.copy(),
            )
            return self
        if len(self.mean) != len(other.mean):
            raise UserError(
                f'features of {len(other.mean)} dimensions cannot join features of {len(self.mean)}'
            )
        count, move = self.count + other.count, other.mean - self.mean
        self.scatter = (
            self.scatter + other.scatter + np.outer(move, move) * (self.count * other.count / count)
        )
        self.mean = self.mean + move * (other.count / count)
        self.count = count
        return self

    def gaussian(self) -> 'Gaussian':
        """The Gaussian of the same mean and (unbiased) covariance.

        Raises:
            UserError: of fewer than two features, which have no covariance.
        """
        if self.count < 2:
            raise UserError(
                f'a Fréchet distance needs at least 2 samples a set and got {self.count}: evaluate '
                'more clips'
            )
        return Gaussian(self.mean, self.scatter / (self.count - 1), self.count)


class Gaussian:
    """A mean [D] and a covariance [D, D], and how many samples they are of (None: they are
    exact).
    """

    def __init__(self, mean, covariance, count: int | None = None):
        self.mean, self.covariance, self.count = (
            np.asarray(mean, np.float64),
            np.asarray(covariance, np.float64),
            count,
        )

    @functools.cached_property
    def root(self) -> np.ndarray:
        """A [D, r] with A Aᵀ = covariance, r its numerical rank: fewer samples than dimensions make
        it thin, not unstable.
        """
        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
        return vectors[:, kept] * np.sqrt(values[kept])

    @property
    def shortage(self) -> str | None:
        """What to warn of: fewer samples than a covariance of full rank takes; None where there are
        enough.
        """
        dimensions = len(self.mean)
        if self.count is None or self.count > dimensions:
            return None
        return (
            f'{self.count} samples of {dimensions} dimensions have a singular covariance: the '
            'distance is taken between what there is of it, and is only comparable at this count; '
            f'at least {dimensions + 1} samples are needed'
        )


def distance(one: Gaussian, other: Gaussian) -> float:
    """The squared Fréchet distance; exactly 0 at the least.

    tr √(S₁ S₂) is the sum of the singular values of A₁ᵀ A₂, where Aᵢ Aᵢᵀ = Sᵢ: those are the roots
    of the eigenvalues of the symmetric product A₁ᵀ S₂ A₁, found without squaring. A matrix root of
    S₁ S₂, which is not symmetric, loses half of the digits where a covariance is singular, and may
    come out complex.

    Raises:
        UserError: the two have other numbers of dimensions.
    """
    if one.mean.shape != other.mean.shape:
        raise UserError(
            f'a Fréchet distance between features of {len(one.mean)} and of {len(other.mean)} '
            'dimensions: give both sets to one network'
        )
    product = one.root.T @ other.root
    cross = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    move = one.mean - other.mean
    return max(
        0.0, float(move @ move + np.trace(one.covariance) + np.trace(other.covariance) - 2 * cross)
    )


class Frechet(Evaluator):
    """The distance between the set of a method's frames, or videos, and that of the true ones.

    Option `of`: 'frames' and 'video' describe them by the model's own encoder and are always to be
    had; 'inception' is FID, 'i3d' is FVD and 'judge' is that of a network of our own, of the bundle
    that option `network` names; 'random3d' is that of the random kernels of option `seed`.
    """

    OF = {
        'frames': Column('frechet_frames', 'Fréchet frames'),
        'video': Column('frechet_video', 'Fréchet video'),
        'inception': Column('fid', 'FID'),
        'i3d': Column('fvd', 'FVD'),
        'judge': Column('frechet_judge', 'Fréchet judge'),
        'random3d': Column('frechet_random3d', 'Fréchet random 3-D'),
    }
    BUNDLES = ('inception', 'i3d', 'judge')
    BY_WINDOW = ('video', 'judge', 'random3d')
    COLUMNS = tuple(OF.values())
    METHODS = ('re2pix', 'copy_last', 'vae', 'truth')
    OPTIONS = {'of': 'frames', 'network': '', 'seed': 0}

    def __init__(self, name, settings):
        super().__init__(name, settings)
        if self.options['of'] not in self.OF:
            raise UserError(
                f'config.evals.{name}.of = {self.options["of"]!r}: expected one of '
                f'{", ".join(self.OF)}'
            )
        self.kind = self.options['of']
        self.COLUMNS = (self.OF[self.kind],)
        self.warnings, self.features = [], None

    @property
    def methods(self):
        asked = super().methods
        return asked and tuple(dict.fromkeys((*asked, 'truth')))

    def open(self):
        if self.kind in self.BUNDLES:
            self.parts = compatibility.open_network(self, self.kind)
        elif self.kind == 'random3d':
            with blaming(f'config.evals.{self.name}.seed'):
                self.parts = Random3D.create(self.options['seed'])

    def check(self, part, clips):
        super().check(part, clips)
        if self.left_out:
            return
        if self.kind == 'i3d':
            with blaming('FVD'):
                i3d.check_frames(clips.context + clips.horizon)
        self.clips, self.encoder = clips, compatibility.encoder_of(part)

    def measure(self, parts, view, views, batch):
        """Features [B, places, D]: of frames, of windows, or of whole clips."""
        horizon = views['truth'].frames.shape[1]
        if self.kind == 'inception':
            features = parts.features(view.frames)
            return jnp.broadcast_to(features, (len(features), horizon, features.shape[2]))
        if self.kind == 'i3d':
            frames = jnp.broadcast_to(view.frames, views['truth'].frames.shape)
            clip = jnp.concatenate([views['context'].frames, frames], axis=1)
            return parts.features(clip)[:, None]
        if self.kind in ('judge', 'random3d'):
            frames = jnp.broadcast_to(view.frames, views['truth'].frames.shape)
            clip = jnp.concatenate([views['context'].frames[:, -1:], frames], axis=1)
            return descriptors.by_window(parts.features, clip)
        last, found = views['context'].components[:, -1:], view.components
        found = jnp.broadcast_to(found, (len(found), horizon, *found.shape[2:]))
        if self.kind == 'frames':
            return descriptors.of_frames(found)
        return descriptors.of_videos(jnp.concatenate([last, found], axis=1))

    def add(self, total, found, known):
        """A set a place, float64 on the host: a singular covariance has no digits to lose."""
        features = np.asarray(found)[known]
        sets = Sets(features.shape[1]) if total is None else total
        for moments, part in zip(sets, features.swapaxes(0, 1), strict=True):
            moments.update(part)
        if self.keep:
            sets.features.append(features)
        return sets

    def report(self, states):
        if self.keep:
            name = self.COLUMNS[0].name
            self.kept = {f'{name}/ends': np.asarray(self.ends)} | {
                f'{name}/{method}': np.concatenate(sets.features) for method, sets in states.items()
            }
        truth = states.pop('truth')
        joined = functools.reduce(Moments.merge, truth, Moments())
        try:
            reference = joined.gaussian()
        except UserError as error:
            self.left_out = f'{self.titles}: {error}'
            return {}
        self.features = len(joined.mean), joined.count
        self.warnings = [f'{self.titles}: {reference.shortage}'] if reference.shortage else []
        by_place = [one.gaussian() if one.count > 1 else None for one in truth]
        return {
            method: (
                self._column(reference, functools.reduce(Moments.merge, sets, Moments())),
                self._by_time(by_place, sets),
            )
            for method, sets in states.items()
        }

    def _column(self, reference, moments):
        return {self.COLUMNS[0].name: distance(reference, moments.gaussian())}

    def _by_time(self, truth, sets):
        """At every step, or at the last step of every window; a single window is no measure by
        time, nor are FID and FVD.
        """
        steps = [{} for _ in range(self.clips.horizon)]
        several = self.kind in self.BY_WINDOW and len(self.ends) > 1
        for place, end in enumerate(self.ends if self.kind == 'frames' or several else ()):
            if truth[place] is not None:
                steps[end - 1] = self._column(truth[place], sets[place])
        return steps

    @property
    def ends(self) -> list[int]:
        """How many future frames have passed at the end of every place."""
        horizon = self.clips.horizon
        if self.kind == 'i3d':
            return [horizon]
        if self.kind in self.BY_WINDOW:
            return [end for _, end in descriptors.windows(horizon)]
        return list(range(1, horizon + 1))

    def about(self):
        if self.features is None:
            return {}
        return self._network() | {
            'sample': self._sample(),
            'dimensions': self.features[0],
            'samples': self.features[1],
        }

    def _network(self):
        if self.kind == 'random3d':
            words = f'random 3-D convolutions, seed {self.parts.seed}'
            return {'network': words, 'sha256': self.parts.sha256}
        if self.kind in self.BUNDLES:
            path = self.options['network']
            return {'network': path, 'sha256': compatibility.origin(path)}
        return {'network': "the model's encoder", 'sha256': bundles.identity(self.encoder)}

    def _sample(self):
        context, horizon = self.clips.context, self.clips.horizon
        return {
            'frames': 'a future frame each: mean and deviation of its leading components',
            'video': f'windows of {min(descriptors.WINDOW, horizon)} future frames: leading '
            'components and their changes',
            **dict.fromkeys(
                ('judge', 'random3d'),
                f'windows of {min(descriptors.WINDOW, horizon)} future frames and the one before',
            ),
            'inception': f'a future frame each, resized to {inception.SIDE}x{inception.SIDE}',
            'i3d': f'a clip of {context} context + {horizon} future frames each, resized to '
            f'{i3d.SIDE}x{i3d.SIDE}',
        }[self.kind]
