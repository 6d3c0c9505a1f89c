"""Re2Pix in JAX: forecast the semantics of a driving video, then render them into future frames.

import re2pix_jax
model = re2pix_jax.load("tiny")
clip = re2pix_jax.data.video.read("drive.mp4", fps=5.67)
future = model.predict(clip, horizon=8, seed=0)
re2pix_jax.data.video.write("future.mp4", future.frames, fps=5.67)
"""

__version__ = '0.1.0'


def load(name):
    """Opens a model or one part of it: a shipped name ("tiny"), a bundle folder, or
    "hf:owner/repo".

    Returns the part that the bundle's `kind` says: Encoder, Principal, Autoencoder, Forecaster,
    Head, Generator or Re2Pix. Raises errors.UserError when the name is unknown or the bundle's
    tensors do not match its network exactly.
    """
    from re2pix_jax import (
        bundles,
    )  # imported on use, so that `import re2pix_jax` does not start jax

    return bundles.load(name)


def __getattr__(name):
    if name == 'data':
        import importlib

        return importlib.import_module('re2pix_jax.data')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
