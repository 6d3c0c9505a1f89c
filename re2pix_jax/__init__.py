"""Re2Pix in JAX: forecast the semantics of a driving video, then render them into future frames.

import re2pix_jax
model = re2pix_jax.load("tiny")
future = model.predict("drive.mp4", horizon=8, seed=0)
future.save("out")
"""

import importlib
import pkgutil

__version__ = '0.2.0'


def load(name):
    """Opens a model or one part of it: a shipped name ("tiny"), a bundle folder, or
    "hf:owner/repo".

    Returns:
        What the bundle's `kind` says: Encoder, Principal, Autoencoder, Forecaster, Head, Generator
        or Re2Pix.

    Raises:
        errors.UserError: the name is unknown, or the bundle's tensors do not match its network
            exactly.
    """
    from re2pix_jax import bundles  # on use, so that `import re2pix_jax` does not start jax

    return bundles.load(name)


def __getattr__(name):
    """Rooms are imported when they are asked for: `re2pix_jax.data`."""
    if not name.startswith('_') and name in __dir__():
        return importlib.import_module(f're2pix_jax.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    return [*globals(), *(module.name for module in pkgutil.iter_modules(__path__))]
