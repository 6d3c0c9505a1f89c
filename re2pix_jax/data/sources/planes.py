"""Images of one channel whose values are numbers: train ids, counts of depth."""

import os

import numpy as np
from jaxtyping import Integer
from PIL import Image

from re2pix_jax.data import records
from re2pix_jax.errors import UserError


def read(
    path: str | os.PathLike, dtype: type[np.unsignedinteger], what: str, again: str
) -> Integer[np.ndarray, '...']:
    """The values of an image, as they are: none is cut to a whole number or wrapped.

    Args:
        path: of the image.
        dtype: that must hold them.
        what: is expected, where it does not.
        again: what to do about a file that is missing or damaged.

    Raises:
        UserError: no such file, a damaged one, or other values.
    """
    try:
        with Image.open(path) as image:
            # Pillow spreads these over 0 to 255.
            spread = [bits for bits in (2, 4) if f"'L;{bits}" in repr(image.tile)]
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise UserError(f'{path}: no such file; {again}') from error
    except Exception as error:  # a damaged image shows in many ways
        raise UserError(
            f'{path}: not a readable image ({records.reason(error)}); {again}'
        ) from error
    if spread:
        raise UserError(
            f'{path}: grey of {spread[0]} bits is read as shades and not as numbers; expected 8 '
            'bits or more: store it anew'
        )
    if np.can_cast(values.dtype, dtype) and values.dtype != bool:
        return values.astype(dtype, copy=False)
    most = np.iinfo(dtype).max
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > most:
        raise UserError(
            f'{path}: {values.dtype} values from {values.min():g} to {values.max():g}, expected '
            f'whole numbers from 0 to {most}, {what}'
        )
    return values.astype(dtype)
