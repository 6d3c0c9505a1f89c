"""A dataset as a table: which frames its rows mean, labels beside them, and what is wrong."""

import json

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import loader, prepare, records
from re2pix_jax.data.sources import open_source
from re2pix_jax.data.sources.table import Table
from re2pix_jax.errors import UserError
from tests.data import index_coded

HEADER = 'path,start,end,split,labels,depth,depth_metres,pose\n'
ROWS = [
    (f'{name}.mp4', begin, begin + 2, split)
    for name in 'abc'
    for begin, split in ((0, 'train'), (2, 'validation'))
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('table')
    for name in 'abc':
        index_coded.write(folder / f'{name}.mp4', range(120), np.arange(120) / 30)
    for kind in ('labels', 'depth'):
        (folder / kind).mkdir()
        for number in range(120):
            plane = np.full((96, 160), number % 19 if kind == 'labels' else 1000 + number)
            plane = plane.astype(np.uint8 if kind == 'labels' else np.uint16)
            Image.fromarray(plane).save(folder / kind / f'{number}.png')
    return folder


def write(folder, rows, name='table.csv'):
    (folder / name).write_text(HEADER + ''.join(','.join(map(str, row)) + '\n' for row in rows))
    return folder / name


def shown(source):
    return [
        (piece.name.split('#')[0], list(range(piece.first, piece.first + piece.shown)))
        for piece in source.pieces
    ]


def test_three_videos_of_two_segments_each(folder, tmp_path):
    file = write(folder, ROWS)
    lines = [
        json.dumps({'path': path, 'start': start, 'end': end, 'split': split, 'pose': [1, 2]})
        for path, start, end, split in ROWS
    ]
    (folder / 'table.jsonl').write_text('\n'.join(lines) + '\n')
    for split, numbers in (('train', range(60)), ('validation', range(60, 120))):
        expected = [(f'{name}.mp4', list(numbers)) for name in 'abc']
        assert shown(Table(file, split)) == shown(Table(folder / 'table.jsonl', split)) == expected
        read = Table(file, split, size=None).read(1, [0, 59], labels=False)['frames']
        assert index_coded.numbers(read) == [numbers[0], numbers[-1]]
    options = dict(image_format='png', quality=95, processes=1, strict=False)
    prepare.raw(tmp_path / 'out', 'table', file, size=(32, 64), **options)
    found = records.Records(tmp_path / 'out', 'validation')
    assert [found.name(k) for k in range(3)] == ['a.mp4#60', 'b.mp4#60', 'c.mp4#60']


def test_labels_and_depth_are_those_of_the_frames(folder):
    rows = [('a.mp4', 1, 3, 'train', 'labels', 'depth', 0.001, 'pose.txt')]
    source = Table(write(folder, rows, 'labelled.csv'), size=None)
    clip = source.read(0, [0, 5])
    assert index_coded.numbers(clip['frames']) == [30, 35]
    assert [int(plane.max()) for plane in clip['labels']] == [30 % 19, 35 % 19]
    np.testing.assert_allclose(clip['depth'].max((1, 2)), [1.030, 1.035], rtol=1e-6)
    assert source.depth_kind(0) == 'metres'
    data = {'sources': (f'table:{folder}/labelled.csv',), 'size': (16, 32), 'frames': 2}
    batch = next(loader.create(data | {'split': 'train', 'strides': (3,)}, 1))
    assert batch['labels'].shape == (1, 2, 16, 32) and (batch['labels'] < 19).all()
    assert len(open_source(f'table:{folder}/labelled.csv', 'train', (16, 32))) == 1


@pytest.mark.parametrize(
    ('rows', 'words'),
    [
        ([('a.mp4', 0, 2, 'train'), ('a.mp4', 1, 3, 'validation')], r'lines 2 and 3 overlap in a'),
        ([('a.mp4', '', '', 'train'), ('a.mp4', 3, 4, 'train')], r'lines 2 and 3 overlap'),
        ([('a.mp4', 2, 1, 'train')], r'line 2: expected 0 <= start < end, seconds, not 2 and 1'),
        ([('a.mp4', 'x', 1, 'train')], r'line 2: expected 0 <= start < end'),
        ([('a.mp4', 0, 1, 'holdout')], r'line 2: expected split one of train, validation, test'),
        ([('', 0, 1, 'train')], r'line 2: expected a path'),
        ([('a.mp4', 0, 1, 'train', '', '', 5)], r'line 2: expected depth_metres'),
        ([('a.mp4', 0, 1, 'validation')], r"no row of split 'train'"),
        ([('none.mp4', 0, 1, 'train')], r'none.mp4: cannot be read .no such file'),
        ([('a.mp4', 50, 60, 'train')], r'no clip can be used.*shows nothing between 50 and 60 s'),
        ([], r'no row; expected a header'),
    ],
)
def test_what_is_wrong_with_a_row_is_one_line(folder, rows, words):
    file = write(folder, rows, 'wrong.csv')
    with pytest.raises(UserError, match=words) as error:
        loader.create({'sources': (f'table:{file}',), 'frames': 2}, 1)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        (b'file,begin\na.mp4,0\n', 'no column path in its first line'),
        (b'{"path": "a.mp4"}\n{"path": \n', 'line 2 is no JSON'),
        (b'{"path": "a.mp4"}\n[1]\n', 'line 2: expected an object'),
        (b'\xff\xfe\x00\x01', 'not a table in UTF-8'),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, text, words):
    (tmp_path / 'x.csv').write_bytes(text)
    with pytest.raises(UserError, match=words):
        Table(tmp_path / 'x.csv')
    with pytest.raises(UserError, match='no such file; expected a table'):
        Table(tmp_path / 'none.csv')
