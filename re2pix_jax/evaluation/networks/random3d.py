"""Three 3-D convolutions of random kernels on pixels: a network of video that nobody trained, as a
check on one that somebody did.

There is no file of weights. The seed and the fields below are all of it: kernels come from the
Mersenne Twister of `numpy.random.RandomState`, whose stream is frozen, and so they are the same
everywhere and in every version. [O]
"""

import hashlib
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from re2pix_jax.nn.convolution import beside_in_time

WIDTHS = (16, 32, 64)
KERNEL = (3, 3, 3)
STRIDE = (1, 2, 2)


class Random3D(flax.struct.PyTreeNode):
    """The kernels of all layers, float32 [3, 3, 3, C, C'], and the seed that they came from.

    Kernels are normal with the deviation √(2 / inputs), and sum to zero over a window in each
    channel: a constant video gives zeros, so that what counts is structure in space and time.
    """

    kernels: tuple
    seed: int = flax.struct.field(pytree_node=False)

    @classmethod
    def create(cls, seed: int = 0) -> 'Random3D':
        """The network of a seed, 0 to 2³² - 1."""
        random, kernels, inputs = np.random.RandomState(seed), [], 3
        for width in WIDTHS:
            kernel = random.standard_normal((*KERNEL, inputs, width))
            kernel -= kernel.mean((0, 1, 2))
            kernel *= math.sqrt(2 / (math.prod(KERNEL) * inputs))
            kernels.append(jnp.asarray(kernel, jnp.float32))
            inputs = width
        return cls(tuple(kernels), seed)

    @property
    def sha256(self) -> str:
        """Of the architecture and the kernels in half precision."""
        found = hashlib.sha256(f'random3d {WIDTHS} {KERNEL} {STRIDE} {self.seed}\n'.encode())
        for kernel in self.kernels:
            found.update(np.asarray(kernel, np.float16).tobytes())
        return found.hexdigest()

    def features(self, clips: UInt8[Array, 'b t h w 3']) -> Float[Array, 'b d']:
        """Means over time and place of the last layer's channels, behind the ReLU: [B, 64]."""
        x = clips.astype(jnp.float32) / 127.5 - 1
        for kernel in self.kernels:
            # Time's taps become channels: [3, 3, 3, C, C'] → [3, 3, 3C, C'].
            flat = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], -1, kernel.shape[-1])
            frames = beside_in_time(x).reshape(-1, *x.shape[2:4], flat.shape[2])
            frames = jax.lax.conv_general_dilated(
                frames, flat, STRIDE[1:], 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
            )
            x = jax.nn.relu(frames).reshape(*x.shape[:2], *frames.shape[1:])
        return x.mean((1, 2, 3))
