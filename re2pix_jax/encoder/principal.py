"""Principal components of encoder features: streaming fit, projection and its inverse.

Features are standardised per channel and projected on their leading principal directions, ordered by variance [P]. The
published fit stacks every feature in memory; count, sum and second moments are enough and stream.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError


@flax.struct.dataclass
class Principal:
    """Standardisation followed by a projection on P principal directions. All arrays float32.

    Attributes:
        mean, std: (C,) per channel of the features, population statistics.
        pca_mean: (C,) mean of the standardised features (zero up to rounding).
        components: (P, C) orthonormal directions, by falling variance.
        variance: (P,) share of the total variance that each explains.
    """

    mean: jax.Array
    std: jax.Array
    pca_mean: jax.Array
    components: jax.Array
    variance: jax.Array

    @property
    def num_components(self) -> int:
        return self.components.shape[0]

    @jax.jit
    def project(self, features):
        """Features [..., C] -> components [..., P], float32."""
        centred = (features.astype(jnp.float32) - self.mean) / self.std - self.pca_mean
        return jnp.matmul(centred, self.components.T, precision='highest')

    @jax.jit
    def reconstruct(self, components):
        """Components [..., P] -> features [..., C], float32; what the P directions do not hold is lost."""
        standardised = jnp.matmul(components.astype(jnp.float32), self.components, precision='highest') + self.pca_mean
        return standardised * self.std + self.mean


@jax.jit
def _block_moments(features, shift):
    """Sum and second moment of float32 tokens [N, C] about `shift`."""
    centred = features.astype(jnp.float32) - shift
    return centred.sum(axis=0), jnp.matmul(centred.T, centred, precision='highest')


class Moments:
    """Count, sum and second moments of features, gathered batch by batch.

    Blocks are summed on the device in float32 about the first batch's mean (so that nothing large cancels), and added up
    on the host in float64. Moments gathered by several processes, or in several runs, merge exactly.
    """

    BLOCK = 16384  # tokens to a float32 sum: few enough that its rounding stays near 1e-6

    def __init__(self):
        self.count = 0
        self.shift = self.first = self.second = None

    def update(self, features) -> 'Moments':
        """Adds features [..., C] of any leading shape; returns itself."""
        tokens = features.reshape(-1, features.shape[-1])
        if self.shift is None:
            channels = tokens.shape[-1]
            self.shift = np.asarray(jnp.mean(tokens.astype(jnp.float32), axis=0))
            self.first, self.second = np.zeros(channels), np.zeros((channels, channels))
        if tokens.shape[-1] != len(self.shift):
            raise UserError(f'features have {tokens.shape[-1]} channels and those before them {len(self.shift)}')
        for start in range(0, len(tokens), self.BLOCK):
            first, second = _block_moments(tokens[start:start + self.BLOCK], self.shift)
            self.first += np.asarray(first, np.float64)
            self.second += np.asarray(second, np.float64)
        self.count += len(tokens)
        return self

    def merge(self, other: 'Moments') -> 'Moments':
        """Adds what another has gathered; returns itself."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.count, self.shift = other.count, other.shift.copy()
            self.first, self.second = other.first.copy(), other.second.copy()
            return self
        if len(self.shift) != len(other.shift):
            raise UserError(f'moments of {len(other.shift)} channels cannot join moments of {len(self.shift)}')
        # The other's moments, moved from its shift to ours.
        move = other.shift.astype(np.float64) - self.shift
        cross = np.outer(other.first, move)
        self.second += other.second + cross + cross.T + other.count * np.outer(move, move)
        self.first += other.first + other.count * move
        self.count += other.count
        return self


def fit(moments: Moments, num_components: int) -> Principal:
    """The leading principal components of what `moments` has seen.

    A channel that never varies is given deviation 1. Each direction's sign is fixed so that its largest entry in magnitude
    is positive: another run over the same data finds the same components.

    Raises:
        UserError: if the features have fewer channels than components were asked for, if fewer tokens than that were
            seen, or if a feature was not finite.
    """
    channels = 0 if moments.shift is None else len(moments.shift)
    if not 1 <= num_components or (channels and num_components > channels):
        raise UserError(f'{num_components} principal components were asked for: features of {channels} channels '
                        f'have 1 to {channels}')
    if moments.count <= num_components:
        raise UserError(f'{num_components} principal components need more than {num_components} feature tokens and '
                        f'{moments.count} were given: use more frames or fewer components')
    if not (np.isfinite(moments.first).all() and np.isfinite(moments.second).all()):
        raise UserError('the features hold NaN or infinite values: check the encoder and the frames it was given')
    offset = moments.first / moments.count
    covariance = moments.second / moments.count - np.outer(offset, offset)
    variance = np.diagonal(covariance).clip(min=0.0)
    mean = moments.shift + offset
    std = np.where(variance > 1e-12 * (1.0 + mean**2), np.sqrt(variance), 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(std, std))
    values, vectors = values[::-1].clip(min=0.0), vectors[:, ::-1].T
    directions = vectors[:num_components]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1, keepdims=True), axis=1)
    total = values.sum()
    share = values[:num_components] / total if total > 0 else np.zeros(num_components)
    return Principal(*(jnp.asarray(x, jnp.float32) for x in (
        mean, std, np.zeros(channels), directions * np.sign(largest), share)))
