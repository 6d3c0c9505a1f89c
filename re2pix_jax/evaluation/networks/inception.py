"""Inception v3 as FID wants it: the network of the 2015 TensorFlow release, whose weights
pytorch-fid publishes. [R]

It is not torchvision's Inception: poolings inside the blocks leave the border out of their
averages, and the last block takes a maximum. Blocks and layers have the published names.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from re2pix_jax.nn.summary import summary

SIDE = 299


class Unit(nn.Module):
    """Convolution without bias, batch norm with the running statistics, ReLU."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = 'SAME'

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features,
            self.kernel,
            self.stride,
            self.padding,
            use_bias=False,
            precision='highest',
            name='conv',
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name='bn')(x))


def _pool(kind, x, stride=1):
    if kind == 'max':
        return nn.max_pool(x, (3, 3), (stride, stride), 'SAME' if stride == 1 else 'VALID')
    return nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False)


class Mixed(nn.Module):
    """Branches side by side, their channels one after the other. What shrinks does so by 2 and pads
    nothing.

    Attributes:
        branches: of each its steps in order: (name, features, kernel) is a `Unit`, with a fourth
            entry one of stride 2; a list of them stands side by side; 'average' and 'max' pool 3x3,
            'shrink' takes the maximum with stride 2.
    """

    branches: tuple

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([self._branch(x, steps) for steps in self.branches], axis=-1)

    def _branch(self, x, steps):
        for step in steps:
            if step == 'shrink':
                x = _pool('max', x, 2)
            elif isinstance(step, str):
                x = _pool(step, x)
            elif isinstance(step[0], tuple):
                x = jnp.concatenate([self._branch(x, (one,)) for one in step], axis=-1)
            else:
                name, features, kernel, *shrinks = step
                x = Unit(features, kernel, *((2, 'VALID') if shrinks else ()), name=name)(x)
        return x


def _a(pooled):
    return (
        (('branch1x1', 64, (1, 1)),),
        (('branch5x5_1', 48, (1, 1)), ('branch5x5_2', 64, (5, 5))),
        (
            ('branch3x3dbl_1', 64, (1, 1)),
            ('branch3x3dbl_2', 96, (3, 3)),
            ('branch3x3dbl_3', 96, (3, 3)),
        ),
        ('average', ('branch_pool', pooled, (1, 1))),
    )


def _b():
    return (
        (('branch3x3', 384, (3, 3), 2),),
        (
            ('branch3x3dbl_1', 64, (1, 1)),
            ('branch3x3dbl_2', 96, (3, 3)),
            ('branch3x3dbl_3', 96, (3, 3), 2),
        ),
        ('shrink',),
    )


def _c(inner):
    return (
        (('branch1x1', 192, (1, 1)),),
        (
            ('branch7x7_1', inner, (1, 1)),
            ('branch7x7_2', inner, (1, 7)),
            ('branch7x7_3', 192, (7, 1)),
        ),
        (
            ('branch7x7dbl_1', inner, (1, 1)),
            ('branch7x7dbl_2', inner, (7, 1)),
            ('branch7x7dbl_3', inner, (1, 7)),
            ('branch7x7dbl_4', inner, (7, 1)),
            ('branch7x7dbl_5', 192, (1, 7)),
        ),
        ('average', ('branch_pool', 192, (1, 1))),
    )


def _d():
    return (
        (('branch3x3_1', 192, (1, 1)), ('branch3x3_2', 320, (3, 3), 2)),
        (
            ('branch7x7x3_1', 192, (1, 1)),
            ('branch7x7x3_2', 192, (1, 7)),
            ('branch7x7x3_3', 192, (7, 1)),
            ('branch7x7x3_4', 192, (3, 3), 2),
        ),
        ('shrink',),
    )


def _e(pool):
    return (
        (('branch1x1', 320, (1, 1)),),
        (
            ('branch3x3_1', 384, (1, 1)),
            (('branch3x3_2a', 384, (1, 3)), ('branch3x3_2b', 384, (3, 1))),
        ),
        (
            ('branch3x3dbl_1', 448, (1, 1)),
            ('branch3x3dbl_2', 384, (3, 3)),
            (('branch3x3dbl_3a', 384, (1, 3)), ('branch3x3dbl_3b', 384, (3, 1))),
        ),
        (pool, ('branch_pool', 192, (1, 1))),
    )


MIXED = (
    {
        'Mixed_5b': _a(32),
        'Mixed_5c': _a(64),
        'Mixed_5d': _a(64),
        'Mixed_6a': _b(),
        'Mixed_6b': _c(128),
        'Mixed_6c': _c(160),
        'Mixed_6d': _c(160),
        'Mixed_6e': _c(192),
    },
    {'Mixed_7a': _d(), 'Mixed_7b': _e('average'), 'Mixed_7c': _e('max')},
)


class InceptionV3(nn.Module):
    """Images [N, 299, 299, 3] in [-1, 1] → the output of each of four blocks, averaged over space:
    [N, 64], 192, 768 and 2048.
    """

    @nn.compact
    def __call__(self, images):
        x = Unit(32, (3, 3), 2, 'VALID', name='Conv2d_1a_3x3')(images)
        x = Unit(32, (3, 3), 1, 'VALID', name='Conv2d_2a_3x3')(x)
        x = Unit(64, (3, 3), name='Conv2d_2b_3x3')(x)
        blocks = [_pool('max', x, 2)]
        x = Unit(80, (1, 1), name='Conv2d_3b_1x1')(blocks[-1])
        x = Unit(192, (3, 3), 1, 'VALID', name='Conv2d_4a_3x3')(x)
        blocks.append(_pool('max', x, 2))
        for block in MIXED:
            x = blocks[-1]
            for name, branches in block.items():
                x = Mixed(branches, name=name)(x)
            blocks.append(x)
        return tuple(block.mean((1, 2)) for block in blocks)


class Inception(flax.struct.PyTreeNode):
    """Inception v3 with its weights: the features of FID."""

    params: Any
    net: InceptionV3 = flax.struct.field(pytree_node=False)

    __repr__ = summary

    @jax.jit
    def features(self, frames):
        """Frames [B, T, H, W, 3], uint8 or float in [-1, 1], → float32 [B, T, 2048]."""
        return self.blocks(frames)[-1]

    @jax.jit
    def blocks(self, frames):
        """The four blocks' means, [B, T, 64], 192, 768 and 2048. Frames are resized to 299x299,
        bilinearly without antialiasing. [R]

        A step in time after the other, all clips together: clips may lie on several devices.
        """
        return jax.tree.map(
            lambda x: x.swapaxes(0, 1),
            jax.lax.map(
                lambda images: self.net.apply(self.params, resized(images, SIDE)),
                frames.swapaxes(0, 1),
            ),
        )


def resized(images, side):
    """Images [..., H, W, 3], uint8 or float in [-1, 1], → float32 [..., side, side, 3] in [-1, 1],
    bilinear, pixel centres aligned.
    """
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 127.5 - 1
    return jax.image.resize(
        images, (*images.shape[:-3], side, side, 3), 'linear', antialias=False, precision='highest'
    )
