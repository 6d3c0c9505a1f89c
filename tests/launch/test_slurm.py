"""slurm.sbatch and prepare.sbatch on a real Slurm of two nodes on this machine: `pytest --slow`, as
root, where slurm-wlm and munge are installed.
"""

import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from re2pix_jax import tasks
from re2pix_jax.training import loop, writer
from tests.commands.test_train import arguments
from tests.conftest import ROOT
from tests.data.stubs import hashes
from tests.running import environment, outcomes

PATIENCE = 500  # seconds
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ('slurmd', 'slurmctld', 'munged'))),
        reason='as root, with slurm-wlm and munge',
    ),
]


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """Calls a command of Slurm: its output."""
    folder = tmp_path_factory.mktemp('slurm')
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o755)
    cluster = ['bash', 'tests/launch/slurm_cluster.sh', str(folder)]
    environ = environment(
        SLURM_CONF=str(folder / 'slurm.conf'),
        PYTHONPATH=str(ROOT),
        LOGS=str(folder),
        JAX_COMPILATION_CACHE_DIR=str(folder / 'compiled'),
    )
    try:
        subprocess.run(cluster, cwd=ROOT, check=True, timeout=90)

        def call(*command):
            done = subprocess.run(
                command, cwd=ROOT, env=environ, check=True, capture_output=True, text=True
            )
            return done.stdout.strip()

        call.folder = folder
        yield call
        call('scancel', '--full', '--user=root')
        time.sleep(2)
    finally:
        for pid in reversed((folder / 'pids').read_text().split()):
            os.kill(int(pid), signal.SIGTERM)


def wait_for(what, happened):
    deadline = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def said(folder, job):
    return ''.join(
        f'--- {path.name}\n{path.read_text()}' for path in sorted(folder.glob(f'*-{job}*.log'))
    )


def send(slurm, workdir, bundles):
    """Sends a training of two tasks on two nodes; the job's number."""
    fields = ['--config.steps=60', '--config.checkpoint_every=10', '--config.eval_every=0']
    return slurm(
        'sbatch',
        '--parsable',
        '--nodes=2',
        f'--output={slurm.folder}/%x-%j.log',
        'launch/slurm.sbatch',
        '--',
        're2pix',
        'train',
        *arguments('forecaster', bundles, workdir),
        *fields,
    )


def state(slurm, job):
    return slurm('scontrol', 'show', 'job', '--oneliner', job)


def run_of(workdir):
    """The last step of a run, its log, and the arrays of its state."""
    run = loop.open_run(str(workdir), tasks.create)
    log = (workdir / 'log.jsonl').read_text()
    return int(run.state.step), log, jax.device_get(run.state)


def reaches(workdir, step):
    """Whether a run has done a step: a condition to wait for."""
    return lambda: any(row['step'] >= step for row in writer.read_log(str(workdir)))


@pytest.fixture(scope='module')
def undisturbed(slurm, micro_bundles, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
    job = send(slurm, workdir, micro_bundles)
    wait_for('undisturbed', lambda: 'JobState=COMPLETED' in state(slurm, job))
    assert 'Restarts=0' in state(slurm, job)
    return run_of(workdir)


@pytest.mark.parametrize('how', ['requeued', 'killed'])
def test_a_disturbed_job_ends_where_an_undisturbed_one_does(
    slurm, micro_bundles, undisturbed, tmp_path, how
):
    workdir = tmp_path / 'run'
    job = send(slurm, workdir, micro_bundles)
    wait_for(how, reaches(workdir, 5))
    if how == 'requeued':  # as when a job of higher priority takes the nodes
        slurm('scontrol', 'requeue', job)
    else:  # as by a lack of memory
        pids = slurm('pgrep', '--full', f're2pix train .*workdir={workdir}').split()
        os.kill(int(pids[-1]), signal.SIGKILL)
    wait_for(how, lambda: 'JobState=COMPLETED' in state(slurm, job))
    print(said(slurm.folder, job))
    assert 'Restarts=1' in state(slurm, job)
    (step, log, params), (last, reference, expected) = run_of(workdir), undisturbed
    assert step == last == 60 and log == reference
    assert jax.tree.all(jax.tree.map(np.array_equal, params, expected))


def test_an_array_prepares_what_one_command_does(slurm, tmp_path):
    """Four shards on two nodes, the third cut off and queued again; the job that waits for them
    makes the folder.
    """
    world = ['world', '--clips=64', '--validation_clips=2', '--frames=40', '--size=32x64']
    asked = [*world, '--processes=1', f'--out={tmp_path}/world']

    def send_prepare(*flags):
        output = f'--output={slurm.folder}/prepare-%A-%a.log'
        return slurm('sbatch', '--parsable', output, *flags, 'launch/prepare.sbatch', *asked)

    job = send_prepare('--array=1-4')
    whole = send_prepare(f'--dependency=afterany:{job}')
    partial = tmp_path / 'world.partial'
    wait_for('begun', lambda: [*partial.glob('train-00002.*.array_record.partial')])
    slurm('scontrol', 'requeue', f'{job}_3')
    wait_for('whole', lambda: 'JobState=COMPLETED' in state(slurm, whole))
    told = '\n'.join(path.read_text() for path in sorted(slurm.folder.glob(f'prepare-{job}*.log')))
    for number, clips in (('1', '16 train clips, 0'), ('4', '16 train clips, 2')):
        line = f'{tmp_path}/world, shard {number} of 4: {clips} validation clips\n'
        assert line in told, told
    assert 'Restarts=1' in state(slurm, f'{job}_3')
    one = [*world, '--processes=1', f'--out={tmp_path}/one']
    assert outcomes('prepare', {'': one})[''][0] == 0
    assert hashes(tmp_path / 'world') == hashes(tmp_path / 'one')
    assert not partial.exists()
