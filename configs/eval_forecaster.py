r"""Evaluation of stage 1 by the protocol of its field: short- and mid-term forecasts, by heads.

    re2pix evaluate --config=eval_forecaster --workdir=runs/eval_forecaster
    re2pix evaluate --config=eval_forecaster --config.model=bundles/dino_foresight \
        --config.protocol=dino-foresight-short --config.source=cityscapes:DIR \
        --config.evals.segmentation.head=bundles/head_segm \
        --config.evals.depth.head=bundles/head_depth --config.evals.normals.head= \
        --workdir=runs/eval_cityscapes

How a roll-out drifts, step by step to 30 (5.3 s), beside the last frame repeated and the mean map
of the split, in components alone; the clips of the world are rendered longer for it:

    re2pix prepare world --out=data/world_rollout --size=64x128 --clips=1 --validation_clips=256 \
        --frames=100
    re2pix evaluate --config=eval_forecaster:rollout --config.source=records:data/world_rollout \
        --workdir=runs/eval_rollout

A few minutes on 2 cores. The frame that is forecast is the one that the dataset labels: the 20th of
a Cityscapes snippet and of a clip of the world, the 29th of nuScenes and CoVLA.

A depth head is compared with metres if it was trained on metres (configs/head.py) and with
published ordinal classes if it was trained on those; normals need metres. What does not go together
is refused: leave evals.depth.head or evals.normals.head empty then.
"""

import pathlib
import runpy

from re2pix_jax.errors import UserError

_evaluate = runpy.run_path(str(pathlib.Path(__file__).with_name('evaluate.py')))['get_config']


def get_config(variant=''):
    if variant not in ('', 'rollout'):
        raise UserError(
            f'config variant {variant!r}: expected rollout or none, as in '
            '--config=eval_forecaster:rollout'
        )
    config = _evaluate()
    config.kind = 'forecaster'
    config.terms = ('short', 'mid')  # 'short' | 'mid' | 'long': 1, 3, 6 steps
    config.methods = ('forecast', 'copy_last', 'mean_map', 'truth')
    config.pictures = 6
    config.evals = {
        'components': {'type': 'components', 'cosine': True, 'mean_clips': 64},
        'segmentation': {'type': 'segmentation', 'head': 'tiny/head'},
        'depth': {'type': 'depth', 'head': 'tiny/depth'},
        # horizontal, degrees: with which true normals are derived from depth [O]
        'normals': {'type': 'normals', 'head': 'tiny/normals', 'field_of_view': 60.0},
    }
    if variant == 'rollout':
        config.terms, config.horizon, config.pictures = (), 30, 0
        config.evals = {'components': {'type': 'components', 'mean_clips': 256}}
    return config
