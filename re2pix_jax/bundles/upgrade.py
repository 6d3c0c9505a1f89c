"""Bundles of earlier formats, in today's layout."""

import re

import numpy as np

from re2pix_jax.bundles.stored import Stored

LAYERS = {'encoder': 'blocks', 'forecaster': 'layers'}
"""Kind -> its repeated layers; format 1 held each by itself, as params/blocks_0/..."""


def stacked(kind: str, tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Format 1's tensors of single layers as the stacks that the networks hold now.

    Others pass, as do tensors of layers that do not make a stack: what reads them names them.
    """
    rows: dict[str, dict[int, Stored]] = {}
    upgraded = {}
    pattern = re.compile(rf'params/{LAYERS.get(kind)}_(\d+)/(.+)')
    for name, tensor in tensors.items():
        if match := pattern.fullmatch(name):
            rows.setdefault(match[2], {})[int(match[1])] = tensor
        else:
            upgraded[name] = tensor
    for rest, layers in rows.items():
        parts = [layers.get(row) for row in range(len(layers))]
        if None in parts or len({(part.shape, part.dtype) for part in parts}) > 1:
            return tensors
        upgraded[f'params/{LAYERS[kind]}/{rest}'] = Stored(
            (len(parts), *parts[0].shape),
            parts[0].dtype,
            lambda parts=parts: np.stack([np.asarray(part) for part in parts]),
        )
    return upgraded
