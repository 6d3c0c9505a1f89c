"""A bundle made ready to travel: with all its parts inside, and a card that a hub can read."""

import json
import os
import pathlib
import shutil

import yaml

from re2pix_jax.bundles import hub
from re2pix_jax.bundles.naming import CARD, CONFIG, WEIGHTS, place_of, read_config, resolve

README = 'README.md'  # where the hub looks for a card
LIBRARY = 're2pix_jax'
TAGS = ('re2pix', 'jax', 'video-prediction', 'autonomous-driving')
PIPELINES = {
    're2pix': 'image-to-video',
    'generator': 'image-to-video',
    'encoder': 'image-feature-extraction',
}
"""Kind → the hub's word for what it is used for; other kinds have none."""


def pack(name, out: pathlib.Path) -> None:
    """Copies a bundle into the empty folder `out` with the parts that lie elsewhere on this machine
    inside it; a part on the hub stays there, at the commit that it is at now.

    Files that belong to no bundle are left behind.

    Raises:
        UserError: a bundle or part is not there.
    """
    path = resolve(name)
    text = (path / CONFIG).read_text(encoding='utf-8')
    config, parts = json.loads(text), read_config(path)['parts']
    out.mkdir(parents=True, exist_ok=True)
    for file in (WEIGHTS, CARD):
        if (path / file).is_file():
            shutil.copyfile(path / file, out / file)
    for part, reference in parts.items():
        if reference.startswith(hub.PREFIX):
            config['parts'][part] = hub.pinned(reference)
            continue
        place = place_of(path, reference)
        real, root = (os.path.realpath(each) for each in (resolve(place), path))
        inside = os.path.relpath(real, root)
        config['parts'][part] = part if inside.startswith('..') else inside
        if not (out / config['parts'][part]).exists():  # two names may mean one part
            pack(place, out / config['parts'][part])
    same = config.get('parts', {}) == parts
    (out / CONFIG).write_text(text if same else json.dumps(config, indent=2) + '\n')


def write_card(folder: pathlib.Path, license: str, datasets: list[str], reports: dict) -> None:
    """Writes README.md into a packed bundle: its card, under a block of what a hub reads.

    Args:
        folder: of the bundle.
        license: its name as hubs spell it, 'apache-2.0'; '' leaves it out.
        datasets: names of what it was trained on.
        reports: {name: {'protocol': text, 'scores': {metric: number}}}: what was measured, and how.
    """
    kind = read_config(folder)['kind']
    meta = {
        'library_name': LIBRARY,
        'license': license or None,
        'pipeline_tag': PIPELINES.get(kind),
        'tags': [*TAGS, f'{LIBRARY}-{kind}'],
        'datasets': datasets or None,
        'model-index': [{'name': kind, 'results': _results(reports)}] if reports else None,
    }
    meta = {name: value for name, value in meta.items() if value}
    block = yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=1000)
    card = (folder / CARD).read_text(encoding='utf-8') if (folder / CARD).is_file() else ''
    (folder / README).write_text(f'---\n{block}---\n\n{card.lstrip()}', encoding='utf-8')


def _results(reports):
    return [
        {
            'task': {'type': PIPELINES['re2pix'], 'name': 'video prediction'},
            'dataset': {'type': name, 'name': report['protocol']},
            'metrics': [
                {'type': metric, 'value': value} for metric, value in report['scores'].items()
            ],
        }
        for name, report in reports.items()
    ]
