"""Training goes on from the authors' checkpoint: the loss of the first step, its gradients by two
other roads, evaluation.

Gradients are checked against automatic differentiation of torch's own modules in float64 (where
torch is installed), and against central differences of a forward pass in numpy float64. Both read
the checkpoint by its own names. As in tests/convert/test_published.py the files lie beside the
repository: without them this is skipped.
"""

import pathlib
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.special import erf

from re2pix_jax import bundles, tasks
from re2pix_jax.convert import dino_foresight, torch_file
from re2pix_jax.training import loop, writer
from tests.conftest import load_config

GOLDEN = pathlib.Path(__file__).parents[2].parent / 'shared' / 'golden' / 'dino_foresight_small'
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the authors' files are not at {GOLDEN}"
)
HEADS, DEPTH = 4, 3
LIMIT = 1e-4


@pytest.fixture(scope='module')
def expected():
    return dict(np.load(GOLDEN / 'expected.npz'))


@pytest.fixture(scope='module')
def clips(expected):
    return {
        'frames': np.ascontiguousarray(expected['images_bt3hw'].transpose(0, 1, 3, 4, 2)),
        'record': np.arange(2),
    }


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp('converted') / 'forecaster'
    bundles.save(path, dino_foresight.convert(GOLDEN / 'dinof.ckpt', encoder_heads=3))
    return path


@pytest.fixture(scope='module')
def config(bundle):
    """Continues the bundle's training with dropout off: sizes from the bundle, the rest as in
    configs/forecaster.py.
    """
    net = bundles.load(bundle).net
    config = load_config('forecaster')
    config.model.update(
        {
            name: getattr(net, name)
            for name in ('components', 'width', 'depth', 'heads', 'frames', 'grid')
        }
    )
    config.update(init=str(bundle), steps=2, batch_size=2, log_every=1, checkpoint_every=0)
    config.frozen.update(encoder=str(bundle / 'encoder'), principal=str(bundle / 'principal'))
    return config


class Repeated:
    """The same batch again and again, as a loader would bring it."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch

    def get_state(self):
        return {}

    def record_name(self, record):
        return f'golden/{record}'

    def close(self):
        pass


@pytest.mark.long
def test_a_converted_forecaster_goes_on_training(config, bundle, clips, expected, tmp_path):
    loop.train(tasks.create(config), config, str(tmp_path), Repeated(clips))
    rows = [row for row in writer.read_log(str(tmp_path)) if 'loss' in row]
    np.testing.assert_allclose(rows[0]['loss'], expected['masked_smooth_l1'], rtol=1e-5)
    assert rows[1]['loss'] < rows[0]['loss']


@pytest.fixture(scope='module')
def step(config, clips):
    """(loss, gradients by the checkpoint's names and layouts) of one training step, as the loop
    would compute them.
    """
    task = tasks.create(config)
    params = task.load(config.init)
    loss, gradients = jax.jit(
        jax.value_and_grad(
            lambda params: task.loss(params, task.frozen, clips, jax.random.key(0))[0]
        )
    )(params)
    by_name = {}
    gradients = {
        path: np.asarray(x, np.float64) for path, x in flatten_dict(gradients, sep='/').items()
    }
    shapes = {path: gradient.shape for path, gradient in gradients.items()}
    for name, place, _ in dino_foresight.TABLE.sources(shapes):
        path, _, row = place.partition('[')
        gradient = gradients[path][int(row[:-1])] if row else gradients[path]
        by_name[name] = gradient.T if path.endswith('kernel') else gradient
    return float(loss), by_name


@pytest.fixture(scope='module')
def tensors():
    """The checkpoint's own tensors of the forecaster, float64."""
    found = torch_file.tensors(GOLDEN / 'dinof.ckpt')
    return {
        name: np.asarray(value, np.float64)
        for name, value in found.items()
        if re.match(r'(embed|maskvit|replace_vector)', name)
    }


def test_gradients_are_those_of_torch_in_float64(step, tensors, expected):
    torch = pytest.importorskip('torch')
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in tensors.items()}

    def linear(x, name):
        return torch.nn.functional.linear(x, leaves[f'{name}.weight'], leaves[f'{name}.bias'])

    def normed(x, name):
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], leaves[f'{name}.norm.weight'], leaves[f'{name}.norm.bias']
        )

    def attention(x, name):
        mixed, _ = torch.nn.functional.multi_head_attention_forward(
            x.transpose(0, 1),
            *(x.transpose(0, 1),) * 2,
            x.shape[-1],
            HEADS,
            leaves[f'{name}.fn.mha.in_proj_weight'],
            leaves[f'{name}.fn.mha.in_proj_bias'],
            None,
            None,
            False,
            0.0,
            leaves[f'{name}.fn.mha.out_proj.weight'],
            leaves[f'{name}.fn.mha.out_proj.bias'],
        )
        return mixed.transpose(0, 1)

    components = torch.tensor(expected['pca_features_bthwc'], dtype=torch.float64)
    batch, frames, rows, columns, _ = components.shape
    x = linear(components, 'embed')
    x = torch.cat([x[:, :-1], leaves['replace_vector'].expand(batch, 1, rows, columns, -1)], dim=1)
    tables = [leaves[f'maskvit.pos_embd.emb.d_{axis}'] for axis in range(3)]
    codes = [tables[0][:, None, None], tables[1][None, :, None], tables[2][None, None]]
    x = x + torch.cat([code.expand(frames, rows, columns, -1) for code in codes], dim=-1)
    x = x.reshape(batch, frames, rows * columns, -1)
    for index in range(DEPTH):
        name = f'maskvit.transformer.layers.{index}'
        by_place = normed(x, f'{name}.0').transpose(1, 2).flatten(0, 1)
        x = x + attention(by_place, f'{name}.0').unflatten(0, (batch, -1)).transpose(1, 2)
        x = x + attention(normed(x, f'{name}.1').flatten(0, 1), f'{name}.1').unflatten(
            0, (batch, -1)
        )
        x = x + linear(
            torch.nn.functional.gelu(linear(normed(x, f'{name}.2'), f'{name}.2.fn.net.0')),
            f'{name}.2.fn.net.3',
        )
    prediction = linear(x[:, -1], 'maskvit.fc_out').reshape(components[:, -1].shape)
    loss = torch.nn.functional.smooth_l1_loss(prediction, components[:, -1], beta=0.1)
    loss.backward()
    ours, gradients = step
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    assert gradients.keys() == leaves.keys()
    errors = {}
    for name, leaf in leaves.items():
        theirs = leaf.grad.numpy()
        errors[name] = (
            np.abs(gradients[name].reshape(theirs.shape) - theirs).max() / np.abs(theirs).max()
        )
    print(
        f'{len(errors)} parameters, largest relative error {max(errors.values()):.1e} of '
        f'{max(errors, key=errors.get)}'
    )
    assert max(errors.values()) < LIMIT, errors


