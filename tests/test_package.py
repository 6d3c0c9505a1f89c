"""What is installed: the package with its bundles and configs, no tests; and rooms, imported when
they are asked for.
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from packaging import specifiers

import re2pix_jax
from tests import building
from tests.conftest import ROOT

EXTRAS = {  # and a package that comes with each
    'cuda': 'jax-cuda13-plugin',
    'tpu': 'libtpu',
    'colab': 'jax-cuda12-plugin',
    'gcs': 'gcsfs',
    's3': 's3fs',
    'hub': 'huggingface-hub',
    'demo': 'gradio',
    'test': 'pytest',
    'parity': 'torch',
}
CONFIGS = {file.name for file in (ROOT / 'configs').glob('*.py')}


def run(folder, path, *arguments, timeout=300):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """(sdist, wheel)"""
    return building.build(tmp_path_factory.mktemp('built'))


@pytest.fixture(scope='module')
def wheel(built):
    return built[1]


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """The folder that an installation fills."""
    folder = tmp_path_factory.mktemp('installed')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_bundles_and_configs_are_installed_and_no_tests(installed, wheel):
    files = {str(file.relative_to(installed)) for file in installed.rglob('*') if file.is_file()}
    about = {name for name in files if name.split('/')[0].endswith('.dist-info')}
    package = ROOT / 're2pix_jax'
    there = {
        str(file.relative_to(ROOT))
        for file in package.rglob('*')
        if file.is_file() and '__pycache__' not in file.parts
    }
    assert there <= files
    assert files - there - about == {f're2pix_jax/configs/{name}' for name in CONFIGS}
    assert any(name.endswith('LICENSE') for name in about)
    assert wheel.stat().st_size < 30e6


def test_the_sdist_holds_what_a_wheel_is_made_of(built, capsys):
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        names = {name.split('/')[1] for name in archive.getnames() if '/' in name}
    assert {'re2pix_jax', 'configs', 'setup.py', 'requirements.txt', 'LICENSE'} <= names
    assert not {'tests', 'launch', 'runs'} & names
    with capsys.disabled():
        print(''.join(f' {one.name} {one.stat().st_size / 1e6:.1f} MB' for one in built), end=' ')


def test_the_container_file_copies_what_a_wheel_is_made_of(tmp_path):
    text = (ROOT / 'launch' / 'Containerfile').read_text()
    copied = re.findall(r'^COPY (.+) (/source\S*)$', text, re.MULTILINE)
    for names, place in copied:
        for name in names.split():
            target = tmp_path / place.lstrip('/')
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target)
            else:
                target.mkdir(exist_ok=True, parents=True)
                shutil.copy(ROOT / name, target)
    line = 'setup.py', '-q', 'build_py', f'--build-lib={tmp_path / "lib"}'
    status, _, err = run(tmp_path / 'source', '', *line)
    assert status == 0, err
    assert (tmp_path / 'lib' / 're2pix_jax' / 'configs' / 'generator.py').is_file()
    extra = re.search(r'^ARG EXTRA=(\w+)$', text, re.MULTILINE)[1]
    assert extra in EXTRAS


def test_the_wheel_says_what_it_needs_and_offers(installed):
    (about,) = installed.glob('*.dist-info')
    found = email.message_from_string((about / 'METADATA').read_text())
    extras = set(found.get_all('Provides-Extra'))
    assert extras == set(EXTRAS)
    assert found['Version'] == re2pix_jax.__version__
    assert 're2pix = re2pix_jax.commands:cli.main' in (about / 'entry_points.txt').read_text()
    needed = found.get_all('Requires-Dist')
    assert any(line.startswith('jax>=') and 'extra' not in line for line in needed)
    named = set(re.findall(r'"\.\[(\w+)\]"', (ROOT / 'README.md').read_text()))
    assert named == extras - {'test', 'parity'}
    bounds = specifiers.SpecifierSet(found['Requires-Python'])
    known = [line.split(' :: ')[-1] for line in found.get_all('Classifier') if ':: 3.' in line]
    assert known == [f'3.{minor}' for minor in range(30) if f'3.{minor}' in bounds]


@pytest.mark.slow
@pytest.mark.parametrize('extra', EXTRAS)
def test_every_extra_resolves(extra, wheel, tmp_path):
    asked = f'{wheel}[{extra}]'
    where = ('--dry-run', '--ignore-installed', '--quiet', '--report', tmp_path / 'report.json')
    line = ('-m', 'pip', 'install', *map(str, where), asked)
    status, _, err = run(tmp_path, '', *line, timeout=1800)  # it fetches what CUDA takes
    assert status == 0, err
    installs = json.loads((tmp_path / 'report.json').read_text())['install']
    names = {one['metadata']['name'].lower().replace('_', '-') for one in installs}
    assert {'jax', 'jaxlib', 're2pix-jax', EXTRAS[extra]} <= names


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
