"""The judge: a small network of video that this project trains itself, so that a Fréchet distance
between videos is to be had where the weights of I3D are not. [O]

(2+1)-D: each stage is a convolution over the frame, of stride 2, and one over time. Nothing is
normalised, for contrast, sharpness and the size of changes are what it is there to see. Every stage
is read, so that features know fine detail and large motion alike.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, UInt8

from re2pix_jax.nn.convolution import beside_in_time, conv
from re2pix_jax.nn.summary import summary

SHARDING = (
    (r'kernel$', P('fsdp', 'tensor')),
    (r'', P()),
)
MUON = ()

FRAMES = 5
"""Of a window: four, and the one before them, from which the first of them changes."""


class VideoNetwork(nn.Module):
    """Clips [B, T, H, W, 3] in [-1, 1] → what it reads of all of them [B, D], D = stages x reads,
    and the last maps but one [B, T, H/8, W/8, C], for tasks that ask about places.

    Attributes:
        widths: channels of each stage.
        reads: features that are taken of each: a 1x1 convolution, a ReLU, and the mean over time
            and place.
    """

    widths: tuple[int, ...] = (24, 48, 96, 128)
    reads: int = 16
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, clips):
        x, features, maps = clips, [], []
        for stage, width in enumerate(self.widths):
            frames = x.reshape(-1, *x.shape[2:])
            frames = conv(width, 4, self.dtype, stride=2, padding=1, name=f'space_{stage}')(frames)
            x = frames.reshape(*x.shape[:2], *frames.shape[1:])
            y = nn.Dense(width, dtype=self.dtype, name=f'time_{stage}')(beside_in_time(nn.relu(x)))
            x = nn.relu(x + y)
            read = nn.relu(nn.Dense(self.reads, dtype=self.dtype, name=f'read_{stage}')(x))
            features.append(read.astype(jnp.float32).mean((1, 2, 3)))
            maps.append(x)
        return jnp.concatenate(features, axis=-1), maps[-2 if len(maps) > 1 else -1]


class Judge(flax.struct.PyTreeNode):
    """The network with its weights."""

    params: Any
    net: VideoNetwork = flax.struct.field(pytree_node=False)

    __repr__ = summary

    def features(self, clips: UInt8[Array, 'b t h w 3']) -> Float[Array, 'b d']:
        """What the network reads of windows of `FRAMES` frames, or of as many as there are."""
        return self.net.apply(self.params, scaled(clips))[0]


def scaled(clips):
    """uint8 → float32 in [-1, 1]."""
    return clips.astype(jnp.float32) / 127.5 - 1
