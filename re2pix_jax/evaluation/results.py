"""What an evaluation found: a number for each method and column, over all steps and by step."""

from typing import NamedTuple

from re2pix_jax.evaluation import views
from re2pix_jax.evaluation.evaluators import COLUMNS

FORMAT = 3


class Report(NamedTuple):
    """The numbers of one evaluation.

    Attributes:
        overall: {method: {column: number, None where nothing was known}}.
        steps: the same for each future frame.
        about: {evaluator: what of it belongs into the protocol}.
        warnings, left_out: lines.
        protocol: see `protocol`; filled in by who knows it.
        kept: {column/...: array} of single clips, where that was asked for; no part of `to_dict`.
    """

    overall: dict
    steps: list
    about: dict
    warnings: list
    left_out: list
    protocol: dict
    kept: dict = {}  # noqa: RUF012 (a NamedTuple's default, never changed)

    @classmethod
    def of(cls, measured, totals, evaluators) -> 'Report':
        """From the totals {(evaluator, method): state} of the evaluators that `measured`."""
        overall, steps, about, warnings, kept = {}, {}, {}, [], {}
        for evaluator in measured:
            states = {
                method: state for (name, method), state in totals.items() if name == evaluator.name
            }
            if not states:
                evaluator.left_out = (
                    f'{evaluator.titles}: what is evaluated shows no {", ".join(evaluator.methods)}'
                )
                continue
            reported = evaluator.report(states)
            if reported and all(
                value is None for found, _ in reported.values() for value in found.values()
            ):
                evaluator.left_out = evaluator.left_out or (
                    f'{evaluator.titles}: the clips know no truth for it'
                )
                continue
            for method, (found, by_step) in reported.items():
                overall.setdefault(method, {}).update(found)
                for step, columns in enumerate(by_step):
                    steps.setdefault(step, {}).setdefault(method, {}).update(columns)
            if found := evaluator.about():
                about[evaluator.name] = found
            warnings += getattr(evaluator, 'warnings', [])
            kept |= evaluator.kept
        ordered = [method for method in views.TITLES if method in overall]
        return cls(
            {method: overall[method] for method in ordered},
            [steps[step] for step in sorted(steps)],
            about,
            warnings,
            [evaluator.left_out for evaluator in evaluators if evaluator.left_out],
            {},
            kept,
        )

    def scalars(self) -> dict[str, float]:
        """{'method/column': number}; without the method where there is only one."""
        several = len(self.overall) > 1
        return {
            f'{method}/{name}' if several else name: value
            for method, columns in self.overall.items()
            for name, value in columns.items()
            if value is not None
        }

    def to_dict(self) -> dict:
        """JSON-able."""
        fields = self._asdict()
        del fields['kept']
        return {'format': FORMAT, **fields}


def shown(name: str, value: float | None) -> str | None:
    """A number of a column as text, None where there is none."""
    if value is None:
        return None
    column = COLUMNS[name]
    return f'{column.scale * value:.{column.digits}f}'
