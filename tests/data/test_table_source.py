"""A dataset as a table: which frames its rows mean, labels beside them, and what is wrong."""

import json
import re

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


def fill(folder, pixels, names):
    folder.mkdir()
    for name in names:
        Image.fromarray(pixels).save(folder / name)


@pytest.mark.parametrize(
    ('frames', 'labels', 'words'),
    [
        (range(8), range(0, 8, 2), r'4 images, but .*/f has 8 frames; expected one for each'),
        (
            (0, 1, 2, 4),
            (0, 1, 3, 4),
            r'3_ids.png: by its order the image of .*/f/cam0_2.png, which',
        ),
        (range(1, 5), range(4), r'0_ids.png: by its order the image of .*/f/cam0_1.png, which'),
        (range(4), (), r'the folder holds no images'),
        (range(9, 12), range(9, 12), None),
    ],
)
def test_labels_of_other_frames_are_refused(tmp_path, frames, labels, words):
    fill(tmp_path / 'f', index_coded.picture(0), [f'cam0_{k}.png' for k in frames])
    fill(tmp_path / 'l', np.zeros((96, 160), np.uint8), [f'{k}_ids.png' for k in labels])
    file = write(tmp_path, [('f', '', '', 'train', 'l')])
    problem = Table(file, keep_unreadable=True).problem(0)
    if words is None:
        assert problem is None and not Table(file).read(0, [0])['labels'].any()
        return
    assert re.fullmatch(f'line 2: .*{words}.*', problem)
    with pytest.raises(UserError, match=f'table.csv: line 2: .*{words}'):
        Table(file)


@pytest.mark.parametrize(
    ('column', 'pixels', 'words'),
    [
        ('depth', np.float32(12.7), r'float32 values from 12.7 to 12.7, .* 65535, a 16-bit PNG of'),
        ('depth', np.int32(70000), r'int32 values from 70000 to 70000, .* counts of 0.01 m'),
        ('labels', np.uint16(263), r'uint16 values from 263 to 263, .* 255, an 8-bit PNG of train'),
        ('labels', np.bool_(True), r'bool values from 1 to 1, expected whole numbers'),
        ('labels', np.uint16(18), None),
        ('depth', np.uint8(200), None),
    ],
)
def test_values_are_never_cut_or_wrapped(tmp_path, column, pixels, words):
    fill(tmp_path / 'f', index_coded.picture(0), ['0.png'])
    fill(tmp_path / 'p', np.full((96, 160), pixels), ['0.tif'])
    (tmp_path / 't.jsonl').write_text(json.dumps({'path': 'f', column: 'p'}))
    source = Table(tmp_path / 't.jsonl', size=None)
    if words is None:
        assert source.read(0, [0])[column].max() == (18 if column == 'labels' else 2)
        return
    with pytest.raises(UserError, match=f'0.tif: {words}'):
        source.read(0, [0])


def test_one_file_in_two_spellings_overlaps(folder, tmp_path):
    (tmp_path / 'link').symlink_to(folder)
    for other in (f'../{folder.name}/a.mp4', tmp_path / 'link' / 'a.mp4'):
        file = write(folder, [('a.mp4', 0, 2, 'train'), (other, 1, 3, 'validation')], 'twice.csv')
        with pytest.raises(UserError, match='lines 2 and 3 overlap in a.mp4'):
            Table(file)


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
        (b'{"path": "a.mp4", "labels": 3}', 'line 1: expected labels, a folder, not 3'),
        (b'{"path": "a.mp4", "depth": ["d"]}', r"line 1: expected depth, a folder, not \['d'\]"),
        (b'{"path": "a.mp4", "end": 1' + 400 * b'0' + b'}', 'line 1: expected 0 <= start < end'),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, text, words):
    (tmp_path / 'x.csv').write_bytes(text)
    with pytest.raises(UserError, match=words):
        Table(tmp_path / 'x.csv')
    with pytest.raises(UserError, match='no such file; expected a table'):
        Table(tmp_path / 'none.csv')
