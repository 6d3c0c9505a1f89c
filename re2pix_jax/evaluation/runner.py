"""The one evaluation: evaluators over the clips of a split, for whatever part is given.

A clip's noise comes from the seed and its record number, and sums go over clips and pixels, so that
results do not depend on batch size, order, or the number of devices and processes, up to rounding.
"""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import errors
from re2pix_jax.data import loader
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import compatibility, evaluators, views
from re2pix_jax.evaluation.batches import filled, numbered
from re2pix_jax.evaluation.results import Report
from re2pix_jax.progress import counted
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import sharding


class Evaluation:
    """Opened data and evaluators; `check` a part once, then `run` it as often as it changes.

    Args:
        evals: config.evals, {name: {'type': ..., options}}.
        data: the loader's fields (training.defaults.data).
        batch_size: clips at a time, of all processes, or as many more as all devices share out
            evenly; changes speed and memory, not results.
        seed: of the sampler's noise and of what is fitted.
        sampling: options of `Re2Pix.rollout`.
        methods: those that are measured; () all that there are.
        last: whether only the last of the future frames is measured.
        mesh: the devices that share the clips; None: all.
        label: what progress is told under.
        keep: whether the report keeps what single clips gave (`Report.kept`).

    Raises:
        UserError: data, bundles or settings that cannot be used.
    """

    def __init__(
        self,
        evals,
        data,
        batch_size,
        seed=0,
        sampling=None,
        methods=(),
        last=False,
        mesh=None,
        label='evaluate',
        keep=False,
    ):
        self.mesh = meshes.create() if mesh is None else mesh
        batch_size = meshes.filled(batch_size, self.mesh)
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.sampling, self.last = dict(sampling or {}), last
        self.label, self._observe = label, {}
        self.evaluators = evaluators.create(evals)
        for evaluator in self.evaluators:
            evaluator.seed, evaluator.keep = seed, keep
            asked = tuple(evaluator.options['methods'] or methods)
            if unknown := [name for name in asked if name not in views.TITLES]:
                raise UserError(
                    f'config: methods: {unknown[0]!r} is none of {", ".join(views.TITLES)}'
                )
            evaluator.options['methods'] = asked
            evaluator.open()
            evaluator.closed = evaluator.left_out
        share = meshes.share(self.mesh)
        self.batches = loader.create(data, batch_size, seed, training=False, share=share)
        self._start, self.rates = self.batches.get_state(), self.batches.rates()
        self.count = min(data.get('clips', 0) or self.batches.clips, self.batches.clips)
        self.scored = self.count  # after a run: those that could be read
        if not self.count:
            raise UserError(f'{data.sources[0]}: split {data.split} holds no clips to evaluate')

    def about(self) -> str:
        """What is evaluated on, in words."""
        clips = counted(self.scored, 'clip')
        return f'{clips} of {", ".join(self.data.sources)}, split {self.data.split}'

    def close(self) -> None:
        """Ends the processes that read."""
        self.batches.close()

    def check(self, part) -> None:
        """Refuses what does not fit, before anything runs.

        Raises:
            UserError: see `evaluators.base.Evaluator.check`.
        """
        context, frames = views.context_of(part), self.data.frames
        if context and frames <= context:
            raise UserError(
                f'{frames} frames of a clip are too few to evaluate: {context} are given before '
                f'the first that is compared; ask for at least {context + 1}'
            )
        self.horizon = frames - context
        if self.sampling:
            with errors.blaming('config'):
                part.drawing(**self.sampling)
        clips = evaluators.Clips(
            source=', '.join(self.data.sources),
            split=self.data.split,
            count=self.count,
            context=context,
            horizon=1 if self.last else self.horizon,
            fields=frozenset(self.batches.fields),
            depth_kinds=frozenset().union(*self.batches.depth_kinds().values()),
            label_size=tuple(self.data.get('label_size', ()) or self.data.size),
            open=self.open_split,
        )
        for evaluator in self.evaluators:
            evaluator.left_out = evaluator.closed
            evaluator.check(part, clips)
        measuring = [evaluator for evaluator in self.evaluators if evaluator.measures]
        fields = frozenset().union(*(evaluator.FIELDS for evaluator in measuring))
        if self.data.get('label_size'):  # what is asked for is held against the labels anyway
            fields |= {'labels'}
        for source, name in zip(self.batches.sources, self.data.sources, strict=True):
            size = tuple(self.data.size)
            compatibility.check_label_size(source, name, size, clips.label_size, fields)
        self.clips = clips

    def run(self, part) -> Report:
        """All numbers of `part`, anything that bundles.load or a task gives."""
        self.check(part)
        measuring = [evaluator for evaluator in self.evaluators if evaluator.measures]
        with jax.set_mesh(self.mesh):
            for evaluator in measuring:
                evaluator.prepare(part, self.clips)
            measuring = [evaluator for evaluator in measuring if evaluator.measures]
            placed = self._placed(part, sharding.of_parts(part, self.mesh))
            totals = self._totals(placed, measuring)
        return Report.of(measuring, totals, self.evaluators)

    def _totals(self, part, measuring):
        """{(evaluator, method): metric state} over the clips."""
        whole = meshes.replicated(self.mesh)
        parts = {evaluator.name: evaluator.parts for evaluator in measuring}
        parts = self._placed(parts, jax.tree.map(lambda _: whole, parts))
        names = tuple(evaluator.name for evaluator in measuring)
        if names not in self._observe:  # another part may leave out others
            self._observe[names] = jax.jit(
                functools.partial(self._measure, measuring),
                out_shardings=meshes.replicated(self.mesh),
            )
        totals, scored = {}, 0
        self.batches.set_state(self._start)
        for first, local in numbered(self.batches, self.count, self.batch_size, self.label):
            batch = filled(local, self.batches.rows, first, self.count)
            if self.last:
                batch = self.only_last(batch)
            found, known = self._observe[names](part, parts, meshes.global_batch(batch, self.mesh))
            known = np.asarray(known)
            scored += int(known.sum())
            for evaluator in measuring:
                for method, state in found[evaluator.name].items():
                    key = evaluator.name, method
                    totals[key] = evaluator.add(totals.get(key), state, known)
        self.scored = scored
        return totals

    def _measure(self, measuring, part, parts, batch):
        shown = views.views_of(part, batch, self.horizon, self.last, self.sampling, self.seed)
        if views.context_of(part):
            batch = {
                name: values[:, self.clips.context :] if name in ('labels', 'depth') else values
                for name, values in batch.items()
            }
        found = {}
        for evaluator in measuring:
            own = parts[evaluator.name]
            of = shown | evaluator.views(own, shown)
            found[evaluator.name] = {
                method: evaluator.measure(own, of[method], shown, batch)
                for method in evaluator.methods
                if method in of
            }
        return found, batch['known']

    def only_last(self, batch):
        """The context and the last frame: what lies between is forecast and not compared."""
        context = self.clips.context
        frames = [*range(context), self.data.frames - 1]
        timed = ('frames', 'labels', 'depth', 'components', 'latents')
        return {
            name: values[:, frames] if name in timed else values for name, values in batch.items()
        }

    def open_split(self, split, clips, frames, batch_size):
        """A loader of windows like these of another split, every process reading all of it."""
        data = ConfigDict({**dict(self.data), 'split': split, 'clips': clips, 'frames': frames})
        return loader.create(data, batch_size, self.seed, training=False, share=((0,), 1))

    def _placed(self, tree, layout):
        """On the devices of the mesh; what lies there already stays as it is."""
        devices = set(self.mesh.devices.flat)

        def place(leaf, layout):
            there = isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices
            return leaf if there else jax.device_put(leaf, layout)

        return jax.tree.map(place, tree, layout)
