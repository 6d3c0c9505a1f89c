"""A bundle on held-out clips, as `re2pix evaluate` does it: configs/evaluate.py says what on what.

A model is looked at frame by frame from the start of every clip; with config.terms, stage 1 is
judged by the protocol of its field [R]: the one frame that the dataset labels is forecast, from
four context frames at stride 3, one step (short), three (mid) or six (long) before it.
"""

import numpy as np
from ml_collections import ConfigDict

from re2pix_jax.data import windows
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import pictures, protocol, published, views
from re2pix_jax.evaluation.runner import Evaluation
from re2pix_jax.model import SAMPLING, Re2Pix
from re2pix_jax.training import defaults
from re2pix_jax.training import mesh as meshes


def evaluate(part, config, mesh=None) -> tuple[dict, dict]:
    """`measure` with reports that are JSON-able, as `Report.to_dict` makes them."""
    reports, shown = measure(part, config, mesh)
    return {term: report.to_dict() for term, report in reports.items()}, shown


def measure(part, config, mesh=None, keep=False) -> tuple[dict, dict]:
    """All numbers of a part.

    Args:
        part: a Re2Pix model or a Forecaster.
        config: as configs/evaluate.py makes it.
        mesh: the devices; None: as config.mesh says.
        keep: whether the reports keep what single clips gave.

    Returns:
        ({term: Report}, {term: [(caption, uint8 [H, W, 3])]}); without config.terms the one term
        is ''.

    Raises:
        UserError: settings, bundles or clips that cannot be used, or do not fit each other.
    """
    check(config)
    config = published.applied(config)
    mesh = mesh or meshes.create(**meshes.sizes(config))
    opened = {}
    try:
        for term in config.terms or ('',):  # what does not fit is refused before any of them runs
            opened[term] = open_for(part, config, mesh, term, keep)
            published.check_dataset(config, dataset_of(opened[term], config))
            opened[term].check(part)
        reports, shown = {}, {}
        for term, evaluation in opened.items():
            report = evaluation.run(part)
            about = protocol_of(part, config, evaluation, report)
            reports[term] = report._replace(protocol=about)
            shown[term] = pictures.draw(part, evaluation, config.pictures, term)
    finally:
        for evaluation in opened.values():
            evaluation.close()
    return reports, shown


def check(config) -> None:
    """Refuses settings out of range."""
    for name, least in (
        ('clips', 0),
        ('start', 0),
        ('horizon', 1),
        ('batch_size', 1),
        ('guidance', 0),
        ('guidance_channels', 1),
        ('context_noise', 0),
        ('channels', 0),
        ('sampler_steps', 0),
        ('seed', 0),
        ('pictures', 0),
        ('workers', 0),
    ):
        if config[name] < least:
            raise UserError(f'config.{name} = {config[name]}: expected at least {least}')
    for term in config.terms:
        if term not in windows.TERMS:
            raise UserError(f'config.terms: {term!r} is none of {", ".join(windows.TERMS)}')
    published.named(config)
    if config.source.startswith('encoded:'):
        raise UserError(
            f'config.source = {config.source}: encoded clips hold neither frames nor labels; give '
            'the clips that they were encoded from'
        )


def open_for(part, config, mesh=None, term: str = '', keep: bool = False) -> Evaluation:
    """The evaluation that a config describes for a part, opened."""
    return Evaluation(
        config.evals,
        data_of(part, config, term),
        config.batch_size,
        config.seed,
        sampling_of(part, config),
        config.methods,
        last=bool(term),
        mesh=mesh,
        label=f'evaluate {term}'.strip(),
        keep=keep,
    )


def data_of(part, config, term: str = '', split: str = '', clips: int | None = None) -> ConfigDict:
    """The loader's fields for fixed windows at the part's own size and stride."""
    horizon = windows.TERMS[term] if term else config.horizon
    named = published.named(config)
    keyframes = named is not None and named.window == 'keyframes'
    native = named.stride if keyframes else windows.STRIDE
    data = defaults.data(split or config.split)
    data.update(
        sources=(config.source,),
        size=size_of(part),
        frames=views.context_of(part) + horizon,
        strides=(native if term or keyframes else stride_of(part),),
        clips=config.clips if clips is None else clips,
        window='target' if term else 'keyframes' if keyframes else 'start',
        start=config.start,
        label_size=tuple(config.label_size),
        workers=config.workers,
        unreadable=config.get('unreadable', 'stop'),
        least_share=config.get('least_share', data.least_share),
    )
    return data


def sampling_of(part, config) -> dict:
    """Options of a roll-out: what the config sets, and the model's own sampler for the rest; {} for
    a part that draws nothing.
    """
    if not isinstance(part, Re2Pix):
        return {}
    found = {name: config[name] for name in SAMPLING} | {'channels': config.channels or None}
    own = ('sampler', 'sampler_steps', 'sampler_grid')
    return found | {name: config[name] or getattr(part, name) for name in own}


def size_of(part) -> tuple[int, int]:
    """(height, width) of the frames that a part works on."""
    if isinstance(part, Re2Pix):
        return tuple(part.size)
    patch = part.encoder.net.patch_size
    return tuple(side * patch for side in part.net.grid)


def stride_of(part) -> int:
    """A part's step in frames of the base rate, 17 Hz.

    Raises:
        UserError: it is not a whole number.
    """
    fps = getattr(part, 'fps', windows.BASE_FPS / windows.STRIDE)
    stride = round(windows.BASE_FPS / fps)
    if stride < 1 or abs(stride * fps / windows.BASE_FPS - 1) > 0.01:
        raise UserError(
            f'the model runs at {fps:g} frames per second, a frame rate that no whole stride of '
            f'{windows.BASE_FPS:g} frames per second makes; use a video instead'
        )
    return stride


def dataset_of(evaluation, config) -> str:
    """What the source holds: the dataset that clips were prepared from, or the source's kind."""
    manifest = getattr(evaluation.batches.sources[0], 'manifest', {})
    return manifest.get('source') or config.source.partition(':')[0]


def protocol_of(part, config, evaluation, report) -> dict:
    """`Protocol` of a report, JSON-able."""
    data, sampling = evaluation.data, evaluation.sampling
    stride, context = data.strides[0], views.context_of(part)
    target, before = (
        protocol.targets(
            evaluation.batches.sources[0], data.clips, context, evaluation.horizon, config.source
        )
        if evaluation.last
        else ([], [])
    )
    named, rates = published.named(config), evaluation.rates
    if data.window == 'keyframes':  # as far as it tells, the rate that the model is made for
        rates = [getattr(part, 'fps', named.fps)]
    least, most = min(rates), max(rates)
    found = protocol.Protocol(
        model=config.model,
        source=config.source,
        split=config.split,
        clips=evaluation.scored,
        start_frame=data.start,
        window=data.window,
        stride=stride,
        fps=float(np.median(rates)),
        rates=(least, most) if most > 1.01 * least else (),
        size=list(data.size),
        label_size=list(data.label_size or data.size),
        context_frames=context,
        horizon=evaluation.horizon,
        last=evaluation.last,
        seed=config.seed,
        target=target,
        context=before,
        evals=report.about,
        name=config.get('protocol', ''),
        dataset=dataset_of(evaluation, config),
        contents=getattr(evaluation.batches.sources[0], 'contents', lambda: '')(),
        **{name: value or 0 for name, value in sampling.items()},
    ).to_dict()
    kind = config.source.partition(':')[0]
    return found | {'departures': published.departures(config, found, kind)}
