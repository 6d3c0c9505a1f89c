"""What every evaluator is: options, columns, and a metric state for each method."""

import functools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from re2pix_jax.errors import UserError


class Column(NamedTuple):
    """A number that is reported, described here and nowhere else.

    Attributes:
        name: in reports; unique among all evaluators.
        title: over tables and plots, with the unit.
        higher: whether more of it is better.
        scale: from the stored number to the shown one.
        digits: shown behind the point.
    """

    name: str
    title: str
    higher: bool = False
    scale: float = 1.0
    digits: int = 3


class Clips(NamedTuple):
    """What is known of the clips before any is read.

    Attributes:
        source, split: where they come from, as the config says; count: how many are evaluated.
        context, horizon: true frames given, and future frames measured.
        fields: of a batch: 'frames', 'labels', 'depth', 'components', 'latents'.
        depth_kinds: 'metres', 'classes', or both; of the clips whose depth is known.
        label_size: (height, width) at which labels and depth come.
        open: (split, clips, frames, batch_size) -> loader of windows at the same size and stride.
    """

    source: str
    split: str
    count: int
    context: int
    horizon: int
    fields: frozenset
    depth_kinds: frozenset
    label_size: tuple[int, int]
    open: Any


class Evaluator:
    """Measures, for every method, what stands in the place of the future frames.

    A subclass is one file: COLUMNS, METHODS and `measure`, and what else it needs. It is made from
    an entry of config.evals, {'type': ..., and some of OPTIONS}.

    Attributes:
        COLUMNS: what it reports.
        METHODS: the methods that it measures, where the evaluated part has them; what is predicted
            is measured of the oracle too, where the config asks for that.
        FIELDS: of a batch that it needs.
        OPTIONS: names and defaults of its settings; 'methods' says which of METHODS, () all.
        parts: what `measure` is given: a pytree that passes through jit (heads, networks, probes).
        keep: whether what single clips gave is kept; kept: {name: array} of it, once reported.
        left_out: why nothing will be measured; None where all is well. closed: what `open` said.
    """

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    METHODS: ClassVar[tuple[str, ...]] = ('re2pix', 'copy_last', 'vae')
    FIELDS: ClassVar[frozenset] = frozenset({'frames'})
    OPTIONS: ClassVar[dict] = {}

    def __init__(self, name: str, settings: dict):
        known = {'methods': (), **self.OPTIONS}
        if unknown := sorted(set(settings) - set(known) - {'type'}):
            raise UserError(
                f'config.evals.{name} has no option {", ".join(unknown)}: type {settings["type"]} '
                f'takes {", ".join(known)}'
            )
        self.name, self.options = (
            name,
            known | {key: value for key, value in settings.items() if key != 'type'},
        )
        self.parts, self.left_out, self.closed, self.kept = (), None, None, {}
        self.seed, self.keep = 0, False

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of METHODS that the config asks for."""
        asked = self.options['methods']
        oracle = ('oracle',) if 're2pix' in self.METHODS and 'oracle' in asked else ()
        known = tuple(method for method in self.METHODS if not asked or method in asked)
        return (*known, *oracle)

    @property
    def measures(self) -> bool:
        """Whether it has anything to do."""
        return bool(self.methods) and not self.left_out

    def open(self) -> None:
        """Opens the bundles that the options name; what is not there is `left_out`, and named."""

    def check(self, part, clips: Clips) -> None:
        """Refuses, before anything runs, what does not fit the evaluated part or the clips.

        Raises:
            UserError: with the option to change.
        """
        if self.left_out:
            return
        if missing := sorted(self.FIELDS - clips.fields):
            self.left_out = (
                f'{self.titles}: the clips of {clips.source} come without {", ".join(missing)}'
            )

    def prepare(self, part, clips: Clips) -> None:
        """Fits what has to be fitted before the evaluation."""

    def views(self, parts, views: dict) -> dict:
        """Views that it measures beside those of the evaluated part, of what `prepare` found;
        traced.
        """
        del parts, views
        return {}

    def measure(self, parts, view, views: dict, batch: dict):
        """The metric state of one method on a batch, a leading axis of steps; traced."""
        raise NotImplementedError

    def add(self, total, found, known: np.ndarray):
        """`total` (None at first) with what `measure` gave for the next batch; on the host."""
        del known  # the state counts known clips alone
        return found if total is None else total.merge(found)

    def scores(self, state) -> dict[str, float | None]:
        """The columns of a state without its axis of steps; None where nothing was known."""
        values = state.compute()
        return {
            column.name: None if math.isnan(values[column.name]) else float(values[column.name])
            for column in self.COLUMNS
            if column.name in values
        }

    def report(self, states: dict) -> dict[str, tuple[dict, list[dict]]]:
        """{method: (columns over all steps, [columns of each step])}."""
        found = {}
        for method, state in states.items():
            count = len(jax.tree.leaves(state)[0])
            steps = [jax.tree.map(lambda x, k=k: x[k], state) for k in range(count)]
            joined = functools.reduce(lambda one, other: one.merge(other), steps)
            found[method] = self.scores(joined), [self.scores(step) for step in steps]
        return found

    def about(self) -> dict:
        """What of it belongs into the protocol, JSON-able."""
        return {}

    @property
    def titles(self) -> str:
        return ', '.join(column.title for column in self.COLUMNS)


def by_step(update, *arrays):
    """`update` of every step's arrays [B, ...]: arrays are [B, K, ...], the state gets a leading K.

    An array of a single step stands for all of them.
    """
    count = max(array.shape[1] for array in arrays)
    arrays = [array if array.shape[1] == count else array.repeat(count, axis=1) for array in arrays]
    return jax.vmap(update, in_axes=1)(*arrays)
