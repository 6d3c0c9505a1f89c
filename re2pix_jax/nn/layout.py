"""How what networks compute lies on the devices of the mesh that is set (`jax.set_mesh`), by names.

    'data', 'fsdp'   share the clips; over 'fsdp' parameters are cut, too, where they are kept
    'tensor'         shares heads and hidden widths

Between layers arrays are held by clip. Otherwise the way in which parameters are kept spreads to
what is computed of them, and whole batches travel. Without a mesh, on one device or where a length
does not divide, nothing is held.
"""

import functools
import math

import jax
from jax.sharding import PartitionSpec as P

CLIPS = 'data', 'fsdp'
"""The axes of the mesh over which clips lie, the outer one first."""
TENSOR = 'tensor'


def devices(*axes: str) -> int:
    """How many devices these axes of the mesh that is set have, one without a mesh."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return math.prod(sizes.get(axis, 1) for axis in axes)


def platform() -> str:
    """What is compiled for: the platform of the mesh that is set, which need not be here, or else
    the default one.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def hold(x, *last: str | None):
    """An array [B, ...] held by clip along its first axis; its last ones over the axes of the mesh
    that `last` names, whole along all others.

    The first axis may be clips and what follows them, flattened: each device then has that of its
    clips.
    """
    clips = devices(*CLIPS)
    if devices(*CLIPS, TENSOR) == 1 or x.shape[0] % clips:
        return x
    return jax.lax.with_sharding_constraint(x, P(CLIPS, *_last(x.shape[1:], last)))


def by_device(function, *last: str | None):
    """A function of arrays [B, ...] that gives one like the first, computed by each device of its
    own part, as `hold` would have it lie: for kernels, which the compiler does not cut.
    """

    def run(*arrays):
        clips = devices(*CLIPS)
        if devices(*CLIPS, TENSOR) == 1:
            return function(*arrays)
        first = None if arrays[0].shape[0] % clips else CLIPS
        specs = tuple(P(first, *_last(x.shape[1:], last)) for x in arrays)
        return jax.shard_map(function, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)

    return run


def whole(kernel, *last: str | None):
    """A kernel as a product reads it: gathered from where it is kept, but for the last axes, which
    lie over the axes of the mesh that `last` names.
    """
    if devices(*CLIPS, TENSOR) == 1:
        return kernel
    return _gathered(P(*_last(kernel.shape, last)), kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(spec, kernel):
    return jax.lax.with_sharding_constraint(kernel, spec)


# The gradient goes back unheld: it is summed to where its parameter is kept, and whole nowhere.
_gathered.defvjp(
    lambda spec, kernel: (_gathered(spec, kernel), None),
    lambda spec, _, gradient: (gradient,),
)


def _last(shape, names):
    names = (None,) * (len(shape) - len(names)) + names
    return [
        name if name and length % devices(name) == 0 else None
        for length, name in zip(shape, names, strict=True)
    ]
