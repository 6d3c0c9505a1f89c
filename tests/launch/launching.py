"""Runs a launcher as a user would."""

import os
import pathlib
import subprocess
import sys

from tests.conftest import ROOT
from tests.running import environment

NAMES = {
    'TPU': 'pod',
    'ZONE': 'us-west4-a',
    'PROJECT': 'mine',
    'TYPE': 'v5litepod-16',
    'OUT': 'gs://bucket/run',
    'POLL': '0.1',
}


def launch(script, *arguments, path=None, **variables):
    """(exit status, stdout, stderr) of a launcher."""
    environ = {
        name: value
        for name, value in environment().items()
        if name not in ('RECIPE', 'OUT', 'DATA', 'PARTS', 'TOPOLOGY', 'TRAINING', *NAMES)
        and not name.startswith('JAX_COMPILATION')
    }
    found = os.pathsep.join(map(str, (*(path or ()), pathlib.Path(sys.executable).parent)))
    environ['PATH'] = f'{found}{os.pathsep}{environ["PATH"]}'
    done = subprocess.run(
        ['bash', f'launch/{script}', *arguments],
        cwd=ROOT,
        env=environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr
