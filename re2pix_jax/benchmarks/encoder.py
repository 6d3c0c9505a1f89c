"""DINOv2-B with 4 registers on frames of 224x448, beside that of `transformers`.

    re2pix benchmark encoder --batch=4

Random weights, the same on both sides; float32.
"""

import jax
import numpy as np

from re2pix_jax.benchmarks import measuring
from re2pix_jax.convert import dinov2


def run(batch: int, threads: int, repeats: int) -> None:
    """Prints everything."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(num_register_tokens=4)
    ).eval()
    ours = dinov2.encoder_of(
        {name: value.numpy() for name, value in model.state_dict().items()}, 'the random model'
    )
    frames = np.random.default_rng(0).normal(size=(batch, 1, 224, 448, 3)).astype(np.float32)
    images = torch.from_numpy(np.ascontiguousarray(frames[:, 0].transpose(0, 3, 1, 2)))
    layers = ours.net.layers

    def theirs():
        with torch.inference_mode():
            states = model(images, output_hidden_states=True).hidden_states
            return torch.cat(
                [model.layernorm(states[layer + 1])[:, 5:] for layer in layers], dim=-1
            )

    error = np.abs(
        np.asarray(ours.encode(frames)).reshape(batch, -1, 3072) - theirs().numpy()
    ).max()
    seconds = measuring.in_turn(lambda: jax.block_until_ready(ours.encode(frames)), theirs, repeats)
    print(
        f'ViT-B/14 with 4 registers, 224x448, batch {batch}, float32; largest difference '
        f'{error:.1e}'
    )
    measuring.report([['seconds', *seconds, seconds[1] / seconds[0]]])
