"""The protocol that a score stands under. No Fréchet distance is worth anything without it, so it
travels with every report.
"""

import dataclasses
import hashlib

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Features:
    """The features that a distance is taken between.

    Attributes:
        network: bundle, or what else tells it.
        sha256: of its weights: of the published file where it was converted from one, else of the
            parameters.
        sample: what one sample is, with frames and size as the network sees them.
        dimensions, samples: of features and of each set.
    """

    network: str
    sha256: str
    sample: str
    dimensions: int
    samples: int


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything about the data and the sampling that changes a score.

    Attributes:
        source, split, clips: the data, and how many clips of it.
        start_frame: native frame where the context begins.
        stride, fps: frames at 17 Hz from one frame to the next, and the rate that this makes.
        size: [height, width] in pixels of the frames that are compared.
        context_frames, horizon: true frames given and future frames compared. Image measures and
            Fréchet measures of the encoder see the future; FVD sees context and future, as one
            clip.
        sampler, sampler_steps, guidance, guidance_channels, channels, seed: of the generator;
            channels: components that it is given, 0 for all.
        probe: how the linear probes are fitted.
        features: {measure: `Features`}.
    """

    source: str
    split: str
    clips: int
    start_frame: int
    stride: int
    fps: float
    size: list
    context_frames: int
    horizon: int
    sampler: str
    sampler_steps: int
    guidance: float
    guidance_channels: int
    channels: int
    seed: int
    probe: dict
    features: dict = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict:
        """JSON-able."""
        return dataclasses.asdict(self)


def describe(protocol: dict) -> str:
    """`Protocol.to_dict` in words, one line, then one for every feature network."""
    height, width = protocol['size']
    guided = (
        f' of the first {protocol["guidance_channels"]} channels' if protocol['guidance'] else ''
    )
    given = f', {protocol["channels"]} channels' if protocol['channels'] else ''
    lines = [
        f'{protocol["clips"]} clips of {protocol["source"]}, split {protocol["split"]}: '
        f'{protocol["context_frames"]} context and '
        f'{protocol["horizon"]} future frames at stride {protocol["stride"]} '
        f'({protocol["fps"]:.3g} frames per second), '
        f'{height}x{width} pixels, from frame {protocol["start_frame"]} on; '
        f'{protocol["sampler_steps"]} sampler steps '
        f'({protocol["sampler"]}), guidance {protocol["guidance"]:g}{guided}{given}, seed '
        f'{protocol["seed"]}'
    ]
    lines += [
        f'{measure}: {features["samples"]} samples of {features["dimensions"]} dimensions, '
        f'{features["sample"]}; network '
        f'{features["network"]}, sha256 {features["sha256"][:12]}'
        for measure, features in protocol['features'].items()
    ]
    return '\n'.join(lines)


def fingerprint(parameters) -> str:
    """sha256 over a tree of arrays: their paths, shapes, types and bytes, however they came to be
    in memory.
    """
    found = hashlib.sha256()
    for path, leaf in sorted(
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
    ):
        array = np.ascontiguousarray(leaf)
        found.update(f'{path} {array.dtype.name} {array.shape}\n'.encode())
        found.update(array.tobytes())
    return found.hexdigest()
