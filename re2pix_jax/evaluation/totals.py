"""Sums over the clips of an evaluation, on the host, and the report that is made of them."""

import functools

import jax
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.evaluation.evaluators import descriptors, frechet, image, probe

METHODS = ('re2pix', 'copy_last', 'vae')
DISTANCES = ('frechet_frames', 'frechet_video', 'fid', 'fvd')
BY_PLACE = ('frechet_frames', 'frechet_video')
"""Distances that are also taken by time: at every step, and at the last step of every window."""


class Totals:
    """Numbers a clip and step, moments of features, and `scores` {reader: {kind: scores with a row
    a step}}.
    """

    def __init__(self, horizon):
        self.horizon = horizon
        self.values = {}  # (method, metric) → list of [clips, steps]
        # (measure, method) → list of `frechet.Moments`: one a step or window for those BY_PLACE,
        # else a single one
        self.moments = {}
        self.scores = {}
        self._gaussians = {}

    def add(self, seen, known, context):
        """What a batch gave, numpy; `known` [B] says which clips count."""
        for method, errors in seen.get('error', {}).items():
            self._append('stage_one', method, errors[known])
        for method in (*METHODS, 'truth'):
            for name, values in seen.get(method, {}).items():
                if name in DISTANCES:
                    self._moments(name, method, values[known])
                else:
                    self._append(method, name, values[known])
        if 'frames' in seen:
            shown = {name: values[known] for name, values in seen['frames'].items()}
            future = shown['clips'][:, context:]
            for method in METHODS:
                if method in shown:
                    compared = np.broadcast_to(shown[method], future.shape)
                    self._append(method, 'psnr', image.psnr(compared, future))
                    self._append(method, 'ssim', image.ssim(compared, future))
            if 'reconstructed' in shown:
                self._append(
                    'reconstruction', 'psnr', image.psnr(shown['reconstructed'], shown['clips'])
                )
            if 'copy_last' in shown:
                self._append('copy_last', 'feature_error', seen['error']['copy_last'][known])

    def _append(self, method, metric, values):
        self.values.setdefault((method, metric), []).append(np.asarray(values, np.float64))

    def _moments(self, measure, method, values):
        """Features [clips, places, D]."""
        parts = values.swapaxes(0, 1) if measure in BY_PLACE else [values]
        sets = self.moments.setdefault((measure, method), [frechet.Moments() for _ in parts])
        for moments, part in zip(sets, parts, strict=True):
            moments.update(part)

    def true_moments(self):
        """{measure: moments of the true set}."""
        return {
            measure: _joined(sets)
            for (measure, method), sets in self.moments.items()
            if method == 'truth'
        }

    def _mean(self, method, metric, step=None):
        if (method, metric) not in self.values:
            return None
        values = np.concatenate(self.values[method, metric])
        return float(values.mean() if step is None else values[:, step].mean())

    def _scores(self, name, kind='segmentation', step=None):
        """Scores of one step or, over all steps together, of the whole set; None where no frame had
        a truth.
        """
        if kind not in self.scores.get(name, {}):
            return None
        parts = [
            jax.tree.map(lambda x, k=k: x[k], self.scores[name][kind]) for k in range(self.horizon)
        ]
        whole = (
            parts[step]
            if step is not None
            else functools.reduce(lambda one, other: one.merge(other), parts)
        )
        counts = whole.counts()
        there = counts['pixels'] if isinstance(counts, dict) else counts.any()
        return whole.scores().to_dict() if there else None

    def report(self, fps, whole, left_out):
        """The sections of `evaluate`'s result; of a forecaster by itself only those of stage 1."""
        report = {
            'encoder': {f'probe_{kind}': self._scores(f'probe_{kind}') for kind in probe.KINDS},
            'head': {
                'true_features': self._scores('head'),
                'true_principal_features': self._scores('truth'),
            },
        }
        if ('stage_one', 'forecast') in self.values:
            report['forecaster'] = {
                'steps': [self._forecaster_row(step) for step in range(self.horizon)]
            }
        if not whole:
            return report
        if ('reconstruction', 'psnr') in self.values:
            frames = sum(values.size for values in self.values['reconstruction', 'psnr'])
            report['vae'] = {
                'reconstruction_psnr': self._mean('reconstruction', 'psnr'),
                'frames': frames,
            }
        distances, warnings, refused = self._distances()
        report['steps'] = [self._frames_row(step, fps) for step in range(self.horizon)]
        return report | {
            'distances': distances,
            'warnings': warnings,
            'left_out': [*left_out, *refused],
        }

    def _forecaster_row(self, step):
        ours, copy = (self._mean('stage_one', method, step) for method in ('forecast', 'copy_last'))
        scores = self._scores('forecast', step=step) or {}
        return {
            'step': step + 1,
            'smooth_l1': ours,
            'copy_last': copy,
            'ratio': ours / copy if copy else None,
            'miou': scores.get('miou'),
            'moving_miou': scores.get('moving_miou'),
        }

    def _frames_row(self, step, fps):
        row = {'step': step + 1, 'seconds': (step + 1) / fps}
        for method in (*METHODS, 'truth'):
            row[method] = {
                metric: self._mean(method, metric, step)
                for name, metric in self.values
                if name == method
            }
            for kind, names in (
                ('segmentation', ('miou', 'moving_miou')),
                ('depth', ('delta1', 'abs_rel')),
            ):
                scores = self._scores(method, kind, step) or {}
                row[method] |= {name: scores[name] for name in names if name in scores}
            for measure, place in self._places(step).items():
                sets = self.moments.get((measure, method))
                if sets and method != 'truth' and sets[place].count > 1:
                    row[method][measure] = frechet.distance(
                        *(self._gaussian(measure, name, place) for name in ('truth', method))
                    )
        return row

    def _places(self, step):
        """{measure: which of its moments end with this step}. A single window is no measure by
        time: it has the distance of all.
        """
        ends = [end - 1 for _, end in descriptors.windows(self.horizon)]
        window = {'frechet_video': ends.index(step)} if len(ends) > 1 and step in ends else {}
        return {'frechet_frames': step} | window

    def _gaussian(self, measure, method, place=None):
        """Of one step or window, or of all; kept, because every method asks for that of the
        truth.
        """
        key = measure, method, place
        if key not in self._gaussians:
            sets = self.moments[measure, method]
            self._gaussians[key] = (_joined(sets) if place is None else sets[place]).gaussian()
        return self._gaussians[key]

    def _distances(self):
        """({measure: {method: distance}}, warnings, reasons for what is missing)"""
        distances, warnings, refused = {}, [], []
        for measure in DISTANCES:
            methods = [method for method in METHODS if (measure, method) in self.moments]
            if not methods:
                continue
            try:
                truth = self._gaussian(measure, 'truth')
            except UserError as error:
                refused.append(f'{measure}: {error}')
                continue
            distances[measure] = {
                method: frechet.distance(truth, self._gaussian(measure, method))
                for method in methods
            }
            if truth.shortage:
                warnings.append(f'{measure}: {truth.shortage}')
        return distances, warnings, refused


def _joined(sets):
    return functools.reduce(frechet.Moments.merge, sets, frechet.Moments())
