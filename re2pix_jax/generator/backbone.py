"""The choice of the generator's network, by the name that configs and bundles have for it."""

from re2pix_jax.generator.dit import SpaceTimeDiT
from re2pix_jax.generator.unet import VideoUNet

BACKBONES = {'dit': SpaceTimeDiT, 'unet': VideoUNet}  # the first is meant where none is named


def create(backbone='dit', **fields):
    """The network of that name with these fields. ValueError for an unknown name or field."""
    if backbone not in BACKBONES:
        raise ValueError(
            f"the backbone '{backbone}' is unknown; choose one of {', '.join(BACKBONES)}"
        )
    known = [
        name for name in BACKBONES[backbone].__dataclass_fields__ if name not in ('parent', 'name')
    ]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(
            f"the backbone '{backbone}' has no {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    return BACKBONES[backbone](**fields)
