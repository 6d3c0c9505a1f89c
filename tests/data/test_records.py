"""Prepared clips: read back, and what is wrong with them said."""

import json
import pickle

import numpy as np
import pytest

from re2pix_jax.data import frame_records, records
from re2pix_jax.errors import UserError
from tests.data.stubs import Stub, damage


def test_records_give_back_what_was_written(prepared):
    source, written = pickle.loads(pickle.dumps(records.Records(prepared, 'train'))), Stub()
    assert len(source) == 5 and len(records.Records(prepared, 'validation')) == 2
    for index, indices in [(0, [0]), (3, [5, 0, 11]), (4, [1, 2, 5, 15])]:
        got, want = source.read(index, indices), written.read(index, indices)
        assert source.name(index) == f'train/{index}' and source.fps(index) == 17.0 + index
        assert source.num_frames(index) == 12 + index and source.target(index) == 7
        for name in ('frames', 'labels', 'depth'):
            np.testing.assert_array_equal(got[name], want[name])
            assert got[name].dtype == want[name].dtype
    assert set(source.read(1, [2], labels=False)) == {'frames'}
    with pytest.raises(
        UserError, match='frames 3 to 12 of 12'
    ):  # the next record is another clip's
        source.read(0, [3, 12])


@pytest.mark.parametrize(
    'coding', [('linear', 0.01), ('linear', 1 / 256), ('inverse', 0.22 * 2262.5 * 256)]
)
def test_depth_keeps_its_16_bits(coding):
    counts = np.arange(65536, dtype=np.uint16)
    unknown = counts < (2 if coding[0] == 'inverse' else 1)
    np.testing.assert_array_equal(
        records.counts_of(records.depth_of(counts, coding), coding), np.where(unknown, 0, counts)
    )
    assert not records.depth_of(counts, coding)[unknown].any()


def test_only_the_asked_frames_are_decoded(prepared, monkeypatch):
    decoded, decode = [], records._decode
    monkeypatch.setattr(records, '_decode', lambda encoded: decoded.append(1) or decode(encoded))
    source = records.Records(prepared, 'train')
    source.read(2, [3, 7], labels=False)
    assert len(decoded) == 2
    source.read(2, [3, 5])
    assert len(decoded) == 2 + 3, 'two frames, one label image, no depth'


def test_damage_is_found_by_the_check(tmp_path):
    frame_records.write_frames(tmp_path / 'out', {'train': Stub(3)})
    assert list(records.damaged(tmp_path / 'out', 'train')) == [None] * 3
    file = tmp_path / 'out' / 'manifest.json'
    manifest = json.loads(file.read_text())
    manifest['splits']['train']['clips'][1]['sha256'] = '0'
    file.write_text(json.dumps(manifest))
    assert (
        list(records.damaged(tmp_path / 'out', 'train'))[1]
        == 'record 1 of train (train/1) has another checksum'
    )
    damage(tmp_path / 'out')
    assert any(
        what and "can't be read" in what for what in records.damaged(tmp_path / 'out', 'train')
    )


def test_what_is_wrong_with_records_is_said(tmp_path, prepared):
    def changed(name, change):
        frame_records.write_frames(tmp_path / name, {'train': Stub(2)})
        change(tmp_path / name)
        return tmp_path / name

    damaged = records.Records(changed('damaged', damage), 'train')
    with pytest.raises(UserError, match=r"damaged: record \d \(train/\d\) can't be read"):
        for index in range(2):
            damaged.read(index, range(12))
    for folder, split, words in [
        (tmp_path / 'none', 'train', 'no prepared clips there'),
        (prepared, 'test', "no split 'test', there is train, validation"),
        (
            changed('old', lambda f: (f / 'manifest.json').write_text('{"format": 1}')),
            'train',
            'format 1, this version reads format 2',
        ),
        (
            changed('odd', lambda f: (f / 'manifest.json').write_text('[1')),
            'train',
            'manifest.json: is not readable JSON',
        ),
        (changed('lost', lambda f: (f / 'dataset_info.json').unlink()), 'train', "can't be opened"),
    ]:
        with pytest.raises(UserError) as error:
            records.Records(folder, split)
        assert (
            words in str(error.value)
            and str(folder) in str(error.value)
            and '\n' not in str(error.value)
        )
