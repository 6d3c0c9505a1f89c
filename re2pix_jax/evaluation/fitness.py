"""How well a model's frozen parts take footage that they were not made for."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from re2pix_jax.evaluation.evaluators import image
from re2pix_jax.model import Re2Pix


def of_frozen(model: Re2Pix, frames: Iterable[UInt8[np.ndarray, 'h w 3']]) -> dict[str, float]:
    """Frames, at the model's size, through the VAE and through the components.

    Returns:
        'psnr', dB, the mean of the frames' after encoding and decoding; 'explained', the share of
        the features' variance, every channel weighing the same, that the components hold.
    """
    found = [_of_frame(model, frame[None, None]) for frame in frames]
    psnr, lost, whole = np.mean(found, 0).tolist()
    return {'psnr': psnr, 'explained': 1 - lost / whole}


@jax.jit
def _of_frame(model, frame):
    kept, encoder = model.forecaster.principal, model.forecaster.encoder.of_any_size()
    features = encoder.encode(frame)
    lost = features - kept.reconstruct(kept.project(features))
    return (
        image.psnr(model.vae.decode(model.vae.encode(frame)), frame).mean(),
        jnp.square(lost / kept.std).mean(),
        jnp.square((features - kept.mean) / kept.std).mean(),
    )
