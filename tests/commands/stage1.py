"""What the tests of stage 1's evaluation share: a small config, heads, clips with another truth."""

import numpy as np

from re2pix_jax import bundles
from re2pix_jax.data import frame_records, records
from re2pix_jax.data.sources.world import World
from re2pix_jax.heads import Head
from re2pix_jax.heads.dpt import DPTHead
from tests.conftest import MICRO, SIZE, load_config, random_variables

CLIPS = 5


def config(source, heads=None, **changes):
    """configs/eval_forecaster.py with little work; heads: {evaluator: bundle}, the others go."""
    found = load_config('eval_forecaster')
    heads = heads or {}
    for name in ('segmentation', 'depth', 'normals'):
        if name in heads:
            found.evals[name].head = str(heads[name])
        else:
            del found.evals[name]
    small = {'source': source, 'clips': CLIPS, 'batch_size': 2, 'workers': 0, 'pictures': 1}
    with found.ignore_type():
        found.update({**small, **changes})
    return found


def head(reads, **changes):
    """A head with random parameters for the micro encoder's features."""
    classes = {'segmentation': 19, 'depth': 16, 'normals': 3}[reads]
    net = DPTHead(classes=classes, **MICRO['head'])
    params = random_variables(net, np.zeros((1, 4, 8, 96), np.float32))
    given = {'params': params, 'net': net, 'reads': reads}
    return Head(**given, **({'depth_range': (1.0, 100.0)} if reads == 'depth' else {}) | changes)


def saved_heads(folder) -> dict:
    """{evaluator: bundle} of a head for each thing that heads read."""
    for reads in ('segmentation', 'depth', 'normals'):
        bundles.save(folder / reads, head(reads))
    bundles.save(folder / 'classes', head('depth', depth_range=None))
    return {reads: folder / reads for reads in ('segmentation', 'depth', 'normals')}


class Changed(World):
    """The world with another truth: without any, with classes for depth, or with depth at half the
    size.
    """

    def __init__(self, change):
        super().__init__('validation', 2, 22, SIZE)
        self.change = change

    def depth_coding(self, index):
        return records.CLASSES if self.change == 'classes' else records.CENTIMETRES

    def read(self, index, indices, labels=True):
        clip = super().read(index, indices)
        changes = {
            'bare': lambda: {
                'labels': np.full_like(clip['labels'], 255),
                'depth': np.zeros_like(clip['depth']),
            },
            'classes': lambda: {'depth': np.ceil(clip['depth'] / 100 * 15).clip(0, 15)},
            'half': lambda: {'depth': clip['depth'][:, ::2, ::2]},
        }
        return clip | changes[self.change]()


def write_others(folder) -> dict:
    """{change: source} of clips with another truth."""
    for change in ('bare', 'classes', 'half'):
        frame_records.write_frames(folder / change, {'validation': Changed(change)})
    return {change: f'records:{folder}/{change}' for change in ('bare', 'classes', 'half')}
