r"""Evaluation of stage 1 by the protocol of its field: short- and mid-term forecasts, read by
heads.

    re2pix evaluate --config=eval_forecaster --workdir=runs/eval_forecaster
    re2pix evaluate --config=eval_forecaster
    --config.model=bundles/dino_foresight \
        --config.heads.segmentation=bundles/head_segm --config.heads.depth= --config.heads.normals=
        \ --config.source=records:data/cityscapes --config.label_size="(1024,2048)" --config.clips=0
        --workdir=runs/eval_cityscapes

A few minutes on 2 cores. The frame that is forecast is the one that the dataset labels: the 20th of
    a Cityscapes snippet and of a
clip of the world, the 29th of nuScenes and CoVLA.

A depth head is compared with metres if it was trained on metres (configs/head.py) and with
published ordinal classes if it was trained on those; normals need metres. What does not go together
is refused: leave heads.depth or heads.normals empty then.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            # shipped name, bundle folder or hf:owner/repo, of a forecaster or of a whole model
            'model': 'tiny',
            # Bundles; without one its metrics are left out.
            'heads': {
                'segmentation': 'tiny/head',
                'depth': 'tiny/depth',
                'normals': 'tiny/normals',
            },
            'source': 'world',  # 'world' | 'records:FOLDER' | 'cityscapes:FOLDER' ..., of frames
            'split': 'validation',
            'clips': 256,  # at most; 0 = all
            'terms': ('short', 'mid'),  # 'short' | 'mid' | 'long': 1, 3, 6 steps
            # horizontal, degrees: with which true normals are derived from depth (heads.normals)
            # [O]
            'field_of_view': 60.0,
            # Height, width at which labels and depth are compared, no larger than theirs; () = that
            # of the frames. Cityscapes: (1024, 2048) [R]
            'label_size': (),
            'batch_size': 8,  # clips; changes speed and memory, not results
            'workers': 2,  # processes that render or read clips; 0 = threads
            'pictures': 6,  # clips a term that are shown
            'mesh': {'data': -1, 'model': 1},  # devices that share the clips
        }
    )
