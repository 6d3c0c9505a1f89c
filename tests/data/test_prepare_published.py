"""From the published layouts, through the command, to the evaluation windows of the protocol."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from re2pix_jax.cityscapes import TRAIN_IDS
from re2pix_jax.data import loader, records, windows
from re2pix_jax.data.sources import open_source
from re2pix_jax.progress import counted
from tests.data import layouts
from tests.running import outcomes

SIZE = (32, 64)
# name: what writes the raw folder
RAW = {
    'cityscapes': lambda folder: layouts.cityscapes(
        folder, train=10, validation=2, disparity='disparity'
    ),
    'nuscenes': layouts.nuscenes,
    'covla': layouts.covla,
    'covla_videos': lambda folder: layouts.covla(folder, videos=True),
    'kitti': lambda folder: layouts.kitti(
        folder, ('2011_09_26_drive_0001', '2011_09_26_drive_0002')
    ),
}
CLIPS = {
    'cityscapes': (10, 2),
    'nuscenes': (1, 1),
    'covla': (4, 1),
    'covla_videos': (4, 1),
    'kitti': (1, 1),
}  # train, validation


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    """{name: [status, stdout, stderr]} of each preparation, and the folder of `raw` and `out`."""
    folder = tmp_path_factory.mktemp('published')
    for name, write in RAW.items():
        write(folder / 'raw' / name)
    # One frame of one clip is damaged, the label of another is lost.
    torn = sorted(
        (folder / 'raw/cityscapes/leftImg8bit_sequence/train/aachen').glob('aachen_000003_*')
    )[11]
    (folder / 'raw/torn').symlink_to(folder / 'raw/cityscapes')
    commands = {
        name: [
            name.partition('_')[0],
            f'--raw={folder}/raw/{name}',
            f'--out={folder}/out/{name}',
            '--image_format=png',
            '--processes=1',
        ]
        for name in RAW
    }
    commands['jpeg'] = [
        'cityscapes',
        f'--raw={folder}/raw/cityscapes',
        f'--out={folder}/out/jpeg',
        '--splits=validation',
        '--processes=1',
    ]
    done = outcomes('prepare', commands)
    torn.write_bytes(torn.read_bytes()[:-60])
    next((folder / 'raw/cityscapes/gtFine/train/aachen').glob('aachen_000005_*')).unlink()
    commands = {
        'torn': [
            'cityscapes',
            f'--raw={folder}/raw/torn',
            f'--out={folder}/out/torn',
            '--processes=1',
        ],
        'strict': [
            'cityscapes',
            f'--raw={folder}/raw/torn',
            f'--out={folder}/out/strict',
            '--processes=1',
            '--strict',
        ],
    }
    return done | outcomes('prepare', commands), folder


def window(folder, name, frames, split='validation'):
    data = ConfigDict(
        {
            'sources': (f'records:{folder}/out/{name}',),
            'split': split,
            'size': SIZE,
            'frames': frames,
            'strides': (3,),
            'window': 'target',
        }
    )
    return next(loader.create(data, 1, training=False))


@pytest.mark.parametrize('name', RAW)
def test_evaluation_windows_are_those_of_the_protocol(prepared, name):
    done, folder = prepared
    train, validation = CLIPS[name]
    assert done[name][:2] == [
        0,
        f'{folder}/out/{name}: {counted(train, "train clip")}, '
        f'{counted(validation, "validation clip")}\n',
    ], done[name]
    terms = (
        {'short': [7, 10, 13, 16, 19], 'mid': [1, 4, 7, 10, 13, 16, 19]}
        if name == 'cityscapes'
        else {
            'short': [16, 19, 22, 25, 28],
            'mid': [10, 13, 16, 19, 22, 25, 28],
            'long': [1, 4, 7, 10, 13, 16, 19, 22, 25, 28],
        }
    )
    for term, expected in terms.items():
        batch = window(folder, name, 4 + windows.TERMS[term])
        assert layouts.numbers(batch['frames'][0]) == expected, term


def test_labels_and_depth_come_back_identical(prepared):
    _, folder = prepared
    raw = open_source(f'cityscapes:{folder}/raw/cityscapes', 'validation', SIZE)
    out = records.Records(folder / 'out/cityscapes', 'validation')
    for index in range(2):
        truth, found = raw.read(index, range(30)), out.read(index, range(30))
        for name in ('frames', 'labels', 'depth'):  # PNG: the frames too
            np.testing.assert_array_equal(found[name], truth[name])
        assert (
            (found['labels'][19] != 255).any()
            and (np.delete(found['labels'], 19, 0) == 255).all()
            and found['depth'][19].any()
        )
    ids = np.asarray(
        Image.open(
            sorted((folder / 'raw/cityscapes/gtFine/val/frankfurt').glob('*_labelIds.png'))[0]
        )
    )
    np.testing.assert_array_equal(window(folder, 'cityscapes', 5)['labels'][0, -1], TRAIN_IDS[ids])
    near = records.Records(folder / 'out/jpeg', 'validation').read(0, range(30))
    np.testing.assert_array_equal(near['labels'], raw.read(0, range(30))['labels'])
    assert (
        0 < np.abs(near['frames'].astype(int) - raw.read(0, range(30))['frames']).mean() < 6
    )  # noise, the worst case


def test_a_damaged_frame_and_a_lost_label_leave_their_clips_out(prepared):
    done, folder = prepared
    status, out, err = done['torn']
    assert status == 1 and f'{folder}/out/torn: 8 train clips, 2 validation clips\n' in out, err
    left_out = records.read_manifest(folder / 'out/torn')['splits']['train']['left_out']
    assert [clip['name'] for clip in left_out] == ['aachen_000003', 'aachen_000005']
    assert 'aachen_000003_000011_leftImg8bit.png: not a readable image' in left_out[0]['reason']
    assert (
        'no label gtFine/train/aachen/aachen_000005_000019_gtFine_labelIds.png'
        in left_out[1]['reason']
    )
    for clip in left_out:  # named once
        name, reason = clip['name'], clip['reason']
        assert f'left out {name}: {reason.removeprefix(f"{name}: ")}\n' in out
        assert f'{name}: {name}' not in out
    status, out, err = done['strict']
    assert (status, out) == (2, '') and 'not a readable image' in err and err.count('error: ') == 1
    assert not list((folder / 'out').glob('strict*'))
