"""The same held-out clips as every row of a study continues them, for people to look at."""

import jax
import numpy as np

from re2pix_jax import tasks
from re2pix_jax.data import loader
from re2pix_jax.evaluation import model as evaluation
from re2pix_jax.evaluation.study import runs
from re2pix_jax.report import panels
from re2pix_jax.training import loop


def draw(folder, config) -> list[tuple[str, np.ndarray]]:
    """(caption, uint8 [H, W, 3]) of the first config.sheets.clips clips: truth, the VAE's
    reconstruction, and each row's first seed.
    """
    count, horizon, shown, rows = config.sheets.clips, config.evaluation.horizon, None, {}
    for label, row in runs.rows(config).items() if count else ():
        for workdir, steps in runs.runs(folder, row.run)[:1]:
            run = loop.open_run(str(workdir), tasks.create, steps[-1])
            model = run.task.part(run.state.ema)
            settings = config.evaluation.copy_and_resolve_references()
            settings.update(runs.changes_of(row))
            if shown is None:
                shown = _clips(model, settings, count)
                rows['VAE of the truth'] = np.asarray(
                    model.vae.decode(model.vae.encode(shown['frames']))
                )
            past = shown['frames'][:, : model.context_frames]
            keys = evaluation.keys(settings.seed, shown['record'])
            predicted = model.rollout(past, keys, horizon, **evaluation.options(model, settings))[
                'frames'
            ]
            rows[label] = np.concatenate([past, np.asarray(predicted)], axis=1)
    if shown is None:
        return []
    seconds = (np.arange(shown['frames'].shape[1]) - model.context_frames + 1) / model.fps
    pictures = [
        panels.sheet(
            [
                panels.Panel('truth', list(shown['frames'][k])),
                *(panels.Panel(label, list(frames[k])) for label, frames in rows.items()),
            ],
            seconds,
        )
        for k in range(count)
    ]
    return [
        (f'{config.evaluation.source}, {config.evaluation.split} {record}', picture)
        for record, picture in zip(shown['record'], pictures, strict=True)
    ]


def _clips(model, settings, count):
    batches = loader.create(
        evaluation.data(
            model, settings, settings.split, count, model.context_frames + settings.horizon
        ),
        count,
        settings.seed,
        training=False,
    )
    try:
        return jax.tree.map(np.asarray, next(batches))
    finally:
        batches.close()
