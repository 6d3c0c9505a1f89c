"""What a notebook shows of a part, instead of a megabyte of weights."""

import dataclasses
import weakref

import flax.linen as nn
import jax

SIZES = ('patch_size', 'width', 'widths', 'depth', 'latent_channels', 'classes')
"""Fields of networks that tell one from another."""
LEFT_OUT = ('scaling_factor', 'shift_factor')
"""Numbers of parts that tell a reader nothing."""


_origins: dict[tuple, str] = {}  # where weights came from, by their first array


def remember(part, origin: str) -> None:
    """Lets the summary of a part, and of others that have its weights, say where it came from."""
    leaf = next(iter(jax.tree.leaves(part)), None)
    if leaf is not None:
        key = type(part), id(leaf)
        _origins[key] = origin
        weakref.finalize(leaf, _origins.pop, key, None)


def summary(part) -> str:
    """Kind, networks, sizes and numbers of parameters of a part (a dataclass) and of those in it,
    a line each; arrays as dtype and shape; and where the weights came from.
    """
    origin = _origins.get((type(part), id(next(iter(jax.tree.leaves(part)), None))))
    return _described(part, [f'from {origin[-40:]}'] if origin else [])


def _described(part, facts):
    inner = []
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
            own = type(value).__repr__ is not summary
            text = repr(value) if own else _described(value, [])
            inner += f'{name}: {text.partition(": ")[2]}'.splitlines()
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
