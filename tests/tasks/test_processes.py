"""Evaluation over two processes: the clips of a ragged last batch count as on one."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.conftest import ROOT

RUNNER = """
import contextlib, json, pathlib, sys
import jax
from re2pix_jax import tasks
from re2pix_jax.data import loader
from re2pix_jax.training import mesh
from tests.conftest import load_config, shrink
bundles, found = pathlib.Path(sys.argv[1]), {}
mesh.initialize_processes()
devices = mesh.create()
with jax.set_mesh(devices):
    for name, batch_size in (('forecaster', 4), ('head', 4), ('forecaster', 8)):
        config = shrink(load_config(name), bundles, batch_size=batch_size)
        task, sizes = tasks.create(config), []
        def watched(batches):
            for batch in batches:
                sizes.append(len(batch['record']))
                yield batch
        frozen = jax.device_put(task.frozen, mesh.replicated(devices))
        params = jax.device_put(task.load_params(bundles / name), mesh.replicated(devices))
        with contextlib.closing(loader.create(config.eval_data, batch_size, 0, training=False)) as data:
            values = task.evaluate(params, frozen, watched(mesh.evaluation_batches(data, batch_size, devices)), jax.random.key(0))
        found[f'{name} by {batch_size}'] = {'sizes': sizes, **values}
if not jax.process_index():
    print(json.dumps(found))
"""


def start(bundles, devices=1, **variables):
    environment = {
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, '-c', RUNNER, str(bundles)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return out


def test_a_ragged_last_batch_counts_on_two_processes_too(micro_bundles):
    """Five clips: in fours a share of one and one of none, in eights shares of four and of one."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    both = [
        start(
            micro_bundles,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES='2',
            JAX_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]
    two = json.loads(
        [finished(process) for process in both][0].splitlines()[-1]
    )  # gloo has its say before
    one = json.loads(finished(start(micro_bundles)).splitlines()[-1])
    assert one.keys() == two.keys()
    for name, values in one.items():
        assert values['sizes'] == ([4, 1] if name.endswith('4') else [5])
        assert two[name].keys() == values.keys() and len(values) > 3
        for score, value in values.items():
            assert two[name][score] == pytest.approx(value, rel=1e-4), (name, score)
