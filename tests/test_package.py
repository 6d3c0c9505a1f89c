"""What is installed: the package with its bundles and configs, no tests; and rooms, imported when
they are asked for.
"""

import os
import subprocess
import sys

import pytest

import re2pix_jax
from tests.conftest import ROOT

CONFIGS = {file.name for file in (ROOT / 'configs').glob('*.py')}


def run(folder, path, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The folder that an installation would fill."""
    pytest.importorskip('setuptools')
    folder = tmp_path_factory.mktemp('installed')
    status, _, err = run(ROOT, '', 'setup.py', '-q', 'build_py', f'--build-lib={folder}')
    assert status == 0, err
    return folder


def test_bundles_and_configs_are_installed_and_no_tests(installed):
    files = {str(file.relative_to(installed)) for file in installed.rglob('*') if file.is_file()}
    package = ROOT / 're2pix_jax'
    there = {
        str(file.relative_to(ROOT))
        for file in package.rglob('*')
        if file.is_file() and '__pycache__' not in file.parts
    }
    assert there <= files
    assert files - there == {f're2pix_jax/configs/{name}' for name in CONFIGS}


@pytest.mark.parametrize('name', ['forecaster_highres', 'study_train:full-tiny', 'study_evaluate'])
def test_an_installed_config_is_found_by_name_with_those_beside_it(name, installed, tmp_path):
    command = 'study' if name == 'study_evaluate' else 'train'
    status, _, err = run(
        tmp_path, installed, '-m', 're2pix_jax', command, f'--config={name}', '--config.nosuch=1'
    )
    assert status == 2 and err.startswith('error: the config has no field nosuch; '), err
    status, out, err = run(
        tmp_path, installed, '-c', 'import re2pix_jax; print(re2pix_jax.__path__)'
    )
    assert str(installed) in out, err


def test_rooms_are_imported_when_they_are_asked_for():
    program = """
import sys, re2pix_jax
assert not {'jax', 'numpy', 're2pix_jax.data'} & set(sys.modules)
assert {'data', 'bundles', 'model', 'load'} <= set(dir(re2pix_jax))
assert re2pix_jax.data.video.read and re2pix_jax.world.render and re2pix_jax.model.Re2Pix
"""
    assert run(ROOT, ROOT, '-c', program) == (0, '', '')
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        _ = re2pix_jax.nosuch
    assert not hasattr(re2pix_jax, '__wrapped__')
