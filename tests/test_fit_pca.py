"""The fit_pca command: cut off and gone on, over one device and over eight."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from re2pix_jax import weights
from tests.conftest import ROOT, SIZE

# As the command, but saving after every batch, and cut off in the middle where argv[1] says at which batch.
RUNNER = '''
import sys
from re2pix_jax import cli, fit_pca
from re2pix_jax.encoder.principal import Moments
cut, fit_pca.SAVE_SECONDS = int(sys.argv.pop(1)), 0
update, calls = Moments.update, []
def counted(self, features):
    calls.append(1)
    if len(calls) == cut:
        raise KeyboardInterrupt
    return update(self, features)
Moments.update = counted
try:
    cli.run(fit_pca.main, arguments=())
finally:
    print(len(calls), 'batches')
'''


def start(cut, out, bundles, *arguments, devices=1, **variables):
    environment = {**os.environ, 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', **variables}
    command = [sys.executable, '-c', RUNNER, str(cut), '--config=configs/principal.py:tiny', f'--out={out}',
               f'--config.frozen.encoder={bundles}/encoder', f'--config.data.size={SIZE}', '--config.components=20',
               '--config.clips=32', '--config.batch_size=8', *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
    part = weights.load(straight)
    assert part.num_components == 20
    np.testing.assert_allclose(part.components @ part.components.T, np.eye(20), atol=1e-4)
    assert (straight / 'explained_variance.png').stat().st_size > 5000


def test_a_pass_that_is_cut_off_goes_on(straight, micro_bundles, tmp_path):
    done = run(3, tmp_path / 'cut', micro_bundles)
    assert done.returncode == 130 and not (tmp_path / 'cut').exists()
    other = run(0, tmp_path / 'cut', micro_bundles, '--config.clips=40')
    assert other.returncode == 2 and 'cut.progress.npz: belongs to a pass with another config' in other.stderr, other.stderr
    done = run(0, tmp_path / 'cut', micro_bundles)
    assert done.returncode == 0 and '2 batches' in done.stdout, done.stderr
    assert (tmp_path / 'cut' / 'weights.safetensors').read_bytes() == (straight / 'weights.safetensors').read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ['cut']


def test_eight_devices_find_the_same(straight, micro_bundles, tmp_path):
    done = run(0, tmp_path / 'eight', micro_bundles, devices=8)
    assert done.returncode == 0, done.stderr
    one, eight = weights.load(straight), weights.load(tmp_path / 'eight')
    np.testing.assert_allclose(eight.variance, one.variance, rtol=1e-4)
    np.testing.assert_allclose(eight.components[:4], one.components[:4], atol=1e-3)
    about = json.loads((tmp_path / 'eight' / 'config.json').read_text())
    assert about['parts'] == {'encoder': os.path.relpath(micro_bundles / 'encoder', tmp_path / 'eight')}


def test_two_processes_find_the_same_and_go_on_as_one(straight, micro_bundles, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    both = [start(3, tmp_path / 'two', micro_bundles, JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=str(index))
            for index in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 130, err
    done = run(0, tmp_path / 'two', micro_bundles)
    assert done.returncode == 0 and '2 batches' in done.stdout, done.stderr
    one, two = weights.load(straight), weights.load(tmp_path / 'two')
    np.testing.assert_allclose(two.variance, one.variance, rtol=1e-4)
    np.testing.assert_allclose(two.components[:4], one.components[:4], atol=1e-3)
