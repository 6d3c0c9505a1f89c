"""The same held-out clips as every row of a study continues them, for people to look at."""

import jax
import numpy as np

from re2pix_jax.data import loader
from re2pix_jax.evaluation import held_out, published, views
from re2pix_jax.evaluation.study import rows
from re2pix_jax.report import panels


def draw(folder, config, open_model) -> list[tuple[str, np.ndarray]]:
    """(caption, uint8 [H, W, 3]) of the first config.sheets.clips clips: truth, the VAE's
    reconstruction, and each row's first seed; arguments as of `rows.evaluate`.
    """
    count, clips, lines = config.sheets.clips, None, {}
    for label, row in rows.rows(config).items() if count else ():
        for workdir, steps in rows.runs(folder, row.run)[:1]:
            model = open_model(str(workdir), steps[-1])
            settings = config.evaluation.copy_and_resolve_references()
            settings.update(rows.changes_of(row))
            settings = published.applied(settings)
            if clips is None:
                clips = _clips(model, settings, count)
                decoded = model.vae.decode(model.vae.encode(clips['frames']))
                lines['VAE of the truth'] = np.asarray(decoded)
            past = clips['frames'][:, : model.context_frames]
            keys = views.keys(settings.seed, clips['record'])
            sampling = held_out.sampling_of(model, settings)
            predicted = model.rollout(past, keys, settings.horizon, **sampling)['frames']
            lines[label] = np.concatenate([past, np.asarray(predicted)], axis=1)
    if clips is None:
        return []
    seconds = (np.arange(clips['frames'].shape[1]) - model.context_frames + 1) / model.fps
    pictures = []
    for k, record in enumerate(clips['record']):
        shown = [panels.Panel('truth', list(clips['frames'][k]))]
        shown += [panels.Panel(label, list(frames[k])) for label, frames in lines.items()]
        caption = f'{config.evaluation.source}, {config.evaluation.split} {record}'
        pictures.append((caption, panels.sheet(shown, seconds)))
    return pictures


def _clips(model, settings, count):
    data = held_out.data_of(model, settings, clips=count)
    batches = loader.create(data, count, settings.seed, training=False)
    try:
        return jax.tree.map(np.asarray, next(batches))
    finally:
        batches.close()
