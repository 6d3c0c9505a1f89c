"""Colours for what has none: principal components and labels."""

import numpy as np
from PIL import Image

from re2pix_jax.cityscapes import COLOURS, IGNORE

PERCENTILES = (2.0, 98.0)
FARTHEST = 80.0  # metres: the dark end of depth


def principal_colours(components, reference, size=None, smooth=False):
    """The first three principal components as red, green and blue.

    The scale comes from the context alone, so one colour means one thing in every frame, predicted
    or true; values beyond it saturate.

    Args:
        components: float [T, h, w, P], ordered by variance; where P < 3 the missing channels are
            mid-grey.
        reference: float [M, h, w, P], whose percentiles 2 and 98 per component become 0 and 255:
            the context's components.
        size: (height, width) of the pictures; None keeps the grid.
        smooth: bilinear between patches; by default each patch stays one flat square, which is what
            the model predicts.

    Returns:
        uint8 [T, height, width, 3].
    """
    components, reference = (np.asarray(x, np.float32)[..., :3] for x in (components, reference))
    low, high = np.percentile(reference, PERCENTILES, axis=tuple(range(reference.ndim - 1)))
    scaled = np.where(high > low, (components - low) / np.maximum(high - low, 1e-12), 0.5)
    colours = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    if colours.shape[-1] < 3:
        colours = np.pad(colours, [(0, 0)] * 3 + [(0, 3 - colours.shape[-1])], constant_values=128)
    if size is None:
        return colours
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.stack(
        [np.asarray(Image.fromarray(frame).resize((size[1], size[0]), how)) for frame in colours]
    )


def label_colours(labels):
    """Cityscapes' palette: integers [...] of train ids → uint8 [..., 3]; 255 and unknown ids are
    black.
    """
    palette = np.zeros((IGNORE + 1, 3), np.uint8)
    palette[: len(COLOURS)] = COLOURS
    return palette[np.asarray(labels)]


def depth_colours(depth):
    """Metres [...] → uint8 [..., 3]: near is bright, far is dark, unknown (0) is black."""
    near = 1 - np.log1p(np.minimum(depth, FARTHEST)) / np.log1p(FARTHEST)
    level = np.where(depth > 0, 40 + 215 * near, 0)
    return np.repeat(level[..., None], 3, axis=-1).astype(np.uint8)
