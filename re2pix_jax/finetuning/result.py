"""What came of it: the tuned model beside the untuned one, three held-out moments, and the page
that shows them.
"""

import numpy as np
from ml_collections import ConfigDict

from re2pix_jax import bundles, files
from re2pix_jax.data import footage, records, timeline
from re2pix_jax.evaluation import held_out, prediction, tables
from re2pix_jax.finetuning import plan
from re2pix_jax.finetuning.plan import CLIPS, HORIZON, Run
from re2pix_jax.report import page, panels

MOMENTS = 3


def measured(run: Run, name: str) -> dict:
    """The report of a model on the held-out clips."""
    config = run.load('evaluate')
    with config.unlocked():
        config.update(model=name, source=run.source, clips=CLIPS, horizon=HORIZON, workers=0)
        config.update(unreadable='skip', seed=run.seed, least_share=0.0)
        config.update(methods=('re2pix', 'copy_last', 'forecast', 'vae'))
        wanted = ('image', 'components', 'frames', 'video')
        config.evals = ConfigDict({one: config.evals[one] for one in wanted})
    reports, _ = held_out.evaluate(bundles.load(name, 're2pix'), config)
    return reports['']


def predicted(run: Run) -> list:
    """Three held-out moments, spread over all held-out windows, predicted as `re2pix predict` does:
    [(caption, sheet)]; future.mp4, sheet.png and metrics.json of each lie in the bundle's folder.
    """
    model = bundles.load(str(run.out), 're2pix')
    clips = records.Records(run.work / 'clips', 'validation')
    file_of = lambda index: run.footage / clips.name(index).rpartition('#')[0]
    begins = [
        (index, first)
        for index in range(len(clips))
        if plan.predictable(run, file_of(index))
        for first in range(footage.count(clips, index))
    ]
    sections = []
    for number, place in enumerate(np.linspace(0, len(begins) - 1, MOMENTS).astype(int)):
        index, later = begins[place]
        file, first = file_of(index), clips.name(index).rpartition('#')[2]
        times = timeline.of(file, run.folder_fps).times
        start = float(times[int(first)]) + later / clips.fps(index)
        clip = prediction.read_video(model, file, HORIZON, start, run.folder_fps)
        found = prediction.predict(model, clip, HORIZON, run.seed, name=str(run.out))
        with files.staging(run.out / 'moments' / str(number)) as folder:
            prediction.write(folder, model, found)
        shown, seconds = prediction.pictures(model, found)
        context = clip.frames[: model.context_frames]
        untuned = run.model.predict(context, HORIZON, run.seed).frames
        shown.insert(1, panels.Panel('untuned', [*context, *untuned]))
        picture = panels.sheet(shown, seconds)
        sections.append((f'{file.relative_to(run.footage)}, from {start:.2f} s on', picture))
    return sections


def written(run: Run, reports: dict, sections: list) -> str:
    """index.html in the bundle's folder; gives its text."""
    text = [tables.gained(reports['untuned'], reports['tuned']), tables.joined(reports)]
    for name, report in reports.items():
        text += [f'{name}, by time', *tables.by_time(report['steps'], report['protocol']['fps'])]
    text.append(tables.legend(set().union(*(report['overall'] for report in reports.values()))))
    text = '\n\n'.join(text)
    page.write(run.out / 'index.html', f'{run.out.name}: {run.name} tuned', text, sections)
    return text
