"""Evaluation of datasets of which parts are missing or bad: what is there counts once, and what is
not counts for nothing.
"""

import pytest

from re2pix_jax import bundles
from re2pix_jax.data import prepare
from re2pix_jax.evaluation import held_out
from tests.commands.test_evaluate import config
from tests.data import layouts

SCENES = [f'scene-{number:04d}' for number in (3, 12, 13, 14, 15, 16, 17, 18)]
STORING = {'image_format': 'png', 'quality': 95, 'processes': 1, 'strict': False}


def nuscenes(folder):
    """Half of the scenes are in parts that were never unpacked; of the others one lacks a frame
    in the middle, one has a torn one.
    """
    layouts.nuscenes(folder, SCENES)
    files = {}
    for file in sorted(folder.glob('s*/CAM_FRONT/*.jpg')):
        files.setdefault(int(file.stem.split('__')[-1]) // 10**9, []).append(file)
    scenes = sorted(files)
    for scene in scenes[:4]:
        for file in files[scene]:
            file.unlink()
    sorted(files[scenes[4]], key=lambda file: file.stem.split('__')[-1])[15].unlink()
    for file in files[scenes[5]]:
        file.write_bytes(file.read_bytes()[:40])
    return 2


def cityscapes(folder):
    layouts.cityscapes(folder, train=0, validation=5)
    frames = sorted(folder.glob('leftImg8bit_sequence/val/frankfurt/*.png'))
    frames[30 + 11].unlink()  # of the second snippet
    frames[90 + 4].write_bytes(b'')  # of the fourth
    return 3


@pytest.mark.parametrize('write', [nuscenes, cityscapes])
def test_nothing_is_scored_twice(write, micro_bundles, tmp_path):
    raw = tmp_path / write.__name__
    raw.mkdir()
    good = write(raw)
    asked = config(probe=False)
    asked.evals = {name: {'type': name} for name in ('image', 'components', 'sharpness')}
    asked.update(unreadable='skip', least_share=0.4, batch_size=4, workers=0, label_size=())
    model = bundles.load(micro_bundles / 're2pix')
    # Prepared, what is bad is left out beforehand: the clips that remain, each once.
    prepare.raw(tmp_path / 'clean', raw.name, raw, ('validation',), size=layouts.SIZE, **STORING)
    found = []
    for source in (f'{raw.name}:{raw}', f'records:{tmp_path}/clean'):
        asked.source = source
        found.append(held_out.evaluate(model, asked)[0][''])
    partial, clean = found
    assert partial['protocol']['clips'] == clean['protocol']['clips'] == good
    for method, columns in clean['overall'].items():
        for name, value in columns.items():
            assert partial['overall'][method][name] == pytest.approx(value, rel=1e-4), name
