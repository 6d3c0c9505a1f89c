"""Transformers compute on every mesh what they compute on one device."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.running import environment

ONE = '1 1 1'


def start(names, *shapes, devices=8, **variables):
    return subprocess.Popen(
        [sys.executable, '-m', 'tests.training.on_meshes', names, *shapes],
        cwd=ROOT,
        env=environment(devices, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    printed = out.splitlines()[-1:]  # before it the network of several processes says what it does
    return json.loads(printed[0]) if printed and printed[0].startswith('{') else None


def check_all_like_one(found):
    for name, on in found.items():
        for shape, values in on.items():
            np.testing.assert_allclose(
                values, on[ONE], rtol=1e-5, atol=1e-5, err_msg=f'{name} on {shape}'
            )


@pytest.mark.long
def test_a_transformer_on_eight_devices_computes_what_it_does_on_one():
    check_all_like_one(finish(start('dit', ONE, '2 2 2')))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dit', 'joint', 'forecaster'])
def test_transformers_on_every_mesh(name):
    check_all_like_one(finish(start(name, ONE, '8 1 1', '2 4 1', '2 2 2')))


@pytest.mark.slow
def test_two_processes_compute_what_one_does():
    """Once each reads all of the batch, once a half."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    shapes = '1 1 4', '2 1 2'
    processes = [
        start(
            'dit,forecaster',
            *shapes,
            devices=2,
            JAX_COORDINATOR_ADDRESS=f'127.0.0.1:{port}',
            JAX_NUM_PROCESSES='2',
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    found, nothing = [finish(process) for process in processes]
    assert nothing is None
    one = finish(start('dit,forecaster', ONE, devices=1))
    check_all_like_one({name: found[name] | one[name] for name in found})
