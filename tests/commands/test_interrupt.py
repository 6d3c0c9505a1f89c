"""Ctrl-C and SIGTERM: one line and status 130 or 143 while a command is imported, within native
code, and after it.
"""

import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.running import environment, hear_ctrl_c

AT_WORK = """
import hashlib
from re2pix_jax.commands import _interrupt
with _interrupt.at_once():
    print('at work', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)  # minutes, in which Python hears nothing
"""
TRACED = """
import atexit, types
from re2pix_jax.commands import cli
class Traced:
    def __del__(self):
        print('taken down')
def main(argv):
    atexit.register(print, 'in order')
    traced = Traced()
    print('at work', flush=True)
    while True:
        pass
main.__module__ = '__main__'
cli.run(main)
"""

SWALLOWED = """
import gc, signal, sys, time
from re2pix_jax.commands import cli
def callback(phase, info):
    if phase == 'start' and not raised:
        raised.append(1)
        signal.raise_signal(NUMBER)
        sum(range(9))  # here it is raised
raised = []
def main(argv):
    gc.callbacks.append(callback)
    gc.collect()
    gc.callbacks.remove(callback)
    print('at work', raised, flush=True)
    time.sleep(30)
    return 3
main.__module__ = '__main__'
cli.run(main)
"""

READING = """
import grain, numpy
from re2pix_jax.commands import _cli
from re2pix_jax.data import ahead
def main(argv):
    held = next(ahead.Ahead(grain.MapDataset.source([numpy.zeros(9999)] * 100), workers=1))
    print(held.shm.name, file=open('NAME', 'w'), flush=True)
    print('at work', flush=True)
    while True:
        pass
if __name__ == '__main__':
    _cli.run(main)
"""


def interrupted(arguments, ready, stream='stdout', by=signal.SIGINT):
    """(exit status, stdout, stderr) of python, sent a signal at the first line that holds `ready`,
    without what came before that.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    )
    try:
        while ready not in (line := getattr(process, stream).readline()):
            assert line, process.communicate()
        process.send_signal(by)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize('ready', [' absl.flags', ' flax.struct'])  # of the entry, of it
def test_while_a_command_is_imported(ready):
    arguments = ['-X', 'importtime', '-m', 're2pix_jax', 'predict', '--out=x']
    status, out, err = interrupted(arguments, ready, 'stderr')
    said = re.sub(r'import time:.*\n', '', err)
    assert (status, out, said) == (130, '', 'interrupted\n')


def test_in_the_midst_of_native_code():
    assert interrupted(['-c', AT_WORK], 'at work') == (130, '', 'interrupted\n')


@pytest.mark.parametrize(
    ('by', 'said'), [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'terminated')]
)
def test_what_native_code_was_in_the_midst_of_is_not_taken_down(by, said):
    found = interrupted(['-c', TRACED], 'at work', by=by)
    assert found == (128 + by, 'in order\n', f'{said}\n')


@pytest.mark.parametrize(
    ('by', 'said'), [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'terminated')]
)
def test_what_python_lets_out_of_no_callback_is_raised_again(by, said):
    ended = subprocess.run(
        [sys.executable, '-c', SWALLOWED.replace('NUMBER', str(int(by)))],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=hear_ctrl_c,
        check=False,
    )
    assert ended.stdout in ('', 'at work [1]\n')
    assert (ended.returncode, ended.stderr) == (128 + by, f'{said}\n')


@pytest.mark.parametrize(
    ('by', 'said'), [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'terminated')]
)
def test_memory_shared_with_reading_processes_is_given_back_without_a_word(tmp_path, by, said):
    reading, name = tmp_path / 'reading.py', tmp_path / 'name'
    reading.write_text(READING.replace('NAME', str(name)))
    assert interrupted([reading], 'at work', by=by) == (128 + by, '', f'{said}\n')
    shared = pathlib.Path('/dev/shm', name.read_text().strip())
    deadline = time.monotonic() + 10  # the tracker ends after the process
    while shared.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shared.name.startswith('psm_') and not shared.exists()


def test_a_sigterm_leaves_nothing_half_written(tmp_path):
    arguments = f'evaluate --config=evaluate --config.clips=64 --workdir={tmp_path}/scores'
    status, _, err = interrupted(
        ['-m', 're2pix_jax', *arguments.split()], 'probe: ', 'stderr', signal.SIGTERM
    )
    assert status == 143 and err.endswith('terminated\n') and 'Traceback' not in err
    assert not list(tmp_path.iterdir())
