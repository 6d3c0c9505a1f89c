"""One stack of layers for every network: how its layers are held, run and differentiated.

Parameters are stacked, [depth, ...] under one name. Whether the layers run as a loop, which
compiles for as long as one of them, or one after the other, is known here alone. So is what the
backward pass keeps of the forward pass.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from re2pix_jax.nn.layout import hold, platform

OPERAND = 'operand'
KERNEL = 'attention kernel'
"""The name of what an attention kernel gives and its backward pass reads."""


def operand(x):
    """Marks what a product reads and is in memory for that anyway: 'products' keeps it too."""
    return checkpoint_name(x, OPERAND)


def _fused_attention(primitive, *_, **__):
    """cuDNN's kernel, which is no product to jax; its second result is a number for each query."""
    return primitive.name.startswith('dot_product_attention_fwd')


_policies = jax.checkpoint_policies
_products = _policies.save_from_both_policies(
    _policies.dots_saveable, _policies.save_only_these_names(OPERAND, KERNEL)
)
KEPT = {
    'nothing': _policies.nothing_saveable,
    'products': _policies.save_from_both_policies(_products, _fused_attention),
    'everything': None,
}
"""What the backward pass has of a layer beside its input; the rest it computes again."""


class Layers(nn.Module):
    """Layers of one kind, one after the other.

    Attributes:
        layer: makes one, a module that is called with (x, *shared) or, where each layer has
            something of its own, (x, *shared, own), and returns the next x and what it gives beside
            it (or None).
        depth: how many.
        keep: key of `KEPT`.
        unroll: compile every layer by itself: faster steps, longer to compile. On TPUs, whose
            compiler then takes no end, they run as a loop all the same.
    """

    layer: Callable[..., nn.Module]
    depth: int
    keep: str = 'everything'
    unroll: bool = False

    @nn.compact
    def __call__(
        self,
        x,
        *shared,
        own: Any = None,
        last: Mapping[str, Any] | None = None,
        taps: tuple[int, ...] = (),
    ):
        """Runs x through the layers.

        Args:
            x: an array; of one shape and dtype, but for what the last layer returns.
            shared: what every layer is given.
            own: what each layer is given for itself, as another run of these layers gave it.
            last: fields in which the last layer differs. Where given, even if empty, what nobody
                reads of the last layer is neither computed nor differentiated.
            taps: numbers of layers. Those after the highest do not run.

        Returns:
            The last x, and what the layers gave beside it, to be passed as `own`; with `taps`, a
            list of the x after each of these instead.
        """
        if self.is_initializing():
            self._draw(x, shared, own)
        params = self.variables['params']
        count = 1 + max(taps) if taps else self.depth
        rngs = {}
        if self.has_rng('dropout'):
            rngs['dropout'] = jax.random.split(self.make_rng('dropout'), self.depth)
        inputs = params, own, rngs
        run = self._one_by_one if _unrolls(self.unroll) else self._loop
        return run(x, shared, inputs, count, last, taps)

    def _draw(self, x, shared, own):
        """Each layer's parameters from a key of its own."""
        first = () if own is None else (_apart(own, self.depth)[0],)
        make = lambda key: self.layer(parent=None).init(key, x, *shared, *first)['params']
        drawn = jax.vmap(make)(jax.random.split(self.make_rng('params'), self.depth))
        for name, leaves in drawn.items():
            self.put_variable('params', name, leaves)

    def _step(self, shared, **fields):
        """step(x, (a layer's parameters, its own, its random streams)) -> x, what it gives."""
        layer = self.layer(parent=None, **fields)

        def step(x, inputs):
            params, own, rngs = inputs
            given = () if own is None else (own,)
            x, beside = layer.apply({'params': params}, hold(x), *shared, *given, rngs=rngs)
            return hold(x), beside

        if KEPT[self.keep] is None:
            return step
        # In a loop nothing could be merged with the forward pass: no barriers are needed.
        return jax.checkpoint(step, policy=KEPT[self.keep], prevent_cse=_unrolls(self.unroll))

    def _one_by_one(self, x, shared, inputs, count, last, taps):
        step, given, kept = self._step(shared), [], {}
        for index, layer in zip(range(count), zip(*(_apart(part, self.depth) for part in inputs))):
            if last is not None and index == self.depth - 1:
                step = self._step(shared, **last)
            x, beside = step(x, layer)
            given.append(beside)
            if index in taps:
                kept[index] = x
        return x, [kept[index] for index in taps] if taps else given

    def _loop(self, x, shared, inputs, count, last, taps):
        step, places = self._step(shared), sorted(set(taps))
        looped = count - (last is not None and count == self.depth)
        # A slot for each tap and one that is written over and over.
        slots = np.array([places.index(i) if i in taps else len(places) for i in range(looped)])

        def body(carry, layer):
            x, kept = carry
            slot, inputs = layer
            x, beside = step(x, inputs)
            if taps:
                kept = jax.lax.dynamic_update_index_in_dim(kept, x, slot, 0)
            return (x, kept), beside

        kept = jnp.zeros((len(places) + 1, *x.shape), x.dtype) if taps else None
        before = inputs if looped == self.depth else _part(inputs, slice(looped))
        (x, kept), given = jax.lax.scan(body, (x, kept), (slots, before))
        if looped < count:
            x, beside = self._step(shared, **last)(x, _part(inputs, -1))
            given = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), given, beside)
        return x, [kept[places.index(index)] for index in taps] if taps else given


def for_sampling(params, unroll: bool):
    """Parameters of `Layers` as many evaluations in a row read them fastest.

    One after the other, layers read arrays of their own: slices would be copied every time.
    """
    return _apart(params, len(jax.tree.leaves(params)[0])) if _unrolls(unroll) else params


def _unrolls(asked: bool) -> bool:
    return asked and platform() != 'tpu'


def _part(stacked, index):
    return jax.tree.map(lambda leaf: leaf[index], stacked)


def _apart(stacked, depth: int) -> list:
    """A tree of stacked leaves as a list of one tree a layer; such a list passes."""
    if isinstance(stacked, list):
        return stacked
    leaves, tree = jax.tree.flatten(stacked)
    # Of a split the gradient is one concatenation, of slices a sum of padded arrays.
    rows = [[row[0] for row in jnp.split(leaf, depth)] for leaf in leaves]
    return [tree.unflatten(layer) for layer in zip(*rows)] if leaves else depth * [stacked]
