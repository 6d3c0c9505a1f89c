"""What a notebook shows of a part, instead of a megabyte of weights."""

import dataclasses

import flax.linen as nn
import jax

SIZES = ('patch_size', 'width', 'widths', 'depth', 'latent_channels', 'classes')
"""Fields of networks that tell one from another."""
LEFT_OUT = ('scaling_factor', 'shift_factor')
"""Numbers of parts that tell a reader nothing."""


def summary(part) -> str:
    """Kind, networks, sizes and numbers of parameters of a part (a dataclass) and of those in it,
    a line each; arrays as dtype and shape.
    """
    facts, inner = [], []
    for field in dataclasses.fields(part):
        name, value = field.name, getattr(part, field.name)
        if isinstance(value, nn.Module):
            sizes = [
                f'{size.removesuffix("_size")} {getattr(value, size)}'
                for size in SIZES
                if hasattr(value, size)
            ]
            facts.append(f'{type(value).__name__} ({", ".join(sizes)})')
        elif dataclasses.is_dataclass(value):
            inner += f'{name}: {repr(value).partition(": ")[2]}'.splitlines()
        elif hasattr(value, 'shape'):
            facts.append(f'{name} {value.dtype} {list(value.shape)}')
        elif name == 'params':
            count = sum(getattr(leaf, 'size', 0) for leaf in jax.tree.leaves(value))
            facts.append(f'{count / 1e6:.3g} M parameters')
        elif value != field.default and name not in LEFT_OUT:
            numbers = value if isinstance(value, tuple) else (value,)
            told = (f'{x:.3g}' if isinstance(x, float) else str(x) for x in numbers)
            facts.append(f'{name} {" ".join(told)}')
    first = f'{type(part).__name__}: {", ".join(facts)}'
    return '\n'.join([first, *(f'  {line}' for line in inner)])
