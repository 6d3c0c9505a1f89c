"""The choice of the generator's network, by the name that configs (`config.model.backbone`) and
bundles have for it.
"""

from re2pix_jax.errors import UserError
from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.unet import VideoUNet

BACKBONES = {'dit': SpaceTimeDiT, 'unet': VideoUNet}  # the first is meant where none is named


def create(backbone='dit', **fields):
    """The network of that name with these fields. UserError for an unknown name or field."""
    if backbone not in BACKBONES:
        raise UserError(
            f"config.model.backbone is '{backbone}'; choose one of {', '.join(BACKBONES)}"
        )
    known = [
        name for name in BACKBONES[backbone].__dataclass_fields__ if name not in ('parent', 'name')
    ]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise UserError(
            f"config.model: the backbone '{backbone}' has no {', '.join(unknown)}; it takes "
            f'{", ".join(known)}'
        )
    return BACKBONES[backbone](**fields)
