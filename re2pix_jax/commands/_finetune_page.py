"""What came of `re2pix finetune`: the tuned model beside the untuned one, three held-out moments,
and the page that shows them.
"""

import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import bundles, files
from re2pix_jax.commands import _config
from re2pix_jax.commands._finetune import CLIPS, HORIZON, Run, span_of, usable_of
from re2pix_jax.data import records, timeline
from re2pix_jax.evaluation import held_out, prediction, tables
from re2pix_jax.model import Re2Pix
from re2pix_jax.report import page, panels

MOMENTS = 3


def measured(run: Run, name: str) -> dict:
    """The report of a model on the held-out clips, measured once."""
    config = _config.load('evaluate')
    with config.unlocked():
        config.update(model=name, source=run.source, clips=CLIPS, horizon=HORIZON, workers=0)
        config.update(unreadable='skip', seed=run.seed, least_share=0.0)
        config.update(methods=('re2pix', 'copy_last', 'forecast', 'vae'))
        wanted = ('image', 'components', 'frames', 'video')
        config.evals = ConfigDict({one: config.evals[one] for one in wanted})
    reports, _ = held_out.evaluate(bundles.load(name, 're2pix'), config)
    return reports['']


def ahead(reports: dict) -> str:
    """In a line, what the tuning gained and whether copying the last frame would be better."""
    overall = {name: report['overall'] for name, report in reports.items()}
    said = []
    for column, title, higher in (
        ('psnr', 'PSNR', True),
        ('feature_error', 'feature error', False),
    ):
        before, after, copied = (
            overall[name].get(method, {}).get(column)
            for name, method in (('untuned', 're2pix'), ('tuned', 're2pix'), ('tuned', 'copy_last'))
        )
        if before is None or after is None:
            continue
        word = 'better' if (after > before) == higher else 'no better'
        said.append(f'{title} {before:.3f} untuned, {after:.3f} tuned ({word})')
        if copied is not None and (copied > after) == higher:
            said[-1] += f'; copying the last frame is better still, {copied:.3f}'
    return '. '.join(said)


def predicted(run: Run, model: Re2Pix) -> list:
    """Three held-out moments, spread over all held-out windows, predicted as `re2pix predict` does:
    [(caption, sheet)]; future.mp4, sheet.png and metrics.json of each lie in the bundle's folder.
    """
    clips = records.Records(run.work / 'clips', 'validation')
    begins = [
        (k, first)
        for k in usable_of(clips)
        for first in range(clips.num_frames(k) - span_of(clips, k) + 1)
    ]
    sections = []
    for number, place in enumerate(np.linspace(0, len(begins) - 1, MOMENTS).astype(int)):
        index, later = begins[place]
        file, _, first = clips.name(index).rpartition('#')
        times = timeline.of(run.footage / file, run.folder_fps).times
        start = float(times[int(first)]) + later / clips.fps(index)
        clip = prediction.read_video(model, run.footage / file, HORIZON, start, run.folder_fps)
        found = prediction.predict(model, clip, HORIZON, run.seed, name=str(run.out))
        with files.staging(run.out / 'moments' / str(number)) as folder:
            prediction.write(folder, model, found)
        shown, seconds = prediction.pictures(model, found)
        context = clip.frames[: model.context_frames]
        untuned = run.model.predict(context, HORIZON, run.seed).frames
        shown.insert(1, panels.Panel('untuned', [*context, *untuned]))
        picture = panels.sheet(shown, seconds)
        sections.append((f'{file}, from {start:.2f} s on', picture))
    return sections


def written(run: Run, reports: dict, sections: list) -> str:
    """index.html in the bundle's folder; gives its text."""
    text = [ahead(reports), tables.joined(reports)]
    for name, report in reports.items():
        by_time = tables.by_time(report['steps'], report['protocol']['fps'])
        text += [f'{name}, by time', *by_time]
    text.append(tables.LEGEND)
    text = '\n\n'.join(text)
    page.write(run.out / 'index.html', f'{run.out.name}: {run.name} tuned', text, sections)
    return text
