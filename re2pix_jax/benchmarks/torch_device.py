"""Where the peers in PyTorch compute: where ours does."""

import jax
import torch

DEVICE = torch.device('cuda' if jax.default_backend() == 'gpu' else 'cpu')


def finish() -> None:
    """Waits for what a GPU still computes."""
    if DEVICE.type == 'cuda':
        torch.cuda.synchronize()


def compiled(layers) -> None:
    """Compiles each of these layers where there is a GPU: as torch advises for layers of one
    kind.
    """
    if DEVICE.type == 'cuda':
        for layer in layers:
            layer.compile()
