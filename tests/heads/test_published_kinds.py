"""Published heads of 19, 256 and 3 outputs, as Lightning saves them, and what they are taken to
read.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax import bundles
from re2pix_jax.convert import dpt
from re2pix_jax.heads import VERBS
from tests.convert import torch_pickles


def tensors(outputs, width=6, features=8, channels=(4, 6, 8, 8)):
    """A state_dict with random weights under the names and in the shapes of the published ones,
    with batch norm.
    """
    shapes = {f'projects.{k}.weight': (c, width, 1, 1) for k, c in enumerate(channels)}
    shapes |= {
        'resize_layers.0.weight': (channels[0], channels[0], 4, 4),
        'resize_layers.1.weight': (channels[1], channels[1], 2, 2),
        'resize_layers.3.weight': (channels[3], channels[3], 3, 3),
    }
    biases = {name.replace('weight', 'bias'): shape[:1] for name, shape in shapes.items()}
    shapes |= biases | {
        f'scratch.layer{k + 1}_rn.weight': (features, c, 3, 3) for k, c in enumerate(channels)
    }
    for level in (1, 2, 3, 4):
        fusion = f'scratch.refinenet{level}'
        shapes |= {
            f'{fusion}.out_conv.weight': (features, features, 1, 1),
            f'{fusion}.out_conv.bias': (features,),
        }
        for unit in (1, 2):
            for layer in (1, 2):
                place = f'{fusion}.resConfUnit{unit}'
                shapes |= {
                    f'{place}.conv{layer}.weight': (features, features, 3, 3),
                    f'{place}.conv{layer}.bias': (features,),
                }
                shapes |= {
                    f'{place}.bn{layer}.{name}': (features,)
                    for name in ('weight', 'bias', 'running_mean', 'running_var')
                }
    shapes |= {
        'scratch.output_conv.0.weight': (features, features, 3, 3),
        'scratch.output_conv.4.weight': (outputs, features, 1, 1),
        'scratch.output_conv.4.bias': (outputs,),
    }
    shapes |= {
        f'scratch.output_conv.1.{name}': (features,)
        for name in ('weight', 'bias', 'running_mean', 'running_var')
    }
    rng = np.random.default_rng(0)
    return {
        f'head.{name}': rng.uniform(0.05, 0.15, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ('outputs', 'reads'),
    [(19, 'segmentation'), (256, 'depth'), (3, 'normals'), (7, 'segmentation')],
)
def test_the_outputs_say_what_a_published_head_reads(outputs, reads, tmp_path):
    torch_pickles.state_dict(tmp_path / 'head.ckpt', tensors(outputs))
    head = dpt.convert(tmp_path / 'head.ckpt')
    assert (head.reads, head.depth_range, head.channels, head.net.batch_norm) == (
        reads,
        None,
        24,
        True,
    )
    bundles.save(tmp_path / 'bundle', head)
    head = bundles.load(tmp_path / 'bundle', 'head')
    assert (head.reads, head.net.classes) == (reads, outputs)
    read = getattr(head, VERBS[reads])(
        jnp.asarray(np.random.default_rng(0).normal(size=(1, 1, 2, 4, 24)), jnp.float32), (20, 30)
    )
    assert read.shape == (1, 1, 20, 30, 3)[: 5 if reads == 'normals' else 4]
    with pytest.raises(ValueError, match='this head reads'):
        (head.normals if reads != 'normals' else head.labels)(jnp.zeros((1, 1, 2, 4, 24)))
