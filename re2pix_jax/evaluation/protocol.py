"""The protocol that a score stands under. No number is worth anything without it, so it travels
with every report.
"""

import dataclasses

from re2pix_jax.data import windows
from re2pix_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything about the data and the sampling that changes a score.

    Attributes:
        model: what is evaluated, as it was named.
        source, split, clips: the data, and how many clips of it.
        start_frame: native frame where the context begins; window: how windows are placed.
        target, context: of windows that end at a labelled frame: those frames, and their contexts.
        stride, fps: frames at 17 Hz from one frame to the next, and the rate that this makes.
        size, label_size: [height, width] in pixels of frames and of labels that are compared.
        context_frames, horizon: true frames given and future frames. last: only the last is
            compared.
        sampler, sampler_steps, guidance, guidance_channels, channels, seed: of the generator;
            channels: components that it is given, 0 for all.
        evals: {evaluator: what it says of itself: networks with their hashes, sets, fits}.
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
    sampler: str = ''
    sampler_steps: int = 0
    guidance: float = 0.0
    guidance_channels: int = 0
    channels: int = 0
    target: list = dataclasses.field(default_factory=list)
    context: list = dataclasses.field(default_factory=list)
    evals: dict = dataclasses.field(default_factory=dict)

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
    line = (
        f'{protocol["model"]} on {protocol["clips"]} clips of {protocol["source"]}, split '
        f'{protocol["split"]}: {given} at stride {protocol["stride"]} ({protocol["fps"]:.3g} '
        f'frames per second), {size} pixels'
    )
    line += f', labels {labels}' if labels != size else ''
    line += f', from frame {protocol["start_frame"]} on' if protocol['window'] == 'start' else ''
    if protocol['sampler']:
        line += f'; {protocol["sampler_steps"]} sampler steps ({protocol["sampler"]})'
        line += f', guidance {protocol["guidance"]:g}'
        if protocol['guidance']:
            line += f' of the first {protocol["guidance_channels"]} channels'
        line += f', {protocol["channels"]} channels' if protocol['channels'] else ''
        line += f', seed {protocol["seed"]}'
    return '\n'.join(
        [line, *(_evaluator(name, about) for name, about in protocol['evals'].items())]
    )


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
