"""Bundles: the folders in which networks are shared. `load` opens one as the part that it is,
`save` writes a part, `identity` and `digest` say which network it is, in memory and on disk.

    config.json          {"format": 2, "kind": ..., "network": {...}, "storage": "float32",
                         "parts": {"encoder": "../encoder"}, ...}
    weights.safetensors  tensors by '/'-joined path in the tree of parameters
    MODEL_CARD.md        what people should know before they use it

A part is named by a path relative to the bundle, an absolute path, a shipped name or
"hf:owner/repo@revision"; where nothing else is said it is saved inside.
"""

from re2pix_jax.bundles.hub import pinned
from re2pix_jax.bundles.identity import digest, identity, part_digests
from re2pix_jax.bundles.naming import find, is_bundle, resolve
from re2pix_jax.bundles.reading import load, read
from re2pix_jax.bundles.writing import check_place, save

__all__ = [
    'check_place',
    'digest',
    'find',
    'identity',
    'is_bundle',
    'load',
    'part_digests',
    'pinned',
    'read',
    'resolve',
    'save',
]
