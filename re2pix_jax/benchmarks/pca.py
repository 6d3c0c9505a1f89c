"""Principal components of features, beside scikit-learn's PCA: seconds and memory.

    re2pix benchmark pca --tokens=100000,200000

Ours sees the features block by block, scikit-learn has them all in memory.
"""

import multiprocessing
import resource
import time
from collections.abc import Sequence

import numpy as np


def run(tokens: Sequence[int], channels: int, components: int) -> None:
    """Prints everything."""
    # Here: the processes that import this file must not hold what only this one needs.
    from re2pix_jax.benchmarks import measuring

    rows, fits = [], {}
    for count in tokens:
        work = count, channels, components
        ours, theirs = (_apart(fit, work) for fit in (_our_pca, _sklearn_pca))
        fits[count] = ours, theirs
        rows += [
            [
                f'{count:,} tokens: seconds',
                ours['seconds'],
                theirs['seconds'],
                theirs['seconds'] / ours['seconds'],
            ],
            [
                f'{count:,} tokens: peak memory, GB',
                ours['peak'],
                theirs['peak'],
                theirs['peak'] / ours['peak'],
            ],
        ]
    ours, theirs = fits[tokens[-1]]
    lead = min(256, components)
    cosines = np.linalg.svd(
        ours['components'][:lead].astype(np.float64)
        @ theirs['components'][:lead].T.astype(np.float64),
        compute_uv=False,
    )
    print(
        f'PCA of {channels} channels to {components}, beside scikit-learn (covariance_eigh, in '
        'memory)'
    )
    measuring.report(rows)
    print(
        'explained variance, largest relative difference: '
        f'{np.abs(ours["variance"] / theirs["variance"] - 1).max():.1e}; largest angle between the '
        f'leading {lead}: {np.arccos(cosines.min().clip(-1, 1)):.1e} rad'
    )


def _apart(fit, work):
    """What `fit` returns in a process of its own, whose peak of memory is its own too."""
    with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(fit, work)


def _feature_blocks(tokens, channels, block=16384):
    """Features with a falling spectrum, mixed over channels and far from zero, made block by
    block.
    """
    import scipy.fft

    random = np.random.default_rng(0)
    signs, offset = (
        random.choice([-1.0, 1.0], channels).astype(np.float32),
        random.normal(size=channels).astype(np.float32) * 3,
    )
    scale = (1 + np.arange(channels, dtype=np.float32)) ** -0.7
    for start in range(0, tokens, block):
        latent = (
            random.standard_normal((min(block, tokens - start), channels), dtype=np.float32) * scale
        )
        yield scipy.fft.dct(scipy.fft.dct(latent, norm='ortho') * signs, norm='ortho') + offset


def _outcome(seconds, variance, components):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        'seconds': seconds,
        'peak': peak,
        'variance': np.asarray(variance),
        'components': np.asarray(components),
    }


def _our_pca(tokens, channels, components):
    from re2pix_jax.encoder import principal

    moments, seconds = principal.Moments(), 0.0
    for block in _feature_blocks(tokens, channels):
        began = time.perf_counter()
        moments.update(block).sync()
        seconds += time.perf_counter() - began
    began = time.perf_counter()
    part = principal.fit(moments, components)
    return _outcome(seconds + time.perf_counter() - began, part.variance, part.components)


def _sklearn_pca(tokens, channels, components):
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    features = np.empty((tokens, channels), np.float32)
    start = 0
    for block in _feature_blocks(tokens, channels):
        features[start : start + len(block)] = block
        start += len(block)
    began = time.perf_counter()
    features = StandardScaler(copy=False).fit_transform(features)
    model = PCA(components, svd_solver='covariance_eigh').fit(features)
    return _outcome(time.perf_counter() - began, model.explained_variance_ratio_, model.components_)
