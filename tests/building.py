"""The package as installers make it."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

from tests.conftest import ROOT

BUILD = """
import sys
from setuptools import build_meta
getattr(build_meta, sys.argv[1])(sys.argv[2])
"""


def build(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """(sdist, wheel): the first of these sources, the second of the first, both in `folder`."""
    sources = folder / 'sources'
    sources.mkdir()
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, sources)
        elif file.name in ('re2pix_jax', 'configs', 'launch', 'tests'):
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(file, sources / file.name, ignore=ignored)
    _hook('build_sdist', sources, folder)
    (sdist,) = folder.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    _hook('build_wheel', unpacked, folder)
    (wheel,) = folder.glob('*.whl')
    for done in ('sources', 'unpacked'):
        shutil.rmtree(folder / done)
    return sdist, wheel


def _hook(name, sources, folder):
    line = [sys.executable, '-c', BUILD, name, str(folder)]
    environment = {**os.environ, 'PYTHONPATH': ''}
    done = subprocess.run(line, cwd=sources, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
