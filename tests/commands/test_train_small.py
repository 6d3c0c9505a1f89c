"""launch/train_small.sh: which commands it gives in which call, whatever is lost between two: with
a Python that only makes the folders, and, slow, with the real one.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

import re2pix_jax
from tests.conftest import ROOT

PARTS = ['encoder', 'principal', 'autoencoder', 'head', 'forecaster_one_step', 'forecaster']
PARTS += ['generator']
STUB = r"""#!/usr/bin/env bash
[ "$1" != -c ] || exec {python} "$@"
shift 2
echo "$@" >> {log}
for given in "$@"; do
  case $given in --workdir=*) workdir=${{given#*=}} ;; --out=*) out=${{given#*=}} ;; esac
done
if [ "$1" != train ]; then mkdir -p "$out"; head -c 100000 /dev/zero > "$out/weights"; exit; fi
mkdir -p "$workdir"
echo '{{"step": 50, "steps_per_second": 10.0}}' > "$workdir/timing.jsonl"
[ -z "${{DEAF:-}}" ] || trap "" TERM
case " ${{STUCK:-}} " in *" $(basename "$workdir") "*) exec sleep 30 ;; esac
"""


@pytest.fixture
def call(tmp_path):
    """Calls the script with that Python, so many seconds: (status, commands it gave, stdout)."""
    log, stub = tmp_path / 'log', tmp_path / 'bin' / 'python3'
    stub.parent.mkdir()
    stub.write_text(STUB.format(python=sys.executable, log=log))
    stub.chmod(0o755)

    def call(limit=60, **variables):
        log.write_text('')
        path = f'{stub.parent}:{os.environ["PATH"]}'
        done = subprocess.run(
            ['bash', 'launch/train_small.sh', str(tmp_path / 'out')],
            cwd=ROOT,
            env=os.environ | {'BARE': '1', 'PATH': path, 'LIMIT': str(limit)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, log.read_text().splitlines(), done.stdout + done.stderr

    return call


def trained(commands):
    return re.findall(r'^train .*--workdir=\S+/(\w+)', '\n'.join(commands), re.MULTILINE)


def test_one_call_makes_every_part_and_keeps_the_last(call, tmp_path):
    status, commands, said = call()
    assert status == 0, said
    assert trained(commands) == [name for name in PARTS if name != 'principal']
    kinds = [line.split()[0] for line in commands]
    assert kinds.count('prepare') == 2 and kinds.count('export') == 6 and 'fit_pca' in kinds
    assert all('--storage=float16' in line for line in commands if line.startswith('export'))
    encode = next(line for line in commands if line.startswith('prepare encode'))
    assert f'--encoder={tmp_path}/out.work/parts/encoder ' in encode
    unrolled = next(line for line in commands if 'forecaster:small-unrolled' in line)
    assert 'encoder=' + f'{tmp_path}/out.work/parts/forecaster_one_step ' in unrolled
    assert 'config.init=' + f'{tmp_path}/out.work/parts/forecaster_one_step' in unrolled
    parts = tmp_path / 'out.work' / 'parts'
    assert {path.name for path in parts.iterdir()} == {'generator', 'finished'}
    assert call()[:2] == (0, [])


def test_a_call_that_is_cut_off_is_gone_on_with(call, tmp_path):
    status, commands, said = call(limit=3, STUCK='head')
    assert status == 75 and 'the same call goes on' in said
    assert trained(commands) == ['encoder', 'autoencoder', 'head']
    status, commands, _ = call()
    assert status == 0 and trained(commands)[0] == 'head' and 'config.steps' not in commands[0]
    assert not any(line.startswith('prepare world') for line in commands)


def test_a_command_that_does_not_end_in_time_is_killed_and_gone_on_with(call):
    status, commands, said = call(limit=3, STUCK='head', DEAF='1', GRACE='1')
    assert status == 75 and 'the same call goes on' in said
    status, commands, _ = call()
    assert status == 0 and trained(commands)[0] == 'head'


@pytest.mark.long
def test_what_survives_is_in_one_folder(call, tmp_path):
    call(limit=3, STUCK='forecaster')
    kept = [path.name for path in (tmp_path / 'out').iterdir()]
    assert 'DONE' in kept and len(kept) == 2
    shutil.rmtree(tmp_path / 'out.work')
    status, commands, said = call(limit=2, STUCK='forecaster')
    assert status == 75 and trained(commands) == ['forecaster'], said
    encode = next(line for line in commands if line.startswith('prepare encode'))
    assert f'--encoder={tmp_path}/out.work/parts/forecaster_one_step ' in encode
    # It had the call for itself: begun anew it takes the steps that one holds, and keeps to them.
    shutil.rmtree(tmp_path / 'out.work')
    for limit, stuck, ended in ((2, 'forecaster', 75), (60, '', 0)):
        status, commands, said = call(limit=limit, STUCK=stuck)
        steps = re.search(r'forecaster:small-unrolled.*config.steps=(\d+)', '\n'.join(commands))
        assert status == ended and 8 <= int(steps[1]) <= 16, said
    assert 'config.steps' not in next(line for line in commands if 'generator:small' in line)


@pytest.mark.slow
def test_the_script_at_a_hundredth_of_its_length(tmp_path):
    variables = {'STEPS': '2', 'CLIPS': '4', 'BATCH': '2', 'WORKERS': '0', 'BARE': '1'}
    command = ['bash', 'launch/train_small.sh', str(tmp_path / 'out')]
    said, status, limit = '', 75, 40
    while status == 75:  # the first call is killed in the middle, what others see of it is lost
        env = os.environ | variables | {'LIMIT': str(limit)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        said, status = said + done.stdout, done.returncode
        if limit == 40:
            assert status == 75, done.stderr
            shutil.rmtree(tmp_path / 'out.work')
        limit = 540
    assert status == 0, done.stderr
    print(said)
    model = re2pix_jax.load(str(tmp_path / 'out.work' / 'parts' / 'generator'))
    assert model.size == (128, 256) and model.vae.net.factor == 8
    files = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
