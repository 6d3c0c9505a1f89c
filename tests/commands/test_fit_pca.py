"""The fit_pca command: cut off and gone on, over one device and over eight."""

import errno
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.encoder.principal import Moments
from re2pix_jax.errors import UserError
from re2pix_jax.report import curves
from re2pix_jax.tasks import principal
from tests.conftest import ROOT, SIZE
from tests.running import environment, outcomes

# As the command, but saving after every batch, and cut off in the middle where argv[1] says at
# which batch.
RUNNER = """
import sys, time
from re2pix_jax.commands import cli, fit_pca
from re2pix_jax.encoder.principal import Moments
from re2pix_jax.tasks import principal
cut, principal.SAVE_SECONDS = int(sys.argv.pop(1)), 0
update, calls = Moments.update, []
def counted(self, features):
    calls.append(1)
    if len(calls) == cut:
        time.sleep(2)  # another process may be behind, and its end comes with this one's
        raise KeyboardInterrupt
    return update(self, features)
Moments.update = counted
try:
    cli.run(fit_pca.main)
finally:
    print(len(calls), 'batches')
"""


def start(cut, out, bundles, *arguments, devices=1, **variables):
    command = [
        sys.executable,
        '-c',
        RUNNER,
        str(cut),
        '--config=configs/principal.py:tiny',
        f'--out={out}',
        f'--config.frozen.encoder={bundles}/encoder',
        f'--config.data.size={SIZE}',
        '--config.components=20',
        '--config.clips=32',
        '--config.batch_size=8',
        *arguments,
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(devices, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **options):
    """(exit status, stdout, stderr) of the command."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope='module')
def straight(micro_bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp('pca')
    done = run(0, folder / 'straight', micro_bundles)
    assert done.returncode == 0 and '4 batches' in done.stdout, done.stderr
    assert '1024 tokens: 20 of 96 components' in done.stdout
    assert sorted(file.name for file in folder.iterdir()) == ['straight']
    return folder / 'straight'


def test_the_bundle_holds_components_and_their_plot(straight):
    part = bundles.load(straight)
    assert part.num_components == 20
    np.testing.assert_allclose(part.components @ part.components.T, np.eye(20), atol=1e-4)
    assert (straight / 'explained_variance.png').stat().st_size > 5000


@pytest.mark.long
def test_a_pass_that_is_cut_off_goes_on(straight, micro_bundles, tmp_path):
    done = run(3, tmp_path / 'cut', micro_bundles)
    assert done.returncode == 130 and not (tmp_path / 'cut').exists()
    other = run(0, tmp_path / 'cut', micro_bundles, '--config.clips=40')
    assert (
        other.returncode == 2
        and 'cut.progress.npz: belongs to a pass with another config' in other.stderr
    ), other.stderr
    done = run(0, tmp_path / 'cut', micro_bundles)
    assert done.returncode == 0 and '2 batches' in done.stdout, done.stderr
    assert (tmp_path / 'cut' / 'weights.safetensors').read_bytes() == (
        straight / 'weights.safetensors'
    ).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ['cut']


def test_eight_devices_find_the_same(straight, micro_bundles, tmp_path):
    done = run(0, tmp_path / 'eight', micro_bundles, devices=8)
    assert done.returncode == 0, done.stderr
    one, eight = bundles.load(straight), bundles.load(tmp_path / 'eight')
    np.testing.assert_allclose(eight.variance, one.variance, rtol=1e-4)
    np.testing.assert_allclose(eight.components[:4], one.components[:4], atol=1e-3)
    about = json.loads((tmp_path / 'eight' / 'config.json').read_text())
    assert about['parts'] == {
        'encoder': os.path.relpath(micro_bundles / 'encoder', tmp_path / 'eight')
    }


@pytest.mark.long
def test_two_processes_find_the_same_and_go_on_as_one(straight, micro_bundles, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    both = [
        start(
            3,
            tmp_path / 'two',
            micro_bundles,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES='2',
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130, err
    done = run(0, tmp_path / 'two', micro_bundles)
    assert done.returncode == 0 and '2 batches' in done.stdout, done.stderr
    one, two = bundles.load(straight), bundles.load(tmp_path / 'two')
    np.testing.assert_allclose(two.variance, one.variance, rtol=1e-4)
    np.testing.assert_allclose(two.components[:4], one.components[:4], atol=1e-3)


def test_an_encoder_kept_for_other_frames_takes_those_of_the_config(
    straight, micro_bundles, tmp_path
):
    """And what the features cannot have is refused before the first batch, in one line."""
    bundles.save(
        tmp_path / 'encoder', bundles.load(micro_bundles / 'encoder').replace(image_size=(16, 32))
    )
    fixed = [
        '--config=configs/principal.py:tiny',
        f'--config.frozen.encoder={tmp_path}/encoder',
        f'--config.data.size={SIZE}',
        '--config.batch_size=8',
        f'--out={tmp_path}/out',
    ]
    clips = f"('records:{micro_bundles}/clips',)"
    asked = {
        'fine': ['--config.components=20', '--config.clips=32'],
        'channels': ['--config.components=97', '--config.clips=32'],
        'none': ['--config.components=0', '--config.clips=32'],
        'tokens': [
            '--config.components=96',
            '--config.clips=1',
            '--config.batch_size=2',
            f'--config.data.sources={clips}',
        ],
        'clips': ['--config.components=20', '--config.clips=0'],
        'encoded': ['--config.components=20', "--config.data.sources=('encoded:nowhere',)"],
    }
    found = outcomes('fit_pca', {name: fixed + arguments for name, arguments in asked.items()})
    assert found['fine'][0] == 0 and '1024 tokens: 20 of 96 components' in found['fine'][1], found[
        'fine'
    ]
    np.testing.assert_array_equal(
        bundles.load(tmp_path / 'out').components, bundles.load(straight).components
    )
    for name, words in {
        'channels': f'config.components = 97: the encoder {tmp_path}/encoder gives 96 channels; '
        'ask for 1 to 96',
        'none': f'config.components = 0: the encoder {tmp_path}/encoder gives 96 channels; ask '
        'for 1 to 96',
        'tokens': 'config.clips = 1: with data.frames = 1 and a grid of 4x8 they make 64 tokens, '
        'and 96 components need more than 96',
        'clips': 'config.clips = 0: with data.frames = 1 and a grid of 4x8 they make 0 tokens, '
        'and 20 components need more than 20',
        'encoded': 'config.data.sources: encoded clips hold no frames, which components are '
        'fitted to; take a source of',
    }.items():
        status, _, err = found[name]
        assert status == 2 and err.startswith(f'error: {words}') and err.count('\n') == 1, err


def full_disk(path, *_):
    """Half a file, then the error of a full disk."""
    with open(path, 'wb') as file:
        file.write(b'half')
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_leaves_nothing_half_written(straight, tmp_path, monkeypatch):
    moments = Moments().update(np.ones((4, 3), np.float32))
    begun = principal.Pass(tmp_path / 'bundle.progress.npz', {})
    monkeypatch.setattr(principal, 'SAVE_SECONDS', 0)
    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, 'write_bytes', full_disk)
        with pytest.raises(UserError, match='the disk is full'):
            begun.advance(moments, types.SimpleNamespace(get_state=dict))
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr(curves, 'explained_variance', full_disk)
        with pytest.raises(UserError, match='the disk is full'):
            principal.save(tmp_path / 'bundle', bundles.load(straight), None)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched:
        patched.setattr(pathlib.Path, 'write_text', full_disk)  # the bundle's own files
        with pytest.raises(UserError, match='the disk is full'):
            principal.save(tmp_path / 'bundle', bundles.load(straight), None)
    assert list(tmp_path.iterdir()) == []
