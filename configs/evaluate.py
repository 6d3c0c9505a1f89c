r"""Evaluation of a whole model on held-out clips of the procedural world.

    re2pix evaluate --config=evaluate --workdir=runs/evaluate
    re2pix evaluate --config=evaluate \
        --config.model=runs/bundles/re2pix --workdir=runs/evaluate

About ten minutes on 2 cores. Scores of the shipped bundle: README.md,
    re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            'model': 'tiny',  # shipped name, bundle folder or hf:owner/repo
            # 'world' | 'records:FOLDER' (prepared clips) | 'videos:FOLDER' (no labels, so no mIoU)
            'source': 'world',
            'split': 'validation',
            'clips': 256,  # at most
            # native frame where the context begins; Cityscapes, horizon 1: 7, for frame 19 has the
            # labels
            'start': 0,
            'horizon': 4,  # future frames: stride 3 at 17 fps [R], 0.18 s a step
            'batch_size': 8,  # clips; changes speed and memory, not results
            'workers': 2,  # processes that render or read clips; 0 = threads
            'seed': 0,  # of the sampler's noise and the probe's minibatches
            'guidance': 0.0,  # weight of representation guidance; the paper explores 0.4 [P]
            'channels': 0,  # leading components that the generator is given; 0 = all
            # leading components that the coarse prediction of guidance keeps
            'guidance_channels': 8,
            'sampler': 'euler',  # 'euler' | 'heun' | 'ddim'
            'sampler_steps': 0,  # 0 = the model's own
            # also what is the same for any generator: stage 1, the VAE, copy-last, heads on true
            # frames
            'references': True,
            # Bundles that measure frames; '' = leave out what needs them.
            'heads': {'depth': 'tiny/depth'},
            'inception': '',  # FID: `convert inception`
            'i3d': '',  # FVD: `convert i3d`
            'lpips': '',  # `convert lpips`
            'probe': {
                'clips': 400,  # of the train split, one frame each; 0 = no linear probe
                'steps': 300,
                'batch_size': 8,  # frames
            },
            'mesh': {'data': -1, 'model': 1},  # devices that share the clips
        }
    )
