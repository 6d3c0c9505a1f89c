"""The Fréchet distance between two sets of features: that between the Gaussians which share their
means and covariances.

    d² = |m₁ - m₂|² + tr S₁ + tr S₂ - 2 tr √(S₁ S₂)

FID and FVD are this number of the features of Inception and of I3D. As in pytorch-fid it is d² that
is reported, and a covariance divides by n - 1. Everything is float64 on the host, and independent
of how the set was cut into batches up to rounding.
"""

import functools

import numpy as np

from re2pix_jax.errors import UserError


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
                f'a Fréchet distance needs at least 2 samples a set and got {self.count}: '
                'evaluate more clips'
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
            'distance is taken between what there '
            f'is of it, and is only comparable at this count; at least {dimensions + 1} samples '
            'are needed'
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
            'dimensions: give both sets to '
            'one network'
        )
    product = one.root.T @ other.root
    cross = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    move = one.mean - other.mean
    return max(
        0.0, float(move @ move + np.trace(one.covariance) + np.trace(other.covariance) - 2 * cross)
    )
