"""Addresses on command lines: none is taken for a local folder of a strange name."""

import contextlib
import json
import subprocess
import sys

import pytest

from re2pix_jax import remote
from re2pix_jax.commands import _addresses
from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults
from tests.conftest import ROOT
from tests.running import environment

REMOTE = {  # command → what may lie in a bucket
    'compare': {'argument 0', 'argument 1'},
    'convert': {'argument 1', 'argument 2', '--encoder'},
    'demo': {'--model', '--depth'},
    'evaluate': {'--workdir'},
    'export': {'--workdir', '--out'},
    'finetune': {'--model'},
    'fit_pca': {'--out'},
    'gallery': {'--model', '--out'},
    'plan': {'--json'},
    'predict': {'--model', '--out'},
    'prepare': {'--out', '--source', '--encoder', '--principal', '--vae', '--check', '--look'},
    'train': {'--workdir'},
}


@pytest.fixture(scope='module')
def said():
    done = subprocess.run(
        [sys.executable, '-m', 'tests.commands.address_lines'],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_flag_refuses_an_address_of_no_known_scheme(said):
    places = {'--workdir', '--out', '--model', '--raw', '--json', '--card', '--video', '--pca'}
    assert places <= {where for of_command in said.values() for where in of_command}
    for command, of_command in said.items():
        for where, of in of_command.items():
            for address in ('ftp://host/folder', 'gs://'):
                status, err = of[address]
                assert status == 2 and err.count('\n') == 1, (command, where, err)
                assert (
                    f'={address}: no such place; a path of this machine, gs://BUCKET/... or ' in err
                )


def test_what_cannot_lie_in_a_bucket_says_so(said):
    for command, of_command in said.items():
        for where, of in of_command.items():
            status, err = of['gs://bucket/folder']
            if where in REMOTE.get(command, ()):
                assert (status, err) == (0, ''), (command, where, err)
            else:
                assert status == 2 and err.count('\n') == 1, (command, where, err)
                assert '=gs://bucket/folder: expected a path of this machine; copy' in err
        assert REMOTE.get(command, set()) <= of_command.keys()


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('frozen.vae', 'ftp://host/vae', '--config.frozen.vae=ftp://host/vae: no such place'),
        ('data.sources', ('records:ftp://host/x',), 'data.sources=ftp://host/x: no such place'),
        ('data.sources', ('records:gs://bucket/x', 'encoded:gs://bucket/x', 'world'), None),
        ('frozen.vae', 'gs://bucket/vae', None),
        ('frozen.vae', 'hf:owner/vae', None),
        (
            'data.sources',
            ('videos:gs://bucket/x',),
            'sources=videos:gs://bucket/x: footage is read from a disk of this machine; copy it',
        ),
    ],
)
def test_fields_of_configs(monkeypatch, field, value, message):
    monkeypatch.setitem(remote.CLIENTS, 'gs', ('json', 'gcs'))
    config = defaults.defaults()
    config.frozen.vae = ''
    config.update_from_flattened_dict({field: value})
    expected = pytest.raises(UserError, match=message) if message else contextlib.nullcontext()
    with expected:
        _addresses.check_config(config)
