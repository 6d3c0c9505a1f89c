"""Stable Diffusion's VAE on frames of 256x512, beside that of `diffusers`.

    re2pix benchmark vae --batch=4

Random weights, the same on both sides; float32.
"""

import jax
import numpy as np

from re2pix_jax.benchmarks import measuring
from re2pix_jax.convert import autoencoder_kl


def run(batch: int, threads: int, repeats: int) -> None:
    """Prints everything."""
    import diffusers
    import torch

    torch.set_num_threads(threads)
    widths = (128, 256, 512, 512)
    model = diffusers.AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=4,
        down_block_types=['DownEncoderBlock2D'] * len(widths),
        up_block_types=['UpDecoderBlock2D'] * len(widths),
    ).eval()
    ours = autoencoder_kl.autoencoder_of(
        {name: value.numpy() for name, value in model.state_dict().items()},
        dict(model.config),
        'the random model',
    )
    frames = (
        np.random.default_rng(0).uniform(-1, 1, size=(batch, 1, 256, 512, 3)).astype(np.float32)
    )
    images = torch.from_numpy(np.ascontiguousarray(frames[:, 0].transpose(0, 3, 1, 2)))
    latents = np.asarray(ours.encode(frames))
    their_latents = (
        torch.from_numpy(np.ascontiguousarray(latents[:, 0].transpose(0, 3, 1, 2)))
        / ours.scaling_factor
    )
    rows = []
    for name, compute, other in (
        (
            'encode',
            lambda: jax.block_until_ready(ours.encode(frames)),
            lambda: model.encode(images).latent_dist.mean,
        ),
        (
            'decode',
            lambda: jax.block_until_ready(ours.decode_float(latents)),
            lambda: model.decode(their_latents).sample,
        ),
    ):
        with torch.inference_mode():
            seconds = measuring.in_turn(compute, other, repeats)
        rows.append([f'{name}, seconds', *seconds, seconds[1] / seconds[0]])
    print(f"Stable Diffusion's VAE, 256x512, batch {batch}, float32")
    measuring.report(rows)
