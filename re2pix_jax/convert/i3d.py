"""I3D: piergiaj's rgb_imagenet.pt, and files with the same keys and another number of classes."""

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.table import Table, batch_norm, conv3d, layer, need
from re2pix_jax.evaluation.networks.i3d import I3D, InceptionI3D

IGNORED = (('*.num_batches_tracked', 'only for batch norms without momentum'),)


def table(expected) -> Table:
    """Their names are ours, with dots: one rule a tensor of every unit that the network has, and
    the logits.
    """
    end = '/conv3d/kernel'
    units = [
        path.removeprefix('params/').removesuffix(end) for path in expected if path.endswith(end)
    ]
    rules = [rule for unit in units for rule in _unit(unit.replace('/', '.'), unit)]
    return Table('I3D', (*rules, *layer('logits.conv3d', 'params/logits', conv3d)), IGNORED)


def _unit(theirs, ours):
    return [
        (f'{theirs}.conv3d.weight', f'params/{ours}/conv3d/kernel', conv3d),
        *batch_norm(f'{theirs}.bn', f'{ours}/bn'),
    ]


def convert(path) -> I3D:
    """Reads the file.

    Raises:
        UserError: it cannot be read, or something in it does not fit; all tensors that do not are
            in one message.
    """
    tensors = torch_file.tensors(path)
    net = InceptionI3D(classes=need(tensors, 'logits.conv3d.weight', 5, path).shape[0])
    expected = KINDS['i3d'].expected(net, {}, {}, str(path))
    return I3D(table(expected).convert(tensors, expected, path), net)
