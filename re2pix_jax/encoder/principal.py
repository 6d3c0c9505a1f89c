"""Principal components of encoder features: streaming fit, projection and its inverse.

Features are standardised per channel and projected on their leading principal directions, ordered
by variance [P]. The published fit stacks every feature in memory; count, sum and second moments are
enough and stream.
"""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from re2pix_jax.nn.summary import summary
from re2pix_jax.nn.sums import two_sum


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

    __repr__ = summary

    def in_words(self) -> str:
        """What its summary says of it."""
        count, channels = getattr(self.components, 'shape', (None, None))
        return f'{count} components of {channels} channels'

    @property
    def num_components(self) -> int:
        return self.components.shape[0]

    @jax.jit
    def project(self, features: Float[Array | np.ndarray, '...']) -> Float[Array, '...']:
        """Features [..., C] -> components [..., P], float32; ValueError for other channels."""
        _check_last('features', features, self.components.shape[1])
        centred = (features.astype(jnp.float32) - self.mean) / self.std - self.pca_mean
        return jnp.matmul(centred, self.components.T, precision='highest')

    @jax.jit
    def reconstruct(self, components: Float[Array | np.ndarray, '...']) -> Float[Array, '...']:
        """Components [..., P] -> features [..., C], float32; what the P directions do not hold is
        lost. ValueError for another number of them.
        """
        _check_last('components', components, self.components.shape[0])
        standardised = (
            jnp.matmul(components.astype(jnp.float32), self.components, precision='highest')
            + self.pca_mean
        )
        return standardised * self.std + self.mean


def _check_last(name, array, channels):
    if array.shape[-1:] != (channels,):
        raise ValueError(
            f'{name}: expected [..., {channels}], as these principal components were fitted, got '
            f'{list(array.shape)}'
        )


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums, features, shift):
    """Adds the sum and the second moment of tokens [N, C] about `shift` to double-float sums, two
    float32 arrays each.
    """
    centred = features.astype(jnp.float32) - shift
    moments = centred.sum(axis=0), jnp.matmul(centred.T, centred, precision='highest')
    return tuple(two_sum(pair, (value, 0.0)) for pair, value in zip(sums, moments))


class Moments:
    """Count, sum and second moments of features, gathered batch by batch in memory that does not
    grow with their number.

    A batch is summed in float32 about the first batch's mean, so that nothing large cancels;
    batches are added up, on the device, as unevaluated sums of two float32 numbers (48 bits): a
    billion tokens lose no more than one batch does, about 1e-6 of its spread. Under a mesh,
    features may lie split over devices. Moments of several runs merge.
    """

    BLOCK = 16384  # tokens to a float32 sum

    def __init__(self):
        self.count = 0
        self.shift = self._sums = None

    def update(self, features) -> 'Moments':
        """Adds features [..., C] of any leading shape; returns itself."""
        tokens = features.reshape(-1, features.shape[-1])
        channels = tokens.shape[-1]
        if self.shift is None:
            self.shift = np.asarray(jnp.mean(jnp.asarray(tokens, jnp.float32), axis=0))
            self._sums = _zeros(channels)
        if channels != len(self.shift):
            raise ValueError(
                f'features have {channels} channels and those before them {len(self.shift)}'
            )
        for start in range(0, len(tokens), self.BLOCK):
            self._sums = _add(self._sums, tokens[start : start + self.BLOCK], self.shift)
        self.count += len(tokens)
        return self

    def sync(self) -> 'Moments':
        """Waits for the device; returns itself."""
        jax.block_until_ready(self._sums)
        return self

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """First [C] and second [C, C] moments about `shift`, summed over tokens, float64."""
        return tuple(
            np.asarray(high, np.float64) + np.asarray(low, np.float64) for high, low in self._sums
        )

    def merge(self, other: 'Moments') -> 'Moments':
        """Adds what another has gathered; returns itself."""
        if other.count == 0:
            return self
        if self.count == 0:
            self.shift, self._sums = other.shift, _zeros(len(other.shift))
        if len(self.shift) != len(other.shift):
            raise ValueError(
                f'moments of {len(other.shift)} channels cannot join moments of {len(self.shift)}'
            )
        # The other's moments, moved from its shift to ours.
        move = other.shift.astype(np.float64) - self.shift
        (first, second), (other_first, other_second) = self.sums, other.sums
        cross = np.outer(other_first, move)
        second = second + other_second + cross + cross.T + other.count * np.outer(move, move)
        first = first + other_first + other.count * move
        self._sums = _split(first), _split(second)
        self.count += other.count
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Everything gathered so far, exactly, as arrays for `from_state`."""
        (first, first_low), (second, second_low) = jax.device_get(self._sums)
        return {
            'count': np.asarray(self.count),
            'shift': self.shift,
            'first': first,
            'first_low': first_low,
            'second': second,
            'second_low': second_low,
        }

    @classmethod
    def from_state(cls, state) -> 'Moments':
        moments = cls()
        moments.count, moments.shift = int(state['count']), np.asarray(state['shift'])
        moments._sums = tuple(
            (jnp.asarray(state[name]), jnp.asarray(state[f'{name}_low']))
            for name in ('first', 'second')
        )
        return moments


def _zeros(channels):
    return tuple(
        (jnp.zeros(shape), jnp.zeros(shape)) for shape in ((channels,), (channels, channels))
    )


def _split(value):
    """float64 as two float32 numbers."""
    high = value.astype(np.float32)
    return jnp.asarray(high), jnp.asarray((value - high).astype(np.float32))


def fit(moments: Moments, num_components: int) -> Principal:
    """The leading principal components of what `moments` has seen.

    A channel that never varies is given deviation 1. Each direction's sign is fixed so that its
    largest entry in magnitude is positive: another run over the same data finds the same
    components.

    Raises:
        ValueError: if the features have fewer channels than components were asked for, if fewer
            tokens than that were seen, or if a feature was not finite.
    """
    channels = 0 if moments.shift is None else len(moments.shift)
    if not 1 <= num_components or (channels and num_components > channels):
        raise ValueError(
            f'{num_components} principal components were asked for: features of {channels} '
            f'channels have 1 to {channels}'
        )
    if moments.count <= num_components:
        raise ValueError(
            f'{num_components} principal components need more than {num_components} feature tokens '
            f'and {moments.count} were given: use more frames or fewer components'
        )
    first, second = moments.sums
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(
            'the features hold NaN or infinite values: check the encoder and the frames it was '
            'given'
        )
    offset = first / moments.count
    covariance = second / moments.count - np.outer(offset, offset)
    variance = np.diagonal(covariance).clip(min=0.0)
    mean = moments.shift + offset
    std = np.where(variance > 1e-12 * (1.0 + mean**2), np.sqrt(variance), 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(std, std))
    values, vectors = values[::-1].clip(min=0.0), vectors[:, ::-1].T
    directions = vectors[:num_components]
    largest = np.take_along_axis(
        directions, np.abs(directions).argmax(axis=1, keepdims=True), axis=1
    )
    total = values.sum()
    share = values[:num_components] / total if total > 0 else np.zeros(num_components)
    return Principal(
        *(
            jnp.asarray(x, jnp.float32)
            for x in (mean, std, np.zeros(channels), directions * np.sign(largest), share)
        )
    )
