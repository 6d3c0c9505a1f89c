"""Steps of real networks, small, on any mesh.

Usage: python -m tests.training.on_meshes NETWORK,... MESH ...
    NETWORK: key of `NETWORKS`; MESH: 'data fsdp tensor', as in '2 2 2'. Prints, as JSON, {network:
    {mesh: [[loss, norm of the gradient] of each step]}}; of several processes the first does.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from re2pix_jax import tasks
from re2pix_jax.forecaster import Forecaster
from re2pix_jax.forecaster.transformer import MaskedFeatureTransformer
from re2pix_jax.training import mesh as meshes
from re2pix_jax.training import resume, sharding
from re2pix_jax.training import state as states
from re2pix_jax.vae import Autoencoder
from re2pix_jax.vae.autoencoder import AutoencoderKL
from tests.conftest import MICRO, load_config, random_variables, shrink

CLIPS, STEPS = 16, 2
DIT = dict(width=32, depth=2, heads=4, ffn_multiple=8)
NETWORKS = {
    'dit': ('generator', DIT),
    'joint': ('generator', DIT | dict(attention='joint', unroll=False)),
    'unet': (
        'generator',
        dict(backbone='unet', width=16, multiples=(1, 2), blocks=1, head=8, groups=4)
        | dict(spatial_levels=(1,)),
    ),
    'forecaster': ('forecaster', dict(width=24, heads=4, frames=5)),
}


def make_task(name):
    """The task, and random clips as they come encoded."""
    kind, fields = NETWORKS[name]
    config = shrink(load_config(kind, 'tiny'), pathlib.Path('none'), batch_size=CLIPS, ema=0.9)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=0)
    config.model = {**MICRO[kind], **fields}
    if fields.get('backbone'):
        config.model = {
            **{key: MICRO[kind][key] for key in ('latent_channels', 'latent_grid', 'components')},
            **fields,
        }
    frozen = None
    if kind == 'generator':
        config.model.update(context_frames=4, future_frames=4)
        if 'backbone' not in fields:
            config.model.update(backbone='dit', patch_size=2)
        # Clips come encoded: no network but stage 1 is asked.
        net = MaskedFeatureTransformer(**MICRO['forecaster'], frames=5)
        params = random_variables(net, np.zeros((1, 4, 4, 8, 32), np.float32))
        vae = Autoencoder(params={'params': {}}, net=AutoencoderKL(**MICRO['autoencoder']))
        stage = Forecaster(params=params, net=net, encoder=None, principal=None)
        frozen = {'forecaster': stage, 'vae': vae}
    task = tasks.create(config, load=False, frozen=frozen)
    task.init = lambda key, batch=None: random_variables(task.net, *task.inputs())
    rng, frames = np.random.default_rng(0), config.data.frames
    draw = lambda *shape: rng.normal(size=(CLIPS, frames, *shape)).astype(np.float32)
    batch = {'components': draw(4, 8, 32), 'record': np.arange(CLIPS)}
    if kind == 'generator':
        batch['latents'] = draw(8, 16, 4)
    return task, batch


def steps(name, data, fsdp, tensor):
    """[[loss, norm of the gradient], ...] of `STEPS` steps."""
    task, clips = make_task(name)
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = meshes.create(data, fsdp, tensor, devices)
    mine, count = meshes.share(mesh)
    rows = np.arange(CLIPS).reshape(count, -1)[list(mine)].ravel()
    transform, rate = resume.make_optimizer(task, task.config)
    found = []
    with jax.set_mesh(mesh):
        batch = meshes.global_batch({key: array[rows] for key, array in clips.items()}, mesh)
        abstract = resume.abstract_state(task, task.config, transform, batch, mesh)
        layout = jax.tree.map(lambda x: x.sharding, abstract)
        create = lambda batch: states.create(task, transform, 0, batch)
        state = jax.jit(create, out_shardings=layout)(batch)
        frozen = jax.device_put(task.frozen, sharding.of_parts(task.frozen, mesh))
        whole = meshes.replicated(mesh)
        step = jax.jit(
            states.make_step(task, transform, rate, 0, 0.9), out_shardings=(layout, whole, whole)
        )
        for number in range(STEPS):
            state, metrics, finite = step(state, frozen, batch, np.int32(number))
            assert finite
            found.append([float(metrics['loss']), float(metrics['gradient_norm'])])
    if fsdp * tensor > 1:
        cut = [x for x in jax.tree.leaves(state.params) if not x.sharding.is_fully_replicated]
        assert len(cut) > 3, 'hardly anything is cut'
    return found


def main(names, *shapes):
    sharding.SMALLEST = 0
    meshes.initialize_processes()
    sizes = {shape: [int(size) for size in shape.split()] for shape in shapes}
    found = {
        name: {shape: steps(name, *size) for shape, size in sizes.items()}
        for name in names.split(',')
    }
    if not jax.process_index():
        print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
