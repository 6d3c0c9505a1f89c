"""Where people watch a run beside its files: TensorBoard, Weights & Biases, MLflow.

A board takes the numbers, pictures and films of a step, and goes on where it was when a run does.
"""

import contextlib
import importlib
import io
import json
import os
import secrets
import tempfile
import time

import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from re2pix_jax import files
from re2pix_jax.errors import UserError

PROJECT = 're2pix_jax'
RUNS = 'boards.json'
"""In the workdir: what a board calls this run, so that a run that goes on is no second one."""


class TensorBoard:
    """Event files in workdir/tensorboard."""

    def __init__(self, workdir: str, step: int, config: dict):
        del config  # it is in the workdir
        folder = os.path.join(workdir, 'tensorboard')
        os.makedirs(folder, exist_ok=True)
        # Not SummaryWriter: its thread would meet a full disk where nobody can report it.
        self._events = EventsWriter(os.path.join(folder, 'events'))
        self._events.write_event(
            Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )

    def scalars(self, step: int, values: dict) -> None:
        for name, value in values.items():
            self._write(step, summary.scalar(name, value))

    def picture(self, step: int, name: str, frame: np.ndarray) -> None:
        self._image(step, name, frame.shape[:2], _encoded(frame[None], 1.0, 'png'))

    def film(self, step: int, name: str, frames: np.ndarray, fps: float) -> None:
        self._image(step, name, frames.shape[1:3], _encoded(frames, fps, 'gif'))

    def flush(self) -> None:
        self._events.flush()

    def close(self, failed: bool) -> None:
        del failed
        self._events.close()

    def _image(self, step, name, size, data):
        image = Summary.Image(
            height=size[0], width=size[1], colorspace=3, encoded_image_string=data
        )
        self._write(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def _write(self, step, found):
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=found))


class WeightsAndBiases:
    """A run of wandb, in the project of WANDB_PROJECT; WANDB_MODE=offline leaves it in the workdir,
    to be sent later.
    """

    def __init__(self, workdir: str, step: int, config: dict):
        del step  # it is a column
        self._wandb = _module('wandb')
        try:
            self._run = self._wandb.init(
                project=os.environ.get('WANDB_PROJECT', PROJECT),
                name=os.path.basename(os.path.abspath(workdir)),
                id=_run_of(workdir, 'wandb', lambda: secrets.token_hex(4)),
                dir=workdir,
                resume='allow',
                config=config,
            )
        except Exception as error:
            raise _refused(
                'wandb', error, 'run `wandb login`, or set WANDB_MODE=offline'
            ) from error
        self._run.define_metric('*', step_metric='step')

    def scalars(self, step: int, values: dict) -> None:
        self._run.log({'step': step, **values})

    def picture(self, step: int, name: str, frame: np.ndarray) -> None:
        self._run.log({'step': step, name: self._wandb.Image(frame)})

    def film(self, step: int, name: str, frames: np.ndarray, fps: float) -> None:
        data = io.BytesIO(_encoded(frames, fps, 'gif'))
        self._run.log({'step': step, name: self._wandb.Video(data, format='gif')})

    def flush(self) -> None:
        """It has a process of its own for that."""

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI; pictures and films are its artifacts."""

    def __init__(self, workdir: str, step: int, config: dict):
        del step
        mlflow = _module('mlflow')
        try:
            self._client = mlflow.MlflowClient()
            self._id = _run_of(workdir, 'mlflow', lambda: self._new(workdir, config))
            self._client.set_terminated(self._id, 'RUNNING')
        except Exception as error:
            raise _refused('mlflow', error, 'set MLFLOW_TRACKING_URI') from error

    def _new(self, workdir, config):
        name = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        title = os.path.basename(os.path.abspath(workdir))
        run = self._client.create_run(number, run_name=title).info.run_id
        self._client.log_dict(run, config, 'config.json')
        return run

    def scalars(self, step: int, values: dict) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def picture(self, step: int, name: str, frame: np.ndarray) -> None:
        self._artifact(step, name, _encoded(frame[None], 1.0, 'png'), 'png')

    def film(self, step: int, name: str, frames: np.ndarray, fps: float) -> None:
        self._artifact(step, name, _encoded(frames, fps, 'gif'), 'gif')

    def flush(self) -> None:
        """What was given is there."""

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, 'FAILED' if failed else 'FINISHED')

    def _artifact(self, step, name, data, ending):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, f'{name.replace("/", "_")}_{step:08}.{ending}')
            with open(file, 'wb') as out:
                out.write(data)
            self._client.log_artifact(self._id, file, 'pictures')


BOARDS = {'tensorboard': TensorBoard, 'wandb': WeightsAndBiases, 'mlflow': MLflow}
"""What config.log.writers names."""


def check(names) -> None:
    """Refuses boards that there are not, before anything is opened.

    Raises:
        UserError: a name is none of `BOARDS`, or its package is not installed.
    """
    if strange := [name for name in names if name not in BOARDS]:
        raise UserError(
            f'config.log.writers: {strange[0]!r}: expected some of {", ".join(map(repr, BOARDS))}'
        )
    for name in names:
        if name != 'tensorboard':
            _module(name)


def _module(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f'config.log.writers: {name!r} needs the package {name}: pip install {name}, or leave '
            'it out'
        ) from error


def _refused(name, error, advice):
    text = str(error).strip().split('\n')[0] or type(error).__name__
    return UserError(f'config.log.writers: {name} would not begin a run ({text}): {advice}')


def _run_of(workdir, board, make) -> str:
    """What a board calls the run of a workdir; a new one is noted."""
    path, known = os.path.join(workdir, RUNS), {}
    with contextlib.suppress(OSError, ValueError), open(path, encoding='utf-8') as file:
        known = json.load(file)
    if board not in known:
        known[board] = make()
        files.write_text(path, json.dumps(known) + '\n')
    return known[board]


def _encoded(frames: np.ndarray, fps: float, kind: str) -> bytes:
    first, *others = map(Image.fromarray, frames)
    data = io.BytesIO()
    more = {'save_all': True, 'append_images': others, 'duration': 1000 / fps, 'loop': 0}
    first.save(data, kind, **(more if kind == 'gif' else {}))
    return data.getvalue()
