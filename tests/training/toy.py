"""A task and data small enough to test the loop with, and a command to run it in a process of its
own.

Usage: python -m tests.training.toy WORKDIR [field=value ...]; fields of the config, or poison=STEP
    (that batch holds NaN), slow=SECONDS (sleeps before each batch), readers=COUNT (processes that
    read), cut=1 (small arrays are cut too), patience=SECONDS (that a bucket may be away).
"""

import ast
import contextlib
import functools
import os
import signal
import threading
import time

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from re2pix_jax import remote
from re2pix_jax.commands import _supervise, cli
from re2pix_jax.data import ahead
from re2pix_jax.tasks.task import clip_keys
from re2pix_jax.training import defaults, loop, mesh, sharding

if 'FAKETIME_TIMESTAMP_FILE' in os.environ:  # it knows no clock_nanosleep until a time
    time.sleep = lambda seconds: threading.Event().wait(seconds)

SHARDING = (('kernel', P('fsdp', 'tensor')),)
MUON = ('Dense_0/kernel',)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16)(x))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(8)(x)


class Task:
    """Regression on noise-augmented inputs: the noise of each sample comes from the step's key."""

    def __init__(self, bundles=None):
        self.net = Net()
        self.frozen = {
            'teacher': {'kernel': np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)}
        }
        self.bundles = bundles or {'teacher': {'path': 'bundles/teacher', 'identity': 'aa'}}

    def init(self, key, batch):
        return self.net.init(key, batch['x'])

    def loss(self, variables, frozen, batch, key, teacher=None):
        keys = clip_keys(key, batch)
        x = batch['x'] + 0.1 * jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)
        prediction, updates = self.net.apply(variables, x, train=True, mutable=['batch_stats'])
        target = jnp.tanh(batch['x'] @ frozen['teacher']['kernel'])
        average = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(teacher['params']))
        return jnp.mean((prediction - target) ** 2), ({'teacher_norm': average}, dict(updates))

    def evaluate(self, variables):
        """The mean squared error over 21 samples that no batch holds."""
        x = jnp.asarray(np.random.default_rng(-1 % 2**32).normal(size=(21, 8)), jnp.float32)
        error = self.net.apply(variables, x) - jnp.tanh(x @ self.frozen['teacher']['kernel'])
        return {'error': float(jnp.mean(error**2))}


class Data:
    """Endless batches, each a function of its number alone."""

    clips = 40

    def __init__(self, batch_size, poison=None, slow=0.0, readers=0, share=((0,), 1)):
        blocks, count = share
        rows = np.arange(batch_size).reshape(count, -1)[list(blocks)].ravel()
        self.read = functools.partial(read, batch_size=batch_size, rows=rows, poison=poison)
        self.slow, self.readers, self.position, self.ahead = slow, readers, 0, None
        self.on_batch = lambda position: None

    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(self.slow)
        self.position += 1
        self.on_batch(self.position)
        if not self.readers:
            return self.read(self.position - 1)
        if not self.ahead:
            positions = grain.MapDataset.range(self.position - 1, 1000)
            self.ahead = ahead.Ahead(positions.map(self.read), self.readers)
        return next(self.ahead)

    def get_state(self):
        return {'position': self.position}

    def set_state(self, state):
        self.close()
        self.position, self.ahead = state['position'], None

    def record_name(self, record):
        return f'toy/{record}'

    def close(self):
        if self.ahead:
            self.ahead.close()
        self.position = None


def read(position, batch_size, rows, poison):
    records = position * batch_size + rows
    x = np.stack([np.random.default_rng(record).normal(size=8) for record in records]).astype(
        np.float32
    )
    if position + 1 == poison:
        x[1] = np.nan
    return {'x': x, 'record': records.astype(np.int64)}


def make_config(**fields):
    """A config of 20 steps that logs every one; fields as 'optimizer.clip' or `steps`."""
    config = defaults.defaults()
    config.update(
        {
            'task': 'toy',
            'steps': 20,
            'log_every': 1,
            'checkpoint_every': 5,
            'eval_every': 10,
            'ema': 0.9,
        }
    )
    config.frozen = {'teacher': 'bundles/teacher'}
    config.optimizer.update({'learning_rate': 1e-2, 'warmup_steps': 3, 'weight_decay': 1e-3})
    config.update_from_flattened_dict(fields)
    return config.lock()


def train(workdir, config, poison=None, slow=0.0, readers=0, stop=None, evaluate=None):
    """Trains as a command would; with `stop` the process gets a SIGTERM while that step's batch is
    read. `evaluate` replaces the task's own.
    """
    share = mesh.share(mesh.create(**mesh.sizes(config)))
    data = Data(config.batch_size, poison, slow, readers, share)
    if stop:
        data.on_batch = lambda position: position == stop and os.kill(os.getpid(), signal.SIGTERM)
    task = Task()
    with contextlib.closing(data):
        return loop.train(task, config, str(workdir), data, evaluate or task.evaluate)


ARGUMENTS = None  # any number
REMOTE = ('arguments',)


def main(argv):
    fields = dict(item.split('=', 1) for item in argv[2:])
    fields = {
        name: ast.literal_eval(value) if value[0] in "0123456789-'" else value
        for name, value in fields.items()
    }
    options = {name: fields.pop(name) for name in ('poison', 'slow', 'readers') if name in fields}
    if fields.pop('cut', 0):
        sharding.SMALLEST = 0
    remote.PATIENCE = fields.pop('patience', remote.PATIENCE)
    mesh.initialize_processes()
    state = train(argv[1], make_config(**fields), **options)
    return 0 if int(state.step) >= fields.get('steps', 20) else 143


if __name__ == '__main__':
    _supervise.enter()
    cli.run(main)
