"""The notebooks, executed as a fresh runtime would: from the wheel, in an environment with nothing
of the repository in it; and what they show.
"""

import base64
import io
import json
import os
import re
import sys
import sysconfig
import time
import venv

import av
import jupytext
import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests import building
from tests.conftest import ROOT
from tests.convert.micro_files import published

FOLDER = ROOT / 'launch' / 'colab'
NAMES = ('see_a_future', 'train_on_your_videos', 'reproduce_a_row', 'encoder_and_features')
TINY = {  # parameters of each, and the videos and pictures that it then shows
    'see_a_future': (dict(horizon=2, futures=2), 1, 6),
    'train_on_your_videos': (dict(seconds=6, more=('--steps=2,2,2',)), 1, 5),
    'reproduce_a_row': (
        dict(
            steps=2,
            clips=8,
            judged=3,
            more=('--config.batch_size=2',),
            evaluation=(
                '--config.horizons=(2,)',
                '--config.evaluation.horizon=2',
                '--config.sheets.horizon=2',
            ),
        ),
        0,
        2,
    ),
    'encoder_and_features': (
        dict(checkpoint='micro.safetensors', more=('--heads=2', '--layers=0,1'), height=32),
        0,
        4,
    ),
}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    return building.build(tmp_path_factory.mktemp('wheel'))[1]


@pytest.fixture(scope='module')
def runtime(wheel, tmp_path_factory):
    """Variables of a kernel whose interpreter has the packages of this one but not re2pix_jax,
    which its notebooks install from the wheel.
    """
    folder = tmp_path_factory.mktemp('runtime')
    venv.create(folder / 'venv', with_pip=False)
    site = next((folder / 'venv').glob('lib/python*/site-packages'))
    # A line of a .pth adds a folder, but not what .pth files in there would add: no editable
    # install of the repository.
    seen = dict.fromkeys([sysconfig.get_path('purelib'), *sys.path])
    shared = [one for one in seen if one.endswith('site-packages')]
    (site / 'shared.pth').write_text('\n'.join(shared) + '\n')
    python = str(folder / 'venv' / 'bin' / 'python')
    kernel = folder / 'kernels' / 'python3'
    kernel.mkdir(parents=True)
    line = [python, '-m', 'ipykernel_launcher', '-f', '{connection_file}']
    kernel.joinpath('kernel.json').write_text(json.dumps({'argv': line, 'display_name': 'fresh'}))
    install = f'--no-deps --no-index --disable-pip-version-check --target={site} {wheel}'
    return {
        'JUPYTER_PATH': str(folder),
        'RE2PIX_INSTALL': install,
        'PYTHONPATH': '',
        'IPYTHONDIR': str(folder / 'ipython'),
        'JUPYTER_RUNTIME_DIR': str(folder / 'sockets'),
    }


def executed(name, runtime, folder, monkeypatch, plant=None):
    """The notebook with its outputs, of tiny parameters; `plant` is a last cell."""
    for variable, value in runtime.items():
        monkeypatch.setenv(variable, value)
    book = nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)
    (place,) = (
        number
        for number, cell in enumerate(book.cells)
        if 'parameters' in cell.metadata.get('tags', ())
    )
    given = '\n'.join(f'{key} = {value!r}' for key, value in TINY[name][0].items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    book.cells.append(nbformat.v4.new_code_cell('print("at", re2pix_jax.__file__)'))
    if plant is not None:
        book.cells.insert(place + 2, nbformat.v4.new_code_cell(plant))
    save_file(published('dinov2_registers'), folder / 'micro.safetensors')
    options = dict(timeout=500, kernel_name='python3', resources={'metadata': {'path': folder}})
    began = time.perf_counter()
    nbclient.NotebookClient(book, **options).execute()
    print(f'{name}: {time.perf_counter() - began:.0f} s')
    return book


def shown(book) -> tuple[list, list]:
    """(first frames of the videos, pictures) among the outputs, as arrays."""
    videos, pictures = [], []
    for cell in book.cells:
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            found = re.findall(r'data:(\S+?/\S+?);base64,([^"]+)', data.get('text/html', ''))
            found += [('image/png', data['image/png'])] if 'image/png' in data else []
            for kind, text in found:
                content = io.BytesIO(base64.b64decode(text))
                if kind == 'video/mp4':
                    with av.open(content) as container:
                        frame = next(container.decode(video=0)).to_ndarray(format='rgb24')
                    videos.append(frame)
                else:
                    pictures.append(np.asarray(Image.open(content).convert('RGB')))
    return videos, pictures


def check(name, runtime, tmp_path, monkeypatch):
    book = executed(name, runtime, tmp_path, monkeypatch)
    kept = os.environ.get('RE2PIX_EXECUTED')
    if kept:
        nbformat.write(book, os.path.join(kept, f'{name}.ipynb'))
    assert not [
        output
        for cell in book.cells
        for output in cell.get('outputs', ())
        if output.output_type == 'error'
    ]
    site = runtime['RE2PIX_INSTALL'].partition('--target=')[2].split()[0]
    assert book.cells[-1].outputs[0].text == f'at {site}/re2pix_jax/__init__.py\n'
    videos, pictures = shown(book)
    assert (len(videos), len(pictures)) == TINY[name][1:]
    for picture in (*videos, *pictures):
        assert min(picture.shape[:2]) >= 32 and picture.std() > 10, 'a picture of nothing'


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_is_what_its_text_makes(name):
    """After a change: jupytext --to ipynb --update launch/colab/*.py"""
    text, book = jupytext.read(FOLDER / f'{name}.py'), nbformat.read(FOLDER / f'{name}.ipynb', 4)
    cells = lambda of: [
        (cell.cell_type, cell.source, cell.metadata.get('tags', [])) for cell in of.cells
    ]
    assert cells(book) == cells(text)
    assert not [cell for cell in book.cells if cell.get('outputs')]
    install = [cell.source for cell in text.cells if cell.source.startswith('# @title Install')]
    assert install == [next(c for c in jupytext.read(FOLDER / 'see_a_future.py').cells[1:]).source]


@pytest.mark.long
def test_a_future_is_seen(runtime, tmp_path, monkeypatch):
    check('see_a_future', runtime, tmp_path, monkeypatch)
    assert sorted(os.listdir(tmp_path / 'future')) == ['future.mp4', 'sheet.png']


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES[1:])
def test_a_long_notebook_runs_through(name, runtime, tmp_path, monkeypatch):
    check(name, runtime, tmp_path, monkeypatch)


def test_a_planted_error_fails(runtime, tmp_path, monkeypatch):
    with pytest.raises(nbclient.exceptions.CellExecutionError, match='got an empty list'):
        plant = "re2pix_jax.load('tiny').predict([])"
        executed('see_a_future', runtime, tmp_path, monkeypatch, plant)
