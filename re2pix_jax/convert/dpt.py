"""DPT heads as DINO-Foresight saves them: `head.` in front of every key of a Lightning
checkpoint.
"""

import numpy as np

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.table import Table, batch_norm, conv, layer, need, transposed_conv
from re2pix_jax.errors import UserError
from re2pix_jax.heads import DPTHead, Head

FUSION, OURS = 'scratch.refinenet{}', 'refinenet{}'

READS = {256: 'depth', 3: 'normals'}
"""What heads of that many outputs read [R]; any other number is of classes to segment."""


def _unit(theirs: str, ours: str) -> list:
    return [
        rule
        for index in (1, 2)
        for rule in (
            *layer(f'{theirs}.conv{index}', f'params/{ours}/conv{index}', conv),
            *batch_norm(f'{theirs}.bn{index}', f'{ours}/bn{index}'),
        )
    ]


TABLE = Table(
    'the DPT head',
    (
        *layer('projects.{}', 'params/projects_{}', conv),
        *layer('resize_layers.0', 'params/resize_0', transposed_conv),
        *layer('resize_layers.1', 'params/resize_1', transposed_conv),
        *layer('resize_layers.3', 'params/resize_3', conv),
        ('scratch.layer{}_rn.weight', 'params/layer{}_rn/kernel', conv),
        *_unit(f'{FUSION}.resConfUnit1', f'{OURS}/unit1'),
        *_unit(f'{FUSION}.resConfUnit2', f'{OURS}/unit2'),
        *layer(f'{FUSION}.out_conv', f'params/{OURS}/out_conv', conv),
        ('scratch.output_conv.0.weight', 'params/output_conv/kernel', conv),
        *batch_norm('scratch.output_conv.1', 'output_bn'),
        *layer('scratch.output_conv.4', 'params/output', conv),
    ),
    ignored=(
        ('scratch.refinenet4.resConfUnit1.*', 'never run: the coarsest level has no second input'),
        ('*.num_batches_tracked', 'only for batch norms without momentum'),
    ),
)


def convert(path) -> Head:
    """Reads a head_*.ckpt file, with or without the `head.` in front. What it reads follows from
    its number of outputs.
    """
    tensors = torch_file.tensors(path)
    if any(key.startswith('head.') for key in tensors):
        beside = sorted(key for key in tensors if not key.startswith('head.'))
        if beside:
            raise UserError(
                f'{path}: holds {len(beside)} tensors beside its head: {"; ".join(beside)}'
            )
        tensors = {key.removeprefix('head.'): array for key, array in tensors.items()}
    features = need(tensors, 'scratch.layer1_rn.weight', 4, path).shape[0]
    channels = tuple(
        need(tensors, f'projects.{index}.weight', 4, path).shape[0] for index in range(4)
    )
    classes = need(tensors, 'scratch.output_conv.4.weight', 4, path).shape[0]
    normed = any('.resConfUnit2.bn1.' in key for key in tensors)
    net = DPTHead(classes=classes, features=features, channels=channels, batch_norm=normed)
    first = conv(
        np.asarray(tensors['projects.0.weight'])
    )  # the features' channels are read from it
    expected = KINDS['head'].expected(net, {}, {'params/projects_0/kernel': first}, str(path))
    return Head(
        TABLE.convert(tensors, expected, path), net, reads=READS.get(classes, 'segmentation')
    )
