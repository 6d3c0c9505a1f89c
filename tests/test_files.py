"""Files and folders that are there whole or not at all."""

import errno
import os

import pytest

from re2pix_jax import files
from re2pix_jax.errors import UserError


def test_output_appears_at_once_or_not_at_all(tmp_path):
    out = tmp_path / 'a' / 'out'
    with files.staging(out) as folder:
        (folder / 'metrics.json').write_text('1')
        assert [file.name for file in out.iterdir()] == [folder.name]
    assert [file.name for file in out.iterdir()] == ['metrics.json']
    message = 'out: the disk is full; nothing half-written was left'
    with pytest.raises(UserError, match=message), files.staging(out) as folder:
        (folder / 'metrics.json').write_text('2')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (out / 'metrics.json').read_text() == '1' and len(list(out.iterdir())) == 1
    with pytest.raises(KeyError), files.staging(tmp_path / 'new'):
        raise KeyError
    assert not (tmp_path / 'new').exists()


def test_what_may_not_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / 'file').write_text('kept')
    message = r"file: can't be written \(file exists\); choose another place"
    with pytest.raises(UserError, match=message), files.staging(tmp_path / 'file'):
        raise AssertionError('nothing may run')
    assert (tmp_path / 'file').read_text() == 'kept'
    with (
        pytest.raises(UserError, match="/proc/1/none: can't be written .no such file"),
        files.staging('/proc/1/none'),
    ):
        raise AssertionError('nothing may run')
