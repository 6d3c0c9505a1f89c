"""I3D (two-stream inflated Inception, RGB, 400 classes of Kinetics), the feature network of FVD.
[R]

FVD's feature is the logits' mean over time, as the usual implementations in PyTorch take it. Layers
have the names of the published file. Convolutions and poolings pad as TensorFlow does ('SAME'): as
little as makes every stride fit, the larger half at the end.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.evaluation.networks.inception import resized
from re2pix_jax.nn.summary import summary

SIDE = 224
LEAST_FRAMES = 9
"""Time shrinks by 8, and the last pooling takes 2 steps of what is left."""
USUAL_FRAMES = 16


class Unit(nn.Module):
    """Convolution without bias, batch norm with the running statistics, ReLU."""

    features: int
    kernel: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features,
            (self.kernel,) * 3,
            self.stride,
            'SAME',
            use_bias=False,
            precision='highest',
            name='conv3d',
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name='bn')(x))


class Mixed(nn.Module):
    """Four branches; `widths`: 1x1, then (narrow, 3x3) twice, then 1x1 behind a maximum."""

    widths: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x):
        b0, b1a, b1b, b2a, b2b, b3b = self.widths
        return jnp.concatenate(
            [
                Unit(b0, name='b0')(x),
                Unit(b1b, 3, name='b1b')(Unit(b1a, name='b1a')(x)),
                Unit(b2b, 3, name='b2b')(Unit(b2a, name='b2a')(x)),
                Unit(b3b, name='b3b')(_pool(x, 3, 1)),
            ],
            axis=-1,
        )


def _pool(x, window, stride):
    """Largest of `window` and stride in (time, height, width), or of the same in all."""
    sides = lambda value: value if isinstance(value, tuple) else (value,) * 3
    return nn.max_pool(x, sides(window), sides(stride), 'SAME')


LAYERS = (
    ('Conv3d_1a_7x7', (64, 7, 2)),
    ((1, 3, 3), (1, 2, 2)),
    ('Conv3d_2b_1x1', (64,)),
    ('Conv3d_2c_3x3', (192, 3)),
    ((1, 3, 3), (1, 2, 2)),
    ('Mixed_3b', (64, 96, 128, 16, 32, 32)),
    ('Mixed_3c', (128, 128, 192, 32, 96, 64)),
    (3, 2),
    ('Mixed_4b', (192, 96, 208, 16, 48, 64)),
    ('Mixed_4c', (160, 112, 224, 24, 64, 64)),
    ('Mixed_4d', (128, 128, 256, 24, 64, 64)),
    ('Mixed_4e', (112, 144, 288, 32, 64, 64)),
    ('Mixed_4f', (256, 160, 320, 32, 128, 128)),
    (2, 2),
    ('Mixed_5b', (256, 160, 320, 32, 128, 128)),
    ('Mixed_5c', (384, 192, 384, 48, 128, 128)),
)
"""(name, sizes) of a `Unit` or `Mixed`; (window, stride) of a pooling."""


class InceptionI3D(nn.Module):
    """Clips [B, T, 224, 224, 3] in [-1, 1] → features [B, T', 1024] and logits [B, T', classes], T'
    = ceil(T / 8) - 1.
    """

    classes: int = 400

    @nn.compact
    def __call__(self, clips):
        x = clips
        for name, sizes in LAYERS:
            if not isinstance(name, str):
                x = _pool(x, name, sizes)
            elif name.startswith('Mixed'):
                x = Mixed(sizes, name=name)(x)
            else:
                x = Unit(*sizes, name=name)(x)
        features = nn.avg_pool(x, (2, 7, 7))
        logits = nn.Conv(self.classes, (1, 1, 1), precision='highest', name='logits')(features)
        return features.mean((2, 3)), logits.mean((2, 3))


class I3D(flax.struct.PyTreeNode):
    """I3D with its weights: the features of FVD."""

    params: Any
    net: InceptionI3D = flax.struct.field(pytree_node=False)

    __repr__ = summary

    def features(self, clips):
        """Clips [B, T, H, W, 3], uint8 or float in [-1, 1] → the logits' mean over time, float32
        [B, 400].

        Raises:
            ValueError: fewer than 9 frames.
        """
        return self.activations(clips)[1].mean(1)

    def activations(self, clips):
        """(features [B, T', 1024], logits [B, T', 400]), of clips resized to 224x224, bilinearly.
        [R]
        """
        check_frames(clips.shape[1])
        return self._activations(clips)

    @jax.jit
    def _activations(self, clips):
        return self.net.apply(self.params, resized(clips, SIDE))


def check_frames(frames: int):
    """Raises ValueError where clips of so many frames are too short."""
    if frames < LEAST_FRAMES:
        raise ValueError(
            f'clips of {frames} frames, context and future together; I3D takes at least '
            f'{LEAST_FRAMES}, usual are {USUAL_FRAMES}: lengthen the horizon by '
            f'{LEAST_FRAMES - frames} or more, or leave FVD out'
        )
