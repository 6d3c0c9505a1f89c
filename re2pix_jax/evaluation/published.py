"""Protocols by name: under which others' scores, and ours that are meant to last, were measured.

`config.protocol` names one. It sets what the config leaves as it comes; what the config sets
otherwise, and what the evaluated part or the clips do not have, is a departure. Departures stand in
the report, for they end comparability with the published scores.
"""

import dataclasses

from ml_collections import ConfigDict

from re2pix_jax.data import windows
from re2pix_jax.errors import UserError

UNSET = {
    'split': ('validation',),
    'clips': (256,),
    'start': (0,),
    'horizon': (4,),
    'terms': ((), ('short', 'mid')),
    'label_size': ((),),
}
"""Fields that a protocol sets, and their values in the configs as they come."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What a protocol asks for.

    Attributes:
        about: whose it is, and what is known of it.
        dataset, split, clips: a dataset as published, and how many clips of it.
        window: 'target' (ends at the frame that the dataset labels), 'start' or 'keyframes'.
        start: native frame where a window of 'start' begins.
        stride: frames from one to the next: at 17 Hz, of 'keyframes' native ones. fps: what they
            are taken for.
        context, horizon: true frames given, and future frames. last: only the last is compared.
        size: (height, width) of frames; label_size: of labels and depth, () where there are none.
        networks: {evaluator: how the sha256 of its network's published file begins}.
    """

    about: str
    dataset: str
    clips: int
    window: str
    horizon: int
    size: tuple[int, int]
    split: str = 'validation'
    start: int = 0
    stride: int = windows.STRIDE
    fps: float = windows.BASE_FPS / windows.STRIDE
    context: int = 4
    last: bool = False
    label_size: tuple[int, ...] = ()
    networks: dict = dataclasses.field(default_factory=dict)

    @property
    def terms(self) -> tuple[str, ...]:
        """As config.terms has them."""
        return tuple(
            term for term, steps in windows.TERMS.items() if self.last and steps == self.horizon
        )


INCEPTION = '6726825d'
"""pt_inception-2015-12-05-6726825d.pth, whose name tells it."""
_FORESIGHT = dict(
    dataset='cityscapes',
    clips=500,
    window='target',
    last=True,
    size=(448, 896),
    label_size=(1024, 2048),
)
PROTOCOLS = {
    'dino-foresight-short': Published(
        about='DINO-Foresight (arXiv 2412.11673), short-term: frames 7, 10, 13, 16 of a snippet '
        'give frame 19; labels at full size, depth by the classes of its teacher [R]',
        horizon=1,
        **_FORESIGHT,
    ),
    'dino-foresight-mid': Published(
        about='DINO-Foresight (arXiv 2412.11673), mid-term: frames 1, 4, 7, 10 of a snippet give '
        'frame 19 in three steps [R]',
        horizon=3,
        **_FORESIGHT,
    ),
    'vista-nuscenes-25': Published(
        about='Vista (arXiv 2405.17398): from each key frame on 25 frames of the front camera, '
        'taken for 10 Hz, the first given; FID over 24, FVD over 25 frames of each; its FVD is by '
        "the I3D of LVDM's code [R]",
        dataset='nuscenes',
        clips=5369,
        window='keyframes',
        stride=1,
        fps=10.0,
        context=1,
        horizon=24,
        size=(576, 1024),
        networks={'fid': INCEPTION},
    ),
    're2pix-cityscapes': Published(
        about='ours [O], for the paper tells neither its horizon nor its size: frames 1, 4, 7, 10 '
        'give 13 to 28, of which 19 has labels (mid-term); FVD over all ten',
        dataset='cityscapes',
        clips=500,
        window='start',
        start=1,
        horizon=6,
        size=(256, 512),
        label_size=(1024, 2048),
        networks={'fid': INCEPTION},
    ),
}


def named(config) -> Published | None:
    """The protocol that a config names, None where it names none.

    Raises:
        UserError: there is none of that name.
    """
    name = config.get('protocol', '')
    if name and name not in PROTOCOLS:
        raise UserError(f'config.protocol = {name!r}: expected one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name] if name else None


def applied(config) -> ConfigDict:
    """The config with what its protocol says in the place of what it leaves as it comes."""
    found = named(config)
    if found is None:
        return config
    config = ConfigDict(config.copy_and_resolve_references())
    values = {'clips': 0} | {
        name: getattr(found, name) for name in ('split', 'start', 'horizon', 'terms', 'label_size')
    }
    with config.unlocked(), config.ignore_type():
        for name, value in values.items():
            if _plain(config[name]) in UNSET[name]:
                config[name] = value
    return config


def departures(config, protocol: dict, source: str) -> list[str]:
    """In what a measured protocol (`Protocol.to_dict`) departs from the one that config.protocol
    names, a text each.

    Args:
        source: kind of the source, 'records' or the dataset itself.
    """
    found = named(config)
    if found is None:
        return []
    texts = []
    if source != found.dataset:
        texts.append(f'{source} instead of the files as published')
    if protocol['clips'] != found.clips:
        texts.append(f'{protocol["clips"]} of {found.clips} clips')
    for field, words in (
        ('split', 'split'),
        ('window', 'windows'),
        ('start', 'start'),
        ('stride', 'stride'),
        ('context', 'context frames'),
        ('horizon', 'future frames'),
        ('size', 'frames of'),
        ('label_size', 'labels of'),
    ):
        key = {'start': 'start_frame', 'context': 'context_frames'}.get(field, field)
        asked, given = _plain(getattr(found, field)), _plain(protocol[key])
        if given != asked and not (field == 'label_size' and not asked):
            texts.append(f'{words} {_text(given)} instead of {_text(asked)}')
    if abs(protocol['fps'] / found.fps - 1) > 0.01:
        texts.append(f'{protocol["fps"]:.3g} instead of {found.fps:.3g} frames per second')
    for name, start in found.networks.items():
        sha256 = protocol['evals'].get(name, {}).get('sha256', start)
        if not sha256.startswith(start):
            texts.append(f'{name} by network {sha256[:12]} instead of {start}...')
    return texts


def check_dataset(config, dataset: str) -> None:
    """Refuses clips of another dataset than the protocol's."""
    found = named(config)
    if found is not None and dataset != found.dataset:
        raise UserError(
            f'config.protocol = {config.protocol!r} is about {found.dataset}, and config.source = '
            f'{config.source!r} holds {dataset or "something else"}; give '
            f'--config.source={found.dataset}:FOLDER'
        )


def _plain(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _text(value):
    return 'x'.join(map(str, value)) if isinstance(value, tuple) else str(value)