def numpy_loss(p, components):
    """The training loss in numpy, by the checkpoint's names: `p` float64 tensors, components [B, T,
    h, w, P].
    """

    def linear(x, name, weight='weight', bias='bias'):
        return x @ p[f'{name}{weight}'].T + p[f'{name}{bias}']

    def normed(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred
            / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            * p[f'{name}.norm.weight']
            + p[f'{name}.norm.bias']
        )

    def attention(x, name):  # over the axis before the last
        qkv = linear(x, f'{name}.fn.mha.', 'in_proj_weight', 'in_proj_bias')
        query, key, value = (
            part.reshape(*x.shape[:-1], HEADS, -1).swapaxes(-3, -2)
            for part in np.split(qkv, 3, axis=-1)
        )
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (exponentials / exponentials.sum(-1, keepdims=True)) @ value
        return linear(mixed.swapaxes(-3, -2).reshape(x.shape), f'{name}.fn.mha.out_proj.')

    batch, frames, rows, columns, _ = components.shape
    x = linear(components, 'embed.')
    x[:, -1] = p['replace_vector'].reshape(-1)
    third = x.shape[-1] // 3
    for axis in range(3):
        shape = [1, 1, 1, third]
        shape[axis] = (frames, rows, columns)[axis]
        x[..., third * axis : third * (axis + 1)] += p[f'maskvit.pos_embd.emb.d_{axis}'].reshape(
            shape
        )
    x = x.reshape(batch, frames, rows * columns, -1)
    for index in range(DEPTH):
        name = f'maskvit.transformer.layers.{index}'
        x = x + attention(normed(x, f'{name}.0').swapaxes(1, 2), f'{name}.0').swapaxes(1, 2)
        x = x + attention(normed(x, f'{name}.1'), f'{name}.1')
        hidden = linear(normed(x, f'{name}.2'), f'{name}.2.fn.net.0.')
        x = x + linear(0.5 * hidden * (1 + erf(hidden / np.sqrt(2))), f'{name}.2.fn.net.3.')
    distance = np.abs(
        linear(x[:, -1], 'maskvit.fc_out.') - components[:, -1].reshape(batch, rows * columns, -1)
    )
    return np.where(distance < 0.1, distance**2 / 0.2, distance - 0.05).mean()


def test_gradients_are_the_slopes_of_a_numpy_forward_pass(step, tensors, expected):
    """Per parameter along our gradient, and along a random direction, in units of the gradient's
    length.
    """
    ours, gradients = step
    components = expected['pca_features_bthwc'].astype(np.float64)
    np.testing.assert_allclose(
        numpy_loss(tensors, components), expected['masked_smooth_l1'], rtol=1e-5
    )
    random, errors = np.random.default_rng(0), {}
    for name, value in tensors.items():
        gradient = gradients[name].reshape(value.shape)
        length = np.linalg.norm(gradient)
        noise = random.normal(size=value.shape)
        for kind, direction in (
            ('along', gradient / length),
            ('across', noise / np.linalg.norm(noise)),
        ):
            step_size = 1e-5
            ahead, behind = (
                numpy_loss(tensors | {name: value + sign * step_size * direction}, components)
                for sign in (1, -1)
            )
            slope = (ahead - behind) / (2 * step_size)
            errors[name, kind] = abs(slope - (gradient * direction).sum()) / length
    print(
        f'{len(tensors)} parameters, largest relative error {max(errors.values()):.1e} of '
        f'{max(errors, key=errors.get)}'
    )
    assert max(errors.values()) < LIMIT, errors
