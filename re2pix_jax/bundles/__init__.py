"""Weights: bundles (what people share) and published PyTorch files (where some of them come
from).
"""

from re2pix_jax.bundles.bundle import digest, load, part_digests, read, save_part
from re2pix_jax.bundles.bundle import save_part as save

__all__ = ['digest', 'load', 'part_digests', 'read', 'save', 'save_part']
