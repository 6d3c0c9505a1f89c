"""Boards: what TensorBoard's files hold; what Weights & Biases and MLflow are told,
by stand-ins and, where they are installed, by themselves.
"""

import io
import json
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from re2pix_jax.errors import UserError
from re2pix_jax.training import boards, defaults, writer

SHEET = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
FILM = np.stack([SHEET, 255 - SHEET, SHEET])


def shown(workdir, names, step=0):
    with writer.Writer(workdir, step, names, {'seed': 7}) as log:
        log.scalars(step + 1, {'loss': 2.5})
        log.timing(step + 1, {'steps_per_second': 4})
        log.picture(step + 1, 'clips/0', SHEET, FILM, 4.0)


def events(workdir):
    for file in sorted((workdir / 'tensorboard').iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from('<Q', data, place)
            yield Event.FromString(data[place + 12 : place + 12 + size])
            place += size + 16


def test_tensorboard_has_numbers_sheet_and_film(tmp_path):
    shown(tmp_path, ('tensorboard',))
    found = {v.tag: (e.step, v) for e in events(tmp_path) for v in e.summary.value}
    assert found['loss'][0] == 1 and found['loss'][1].simple_value == 2.5
    assert found['timing/steps_per_second'][1].simple_value == 4
    sheet = Image.open(io.BytesIO(found['clips/0/sheet'][1].image.encoded_image_string))
    assert (np.asarray(sheet) == SHEET).all()
    film = Image.open(io.BytesIO(found['clips/0/film'][1].image.encoded_image_string))
    assert film.format == 'GIF' and film.n_frames == 3 and film.info['duration'] == 250


class StandIn(types.ModuleType):
    """Of both packages, as far as they are called; `calls` is what they were told."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []
        self.Image, self.Video = (lambda x: 'picture'), (lambda x, format: f'film {format}')
        self.MlflowClient = lambda: self

    def init(self, **settings):
        self.calls.append(('init', settings))
        return self

    def log(self, row):
        self.calls.append(('log', row))

    def finish(self, exit_code):
        self.calls.append(('finish', exit_code))

    def define_metric(self, *_, **__):
        pass

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return 'e1'

    def create_run(self, experiment, run_name):
        self.calls.append(('create_run', run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id='r1'))

    def log_dict(self, run, config, file):
        self.calls.append(('log_dict', config))

    def log_metric(self, run, name, value, step):
        self.calls.append(('metric', name, value, step))

    def log_artifact(self, run, file, folder):
        self.calls.append(('artifact', file.rpartition('/')[2], folder))

    def set_terminated(self, run, status):
        self.calls.append(('status', status))


def test_a_run_that_goes_on_is_no_second_one(tmp_path, monkeypatch):
    wandb, mlflow = StandIn('wandb'), StandIn('mlflow')
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
    for step in (0, 1):
        shown(tmp_path, ('wandb', 'mlflow'), step)
    first, second = (settings for name, settings in wandb.calls if name == 'init')
    assert (
        first['id'] == second['id'] == json.loads((tmp_path / 'boards.json').read_text())['wandb']
    )
    assert first['config'] == {'seed': 7} and first['resume'] == 'allow'
    rows = [row for name, row in wandb.calls if name == 'log']
    assert rows[:4] == [
        {'step': 1, 'loss': 2.5},
        {'step': 1, 'timing/steps_per_second': 4.0},
        {'step': 1, 'clips/0/sheet': 'picture'},
        {'step': 1, 'clips/0/film': 'film gif'},
    ]
    assert wandb.calls[-1] == ('finish', 0) and mlflow.calls[-1] == ('status', 'FINISHED')
    assert [call for call in mlflow.calls if call[0] == 'create_run'] == [
        ('create_run', tmp_path.name)
    ]
    assert ('metric', 'loss', 2.5, 2) in mlflow.calls
    assert ('artifact', 'clips_0_film_00000001.gif', 'pictures') in mlflow.calls
    with pytest.raises(RuntimeError), writer.Writer(tmp_path, 2, ('wandb', 'mlflow')):
        raise RuntimeError
    assert wandb.calls[-1] == ('finish', 1) and mlflow.calls[-1] == ('status', 'FAILED')


def test_a_board_that_cannot_be_is_said_at_once(tmp_path, monkeypatch):
    config = defaults.defaults()
    for names, said in (
        (('tensorbord',), r"config.log.writers: 'tensorbord': expected some of 'tensorboard', "),
        (('wandb',), r"config.log.writers: 'wandb' needs the package wandb: pip install wandb"),
    ):
        monkeypatch.setitem(sys.modules, 'wandb', None)
        config.log.writers = names
        with pytest.raises(UserError, match=said):
            defaults.check(config)
    wandb = StandIn('wandb')

    def init(**_):
        raise ValueError('no API key\nmore')

    wandb.init = init
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    with pytest.raises(UserError, match=r'wandb would not begin a run \(no API key\): run `wandb'):
        boards.BOARDS['wandb'](str(tmp_path), 0, {})


def test_mlflow_itself(tmp_path, monkeypatch):
    mlflow = pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', (tmp_path / 'mlruns').as_uri())
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    for step in (0, 1):
        shown(tmp_path, ('mlflow',), step)
    client = mlflow.MlflowClient()
    run = json.loads((tmp_path / 'boards.json').read_text())['mlflow']
    history = client.get_metric_history(run, 'loss')
    assert [(point.step, point.value) for point in history] == [(1, 2.5), (2, 2.5)]
    assert client.get_run(run).info.status == 'FINISHED'
    assert len(client.list_artifacts(run, 'pictures')) == 4


def test_wandb_itself(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    shown(tmp_path, ('wandb',))
    (folder,) = (tmp_path / 'wandb').glob('offline-run-*')
    run = json.loads((tmp_path / 'boards.json').read_text())['wandb']
    assert (folder / f'run-{run}.wandb').stat().st_size > 0
    assert len(list(folder.rglob('*.gif'))) == len(list(folder.rglob('*.png'))) == 1
