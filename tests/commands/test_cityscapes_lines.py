"""The lines of configs/README.md that lead from Cityscapes as published to its scores, run as they
stand there on a folder of that layout, with small sizes set on the command line.
"""

import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import MICRO, ROOT, load_config
from tests.data import layouts

TITLE = '## Cityscapes, from the raw folder to the scores'
LOW, HIGH = (32, 64), (64, 128)
STEPS = {'steps': 2, 'batch_size': 2, 'dtype': 'float32', 'optimizer.warmup_steps': 1}
GRIDS = {'forecaster_lowres': (4, 8), 'forecaster_highres': (8, 16)}


def lines():
    """The commands of the section's first block, as lists of arguments."""
    section = (ROOT / 'configs' / 'README.md').read_text().partition(TITLE)[2]
    block = section.split('```')[1].replace('\\\n', ' ')
    return [shlex.split(line) for line in block.strip().splitlines()]


def sizes(size, **model):
    data = {f'{name}.size': size for name in ('data', 'eval_data')}
    data |= {f'model.{name}': value for name, value in model.items()}
    # The raw frames are as small as those that are trained on.
    return STEPS | data | {'eval_data.clips': 2, 'data.most_enlarged': 1.0}


def small(command, config) -> dict:
    """What is set after a line's own arguments."""
    judged = {'label_size': HIGH, 'batch_size': 2, 'workers': 0}
    if command == 'fit_pca':
        return {'components': 32, 'clips': 10, 'batch_size': 2, 'data.size': HIGH}
    if command == 'evaluate':
        probe = {'clips': 2, 'steps': 2, 'batch_size': 2}
        probe = {f'evals.probe.{name}': value for name, value in probe.items()}
        return judged | (probe if config == 'evaluate' else {'pictures': 0})
    if config.startswith('head'):
        return sizes(HIGH, **MICRO['head'])
    if config.startswith('forecaster'):
        size = LOW if config == 'forecaster_lowres' else HIGH
        return sizes(size, **MICRO['forecaster'] | {'grid': GRIDS[config]})
    has = load_config('generator', 'base').model
    model = {name: value for name, value in MICRO['generator'].items() if name in has}
    return sizes(LOW, **model) | {'loss.sampler_steps': 2}


def shrunk(line) -> list[str]:
    """A line with small sizes; others than these as they are."""
    config = next((x.partition('=')[2] for x in line if x.startswith('--config=')), None)
    if config:
        settings = small(line[1], config)
        return [*line[1:], *(f'--config.{name}={value}' for name, value in settings.items())]
    return [*line[1:], *(['--processes=1'] if line[1] == 'prepare' else [])]


@pytest.fixture(scope='module')
def folder(micro_bundles, tmp_path_factory):
    """Where a reader would stand: the raw folder with its teacher's depth, and two bundles."""
    folder = tmp_path_factory.mktemp('reader')
    raw = layouts.cityscapes(folder / 'cityscapes', size=HIGH)
    for image in sorted(raw.glob('leftImg8bit_sequence/*/*/*.png')):
        part, city, stem = *image.parts[-3:-1], image.stem
        classes = np.random.default_rng(len(stem)).integers(1, 256, HIGH).astype(np.uint8)
        layouts.save(
            raw / 'leftImg8bit_sequence_depthv2' / part / city / f'{stem}_depth.png', classes
        )
    (folder / 'bundles').mkdir()
    for name, part in (('dinov2_b', 'encoder'), ('sd_vae', 'vae')):
        os.symlink(micro_bundles / part, folder / 'bundles' / name)
    return folder


def test_the_lines_name_every_step():
    found = [(line[0], line[1]) for line in lines()]
    assert {name for name, _ in found} == {'re2pix'}
    configs = re.findall(r'--config=(\S+)', ' '.join(sum(lines(), [])))
    assert configs == [
        'principal:base',
        'head:base',
        'head:base-depth',
        'forecaster_lowres',
        'forecaster_highres',
        'eval_forecaster',
        'generator:base',
        'evaluate',
    ]


@pytest.mark.slow
def test_from_the_raw_folder_to_the_scores(folder):
    for line in lines():
        done = subprocess.run(
            [sys.executable, '-m', 're2pix_jax', *shrunk(line)],
            cwd=folder,
            env=os.environ | {'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr[-2000:])
        print(*line, '\n', done.stdout[-1500:])
    mid = json.loads((folder / 'runs/mid/metrics.json').read_text())['mid']
    assert mid['protocol']['target'] == [19] and mid['protocol']['context'] == [[1, 4, 7, 10]]
    assert mid['protocol']['departures'] == [
        '2 of 500 clips',
        'frames of 64x128 instead of 448x896',
        'labels of 64x128 instead of 1024x2048',
    ]
    for method in ('forecast', 'copy_last', 'truth'):
        assert {'miou', 'moving_miou', 'delta1', 'abs_rel'} <= set(mid['overall'][method])
    found = json.loads((folder / 'runs/cityscapes/metrics.json').read_text())['']
    assert found['protocol']['name'] == 're2pix-cityscapes'
    assert [step['re2pix']['miou'] is not None for step in found['steps']].count(True) == 1
    assert found['overall']['re2pix']['miou'] == found['steps'][2]['re2pix']['miou']
