"""Datasets of which half was never unpacked and of the rest a part is bad, as published: they are
trained on and evaluated with a true count; what is there counts once, the rest for nothing.
"""

import pytest

from re2pix_jax import bundles
from re2pix_jax.data import loader, prepare, records
from re2pix_jax.evaluation import held_out
from tests.commands.test_evaluate import config
from tests.data import layouts
from tests.data.test_partial import SCENES

STORING = {'image_format': 'png', 'quality': 95, 'processes': 1, 'strict': False}
DRIVES = [f'2011_09_26_drive_{number:04d}' for number in (1, 5, 11, 14, 15, 17, 18, 19)]
CLIPS = 8


def by_clip(files, clip_of):
    """The frames of each clip, in order."""
    found = {}
    for file in sorted(files, key=lambda file: file.stem.split('__')[-1]):
        found.setdefault(clip_of(file), []).append(file)
    return [found[clip] for clip in sorted(found)]


def nuscenes(folder):
    layouts.nuscenes(folder, SCENES[:CLIPS])
    scene = lambda file: int(file.stem.split('__')[-1]) // 10**9
    return by_clip(folder.glob('s*/CAM_FRONT/*.jpg'), scene)


def cityscapes(folder):
    layouts.cityscapes(folder, train=CLIPS + 2, validation=0)
    return by_clip(folder.glob('leftImg8bit_sequence/train/*/*.png'), lambda f: f.name[:13])


def kitti(folder):
    layouts.kitti(folder, DRIVES)
    return by_clip(folder.glob('2011*/*/image_02/data/*.png'), lambda file: file.parts[-4])


def covla(folder):
    layouts.covla(folder, clips=CLIPS + 2)
    return by_clip(folder.glob('images/*/*.jpg'), lambda file: file.parts[-2])


def partial(write, folder):
    """Writes a dataset; takes away the last half of its clips; of the others the first lacks a
    frame in the middle (where frames have numbers), those of the second are torn; a Mac's
    archive leaves its own files.
    """
    folder.mkdir()
    clips = write(folder)
    for file in sum(clips[-4:], []):
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
    if write is not covla:
        clips[0][9].unlink()
    for torn in clips[1]:
        torn.write_bytes(torn.read_bytes()[:40])
    for file in clips[2][:3]:
        (file.parent / f'._{file.name}').write_bytes(b'\0\5\26\7')
    (folder / '__MACOSX').mkdir()
    (clips[2][0].parent / '.DS_Store').write_bytes(b'?')


@pytest.mark.long
@pytest.mark.parametrize(
    'write',
    [nuscenes, *(pytest.param(x, marks=pytest.mark.slow) for x in (covla, cityscapes, kitti))],
)
def test_nothing_is_scored_twice(write, micro_bundles, tmp_path):
    raw = tmp_path / write.__name__
    partial(write, raw)
    source, part = f'{raw.name}:{raw}', bundles.load(micro_bundles / 'forecaster')
    asked = config(probe=False)
    asked.evals = {'components': {'type': 'components'}}
    asked.update(split='train', unreadable='skip', least_share=0.3, batch_size=4, label_size=())
    # Prepared, what is bad is left out beforehand: the clips that remain, each once.
    prepare.raw(tmp_path / 'clean', raw.name, raw, ('train',), size=layouts.SIZE, **STORING)
    found = []
    for asked.source in (source, f'records:{tmp_path}/clean'):
        found.append(held_out.evaluate(part, asked)[0][''])
    of_partial, clean = found
    assert of_partial['protocol']['clips'] == clean['protocol']['clips'] > 1
    for method in ('forecast', 'copy_last'):
        for step, other in zip(of_partial['steps'], clean['steps'], strict=True):
            assert step[method] == pytest.approx(other[method], rel=1e-4)
    # Training draws the same clips, and no other.
    data = held_out.data_of(part, asked)
    data.update(sources=(source,), labels=False)
    batches = loader.create(data, 2)
    drawn = {int(record) for _ in range(12) for record in next(batches)['record']}
    names = {batches.sources[0].name(record) for record in drawn}
    kept = records.Records(tmp_path / 'clean', 'train')
    assert names == {kept.name(index) for index in range(len(kept))}
    assert batches.clips - batches.skipped <= len(kept) <= batches.clips
