"""Memory that converting a file of DINOv2-g's size takes; nothing beside it.

    re2pix benchmark convert

Needs 10 GB of disk.
"""

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.bundles.stored import Stored, write_safetensors
from re2pix_jax.convert import dinov2
from re2pix_jax.encoder import VisionTransformer


def run() -> None:
    """Prints everything."""
    net = VisionTransformer(
        patch_size=14,
        width=1536,
        depth=40,
        heads=24,
        registers=4,
        layers=(9, 19, 29, 39),
        position_grid=(37, 37),
        ffn='swiglu',
    )
    random = np.random.default_rng(0)

    def published(path, shape):
        shape = (
            (shape[1], 3, 14, 14)
            if 'patch_embed/kernel' in path
            else shape[::-1]
            if 'kernel' in path
            else shape
        )
        return Stored(
            shape, np.dtype(np.float32), lambda: random.standard_normal(shape, dtype=np.float32)
        )

    with tempfile.TemporaryDirectory() as folder:
        source, out = pathlib.Path(folder, 'dinov2_g.safetensors'), pathlib.Path(folder, 'bundle')
        expected = KINDS['encoder'].expected(net, {}, {}, 'DINOv2-g')
        tensors = {
            key: published(path, shape) for key, path, shape in dinov2.TABLE.sources(expected)
        }
        write_safetensors(source, tensors, lambda *_: np.float32)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, '-m', 're2pix_jax', 'convert', 'dinov2', str(source), str(out)],
            check=True,
        )
        seconds = time.perf_counter() - began
        peak, size = (
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            source.stat().st_size,
        )
    print(
        f'file {size / 1e9:.2f} GB, peak memory of converting it {peak / 1e9:.2f} GB: '
        f'{peak / size:.2f} times; {seconds:.0f} s'
    )
