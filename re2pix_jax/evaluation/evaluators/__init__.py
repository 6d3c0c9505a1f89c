"""What is measured, a file each: columns, methods, and a state on the device that merges.

To add one: a file here with a subclass of `base.Evaluator`, and a line in `TYPES`.
"""

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.evaluators.base import Clips, Column, Evaluator
from re2pix_jax.evaluation.evaluators.components import Components
from re2pix_jax.evaluation.evaluators.depth import Depth
from re2pix_jax.evaluation.evaluators.frechet import Frechet
from re2pix_jax.evaluation.evaluators.image import Image
from re2pix_jax.evaluation.evaluators.latents import Latents
from re2pix_jax.evaluation.evaluators.lpips import Lpips
from re2pix_jax.evaluation.evaluators.motion import Motion
from re2pix_jax.evaluation.evaluators.normals import Normals
from re2pix_jax.evaluation.evaluators.probe import LinearProbe
from re2pix_jax.evaluation.evaluators.reconstruction import Reconstruction
from re2pix_jax.evaluation.evaluators.segmentation import Segmentation
from re2pix_jax.evaluation.evaluators.sharpness import Sharpness

TYPES: dict[str, type[Evaluator]] = {
    'reconstruction': Reconstruction,
    'image': Image,
    'sharpness': Sharpness,
    'motion': Motion,
    'lpips': Lpips,
    'components': Components,
    'latents': Latents,
    'segmentation': Segmentation,
    'depth': Depth,
    'normals': Normals,
    'probe': LinearProbe,
    'frechet': Frechet,
}
"""The value of `type` in an entry of config.evals; tables show columns in this order."""

COLUMNS: dict[str, Column] = {
    column.name: column for kind in TYPES.values() for column in kind.COLUMNS
}


def create(evals) -> list[Evaluator]:
    """The evaluators of config.evals, {name: {'type': ..., options}}; type '' leaves one out.

    Raises:
        UserError: an unknown type or option.
    """
    found = []
    for name, settings in evals.items():
        settings = dict(settings)
        if settings.get('type') == '':
            continue
        if settings.get('type') not in TYPES:
            raise UserError(
                f'config.evals.{name}.type = {settings.get("type")!r}: expected one of '
                f'{", ".join(TYPES)}'
            )
        found.append(TYPES[settings['type']](name, settings))
    return found


__all__ = ['COLUMNS', 'TYPES', 'Clips', 'Column', 'Evaluator', 'create']
