"""The protocol that a score stands under. No number is worth anything without it, so it travels
with every report.
"""

import dataclasses

from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import published
from re2pix_jax.progress import counted

ALIKE = (
    *('name', 'departures', 'contents', 'split', 'clips', 'start_frame', 'window', 'target'),
    *('context', 'stride', 'fps', 'size', 'label_size', 'context_frames', 'horizon', 'last'),
)
"""Fields in which scores of one table agree; and the source, where clips have no checksum."""
NETWORK = ('sha256', 'sample', 'field_of_view')
"""What an evaluator says of itself in which they agree."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything about the data and the sampling that changes a score.

    Attributes:
        model: what is evaluated, as it was named.
        source, split, clips: the data, and how many clips of it.
        start_frame: native frame where the context begins; window: how windows are placed.
        target, context: of windows that end at a labelled frame: those frames, and their contexts.
        stride: frames at 17 Hz from one frame to the next; fps, rates: what this makes of the
            clips, the median and, where they differ, the least and the most.
        size, label_size: [height, width] in pixels of frames and of labels that are compared.
        context_frames, horizon: true frames given and future frames. last: only the last is
            compared.
        sampler, sampler_steps, sampler_grid, guidance, guidance_channels, channels, context_noise,
            seed: of the generator; channels: components that it is given, 0 for all.
        evals: {evaluator: what it says of itself: networks with their hashes, sets, fits}.
        name, departures: of a protocol that is known by name, see `published`.
        dataset: what the source holds. contents: checksum of prepared clips, '' of others.
    """

    model: str
    source: str
    split: str
    clips: int
    start_frame: int
    window: str
    stride: int
    fps: float
    size: list
    label_size: list
    context_frames: int
    horizon: int
    last: bool
    seed: int
    rates: tuple = ()
    sampler: str = ''
    sampler_steps: int = 0
    sampler_grid: str = ''
    guidance: float = 0.0
    guidance_channels: int = 0
    channels: int = 0
    context_noise: float = 0.0
    target: list = dataclasses.field(default_factory=list)
    context: list = dataclasses.field(default_factory=list)
    evals: dict = dataclasses.field(default_factory=dict)
    name: str = ''
    departures: list = dataclasses.field(default_factory=list)
    dataset: str = ''
    contents: str = ''

    def to_dict(self) -> dict:
        """JSON-able."""
        return dataclasses.asdict(self)


def targets(source, clips: int, context: int, horizon: int, name: str):
    """(native frames that are forecast, the same in all clips of a dataset; for each its context).

    Raises:
        UserError: a clip has no such frame, or begins too late for it.
    """
    found = {}
    for index in range(min(clips or len(source), len(source))):
        target = getattr(source, 'target', lambda _: None)(index)
        try:
            if target is None:
                raise UserError('has no frame that a protocol evaluates; give a source that has')
            window = windows.target_window(target, context + horizon, windows.STRIDE)
        except UserError as error:
            raise UserError(f'{name}/{source.name(index)}: {error}') from error
        found[int(target)] = window[:context].tolist()
    return sorted(found), [found[target] for target in sorted(found)]


def describe(protocol: dict) -> str:
    """`Protocol.to_dict` in words: a line, then one for every evaluator that says something."""
    size, labels = ('x'.join(map(str, protocol[name])) for name in ('size', 'label_size'))
    horizon = protocol['horizon']
    compared = (
        f'the frame {horizon} step{"s" if horizon > 1 else ""} later'
        if protocol['last']
        else f'{horizon} future frames'
    )
    given = f'{protocol["context_frames"]} context frames and {compared}'
    rates = ' to '.join(f'{rate:.3g}' for rate in protocol.get('rates') or [protocol['fps']])
    line = (
        f'{protocol["model"]} on {counted(protocol["clips"], "clip")} of {protocol["source"]}, '
        f'split {protocol["split"]}: {given} at stride {protocol["stride"]} ({rates} frames per '
        f'second), {size} pixels'
    )
    line += f', labels {labels}' if labels != size else ''
    line += f', from frame {protocol["start_frame"]} on' if protocol['window'] == 'start' else ''
    if protocol['sampler']:
        line += f'; {drawing(protocol)}'
    named = []
    if name := protocol.get('name'):
        found = '; '.join(protocol['departures'])
        named.append(f'protocol {name}: {published.PROTOCOLS[name].about}')
        if found:
            named.append(f'departs from it: {found}; not to be compared with its scores')
    evals = (_evaluator(name, about) for name, about in protocol['evals'].items())
    return '\n'.join([*named, line, *evals])


def drawing(protocol: dict) -> str:
    """How stage 2 drew, in words."""
    how = f'{protocol["sampler"]}, {protocol.get("sampler_grid") or "even"} grid'
    line = f'{protocol["sampler_steps"]} sampler steps ({how}), guidance {protocol["guidance"]:g}'
    if protocol['guidance']:
        line += f' of the first {protocol["guidance_channels"]} channels'
    line += f', {protocol["channels"]} channels' if protocol['channels'] else ''
    noise = protocol.get('context_noise')
    line += f', context noise {noise:g}' if noise else ''
    return f'{line}, seed {protocol["seed"]}'


def check_alike(protocols: dict[str, dict]) -> None:
    """Refuses to put scores of different protocols into one table.

    Args:
        protocols: {what is scored: `Protocol.to_dict`}. Model, sampler, guidance and seed may
            differ; data, windows, sizes and the networks that judge may not.

    Raises:
        UserError: naming two that differ, and in what.
    """
    (first, one), *others = protocols.items()
    for name, other in others:
        if found := differences(one, other):
            raise UserError(
                f'{first} was judged by {_title(one)} and {name} by {_title(other)}: scores of '
                f'different protocols do not go into one table; they differ in {", ".join(found)}'
            )


def differences(one: dict, other: dict) -> list[str]:
    """In what two protocols differ that scores depend on, a text each."""
    data = ALIKE if one.get('contents') and other.get('contents') else ('source', *ALIKE)
    found = [
        f'{field} ({one.get(field)} against {other.get(field)})'
        for field in data
        if one.get(field) != other.get(field)
    ]
    for name in one['evals'].keys() & other['evals'].keys():
        mine, theirs = one['evals'][name], other['evals'][name]
        keys = [key for key in NETWORK if mine.get(key) != theirs.get(key)]
        found += [f'{name} {key} ({mine.get(key)} against {theirs.get(key)})' for key in keys]
    return sorted(found)


def _title(protocol) -> str:
    return protocol.get('name') or 'a protocol without name'


def _evaluator(name, about) -> str:
    words = dict(about)
    parts = []
    if 'samples' in words:
        parts.append(f'{words.pop("samples")} samples of {words.pop("dimensions")} dimensions')
        parts.append(words.pop('sample'))
    if 'sha256' in words:
        parts.append(f'{words.pop("network")} (sha256 {words.pop("sha256")[:12]})')
    parts += [f'{key.replace("_", " ")} {value}' for key, value in words.items()]
    return f'{name}: {", ".join(parts)}'
