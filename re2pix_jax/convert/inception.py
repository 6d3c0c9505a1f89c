"""Inception v3 of FID: pytorch-fid's pt_inception-2015-12-05-6726825d.pth."""

from re2pix_jax.bundles.kinds import KINDS
from re2pix_jax.convert import torch_file
from re2pix_jax.convert.table import Table, batch_norm, conv
from re2pix_jax.evaluation.networks.inception import Inception, InceptionV3

IGNORED = (
    ('*.num_batches_tracked', 'only for batch norms without momentum'),
    ('fc.*', 'classes, behind the features'),
    ('AuxLogits.*', 'classes, beside the features'),
)


def table(expected) -> Table:
    """Their names are ours, with dots: one rule a tensor of every unit that the network has."""
    end = '/conv/kernel'
    units = [
        path.removeprefix('params/').removesuffix(end) for path in expected if path.endswith(end)
    ]
    rules = [rule for unit in units for rule in _unit(unit.replace('/', '.'), unit)]
    return Table('Inception v3 of FID', tuple(rules), IGNORED)


def _unit(theirs, ours):
    return [
        (f'{theirs}.conv.weight', f'params/{ours}/conv/kernel', conv),
        *batch_norm(f'{theirs}.bn', f'{ours}/bn'),
    ]


def convert(path) -> Inception:
    """Reads the file, or another one with the same keys.

    Raises:
        UserError: it cannot be read, or something in it does not fit; all tensors that do not are
            in one message.
    """
    net = InceptionV3()
    expected = KINDS['inception'].expected(net, {}, {}, str(path))
    return Inception(table(expected).convert(torch_file.tensors(path), expected, path), net)
