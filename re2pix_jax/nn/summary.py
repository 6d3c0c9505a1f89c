"""What a notebook shows of a part, instead of a megabyte of weights."""

import dataclasses
import weakref

import flax.linen as nn
import jax

SIZES = {
    'patch_size': 'patch',
    'width': 'width',
    'widths': 'widths',
    'depth': 'depth',
    'latent_channels': 'latents',
    'classes': 'classes',
}
"""Fields of networks that tell one from another, and the words for them."""
LEFT_OUT = ('scaling_factor', 'shift_factor', 'sampler', 'sampler_steps', 'sampler_grid')
"""What is set of parts beside their sizes."""
LONGEST = 60
"""Characters of a place that are told: its beginning and its end."""

_origins: dict[tuple, str] = {}  # where weights came from, by their first array


def remember(part, place: str | None) -> None:
    """Lets the summary of a part, and of others that have its weights, say where it came from."""
    leaf = next(iter(jax.tree.leaves(part)), None)
    if leaf is not None and place is not None:
        key = type(part), id(leaf)
        _origins[key] = place
        weakref.finalize(leaf, _origins.pop, key, None)


def origin(part) -> str | None:
    """Where a part came from, as far as that was remembered."""
    return _origins.get((type(part), id(next(iter(jax.tree.leaves(part)), None))))


def summary(part) -> str:
    """Kind, networks, sizes and numbers of parameters of a part (a dataclass) and of those in it,
    a line each; arrays as dtype and shape; and where the weights came from.
    """
    place = origin(part)
    if place and len(place) > LONGEST:
        place = f'{place[: LONGEST // 2 - 2]}...{place[1 - LONGEST // 2 :]}'
    return _described(part, [f'from {place}'] if place else [])


def _described(part, facts):
    inner = []
    if hasattr(part, 'in_words'):
        return f'{type(part).__name__}: {", ".join([*facts, part.in_words()])}'
    for field in dataclasses.fields(part):
        name, value = field.name, getattr(part, field.name)
        if isinstance(value, nn.Module):
            sizes = [
                f'{word} {_number(getattr(value, size))}'
                for size, word in SIZES.items()
                if hasattr(value, size)
            ]
            facts.append(f'{type(value).__name__} ({", ".join(sizes)})')
        elif dataclasses.is_dataclass(value):
            inner += f'{name}: {_described(value, []).partition(": ")[2]}'.splitlines()
        elif hasattr(value, 'shape'):
            facts.append(f'{name} {value.dtype} {list(value.shape)}')
        elif name == 'params':
            count = sum(getattr(leaf, 'size', 0) for leaf in jax.tree.leaves(value))
            facts.append(f'{count / 1e6:.3g} M parameters')
        elif value != field.default and name not in LEFT_OUT:
            facts.append(f'{name} {_number(value)}')
    first = f'{type(part).__name__}: {", ".join(facts)}'
    return '\n'.join([first, *(f'  {line}' for line in inner)])


def _number(value) -> str:
    """Of a field, as text: 64x128 of two, 16 32 64 of more."""
    several = value if isinstance(value, tuple) else (value,)
    texts = [f'{x:.3g}' if isinstance(x, float) else str(x) for x in several]
    return ('x' if len(texts) == 2 else ' ').join(texts)
