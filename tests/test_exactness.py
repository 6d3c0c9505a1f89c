"""What must not change a run: being killed, and the number of devices."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from re2pix_jax.training import writer
from tests.conftest import ROOT
from tests.running import environment

TASKS = ('forecaster', 'generator')
SETTINGS = (*TASKS, 'steps=8', 'batch_size=8', 'checkpoint_every=2')


def start(bundles, workdir, *arguments, devices=1):
    # One run after the other compiles the same programs.
    compiled = {
        'JAX_COMPILATION_CACHE_DIR': str(workdir.parent / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
    }
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.micro_run', str(bundles), str(workdir), *arguments],
        cwd=ROOT,
        env=environment(devices, **compiled),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def parameters(workdir):
    """The final parameters and their average, as one flat list of arrays."""
    import jax
    import orbax.checkpoint as ocp

    folder = max((workdir / 'checkpoints').iterdir(), key=lambda path: int(path.name))
    return jax.tree.leaves(ocp.StandardCheckpointer().restore(folder / 'state'))


def kill_in(task, workdir, process):
    """Kills the run without warning in the middle of a task."""
    deadline = time.monotonic() + 200
    while not any(row['step'] >= 5 for row in writer.read_log(str(workdir / task))):
        assert process.poll() is None and time.monotonic() < deadline, (
            'the run ended before it could be killed'
        )
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope='module')
def straight(micro_bundles, tmp_path_factory):
    """A run on one device, from the first step to the last."""
    workdir = tmp_path_factory.mktemp('exactness') / 'straight'
    finish(start(micro_bundles, workdir, *SETTINGS))
    return workdir


@pytest.mark.slow  # the loop's own test does the same on a toy
def test_a_killed_run_goes_on_bit_for_bit(micro_bundles, straight):
    broken = straight.parent / 'broken'
    for task in TASKS:
        kill_in(task, broken, start(micro_bundles, broken, *SETTINGS))
    finish(start(micro_bundles, broken, *SETTINGS))

    for task in TASKS:
        assert writer.read_log(str(broken / task)) == writer.read_log(str(straight / task))
        assert len(writer.read_log(str(broken / task))) == 8
        for ours, theirs in zip(
            parameters(broken / task), parameters(straight / task), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one(micro_bundles, straight):
    finish(start(micro_bundles, straight.parent / 'eight', *SETTINGS, devices=8))
    for task in TASKS:
        one, eight = (
            writer.read_log(str(workdir / task))
            for workdir in (straight, straight.parent / 'eight')
        )
        assert len(one) == len(eight) == 8
        np.testing.assert_allclose(
            [row['loss'] for row in eight], [row['loss'] for row in one], rtol=1e-5
        )
        assert len({row['loss'] for row in one}) == 8  # every step saw other clips and other noise
