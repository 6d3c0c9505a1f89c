r"""Evaluation of a model on held-out clips: every stage, then the predicted frames step by step.

    re2pix evaluate --config=evaluate --workdir=runs/evaluation
    re2pix evaluate --config=evaluate --config.model=runs/bundles/re2pix \
        --config.evals.depth.head= --workdir=runs/evaluation
    re2pix evaluate --config=evaluate --config.model=bundles/cityscapes \
        --config.protocol=re2pix-cityscapes --config.source=cityscapes:DIR \
        --config.evals.depth.head= --workdir=runs/cityscapes

About seven minutes on 2 cores. Scores of the shipped bundle: its MODEL_CARD.md and
configs/README.md.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            'model': 'tiny',  # shipped name, bundle folder or hf:owner/repo
            'kind': '',  # 'forecaster': of a whole model, its stage 1 alone
            # 'world' | 'records:FOLDER' (prepared clips) | 'videos:FOLDER' (no labels, so no mIoU)
            'source': 'world',
            # Of evaluation.published: 'dino-foresight-short', 'dino-foresight-mid',
            # 'vista-nuscenes-25', 're2pix-cityscapes'. It sets split, clips, start, horizon, terms
            # and label_size where they are as they come; '' = as the fields say
            'protocol': '',
            'split': 'validation',
            'clips': 256,  # at most; 0 = all
            # 'skip': a clip that can't be read, or is too short, counts for nothing and is named
            'unreadable': 'stop',
            'least_share': 0.5,  # of the clips that must be usable
            # native frame where the context begins; Cityscapes: 1 with horizon 6, for frame 19 has
            # the labels, and ten frames are enough for FVD
            'start': 0,
            'horizon': 4,  # future frames, 0.18 s a step at stride 3 [R]
            'terms': (),  # 'short' | 'mid' | 'long': the protocol of stage 1 instead, see there
            # height, width at which labels and depth are compared, no larger than theirs; () = that
            # of the frames. Cityscapes: (1024, 2048) [R]
            'label_size': (),
            'batch_size': 8,  # clips; changes speed and memory, not results
            'workers': 2,  # processes that render or read clips; 0 = threads
            'seed': 0,  # of the sampler's noise and the probe's minibatches
            'guidance': 0.0,  # weight of representation guidance; the paper explores 0.4 [P]
            'channels': 0,  # leading components that the generator is given; 0 = all
            'guidance_channels': 8,  # leading components that guidance's coarse prediction keeps
            # 'euler' | 'heun' | 'ddim', its steps, and the grid of its times: 'even',
            # 'shifted:0.5', 'quantiles:-0.4,1'; '' and 0 = the model's own
            'sampler': '',
            'sampler_steps': 0,
            'sampler_grid': '',
            'context_noise': 0.0,  # on what the model itself predicted, where it goes on from that
            # 're2pix' | 'copy_last' | 'vae' | 'truth' | 'forecast' | 'encoder'; () = all; and, only
            # where it is named, 'oracle': re2pix given the true future features, as costly again
            'methods': (),
            'pictures': 0,  # clips that are shown
            'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},  # devices that share the clips
            # What is measured: name -> an evaluator's type ('': left out) and options. Heads and
            # networks are bundles; without one, what needs it is left out and named.
            'evals': {
                'reconstruction': {'type': 'reconstruction'},
                'probe': {'type': 'probe', 'clips': 400, 'steps': 300, 'batch_size': 8},
                'components': {'type': 'components'},
                'image': {'type': 'image'},
                'sharpness': {'type': 'sharpness'},
                'motion': {'type': 'motion'},
                'lpips': {'type': 'lpips', 'network': ''},  # `re2pix convert lpips`
                'segmentation': {'type': 'segmentation', 'head': ''},  # '': the model's own
                'depth': {
                    'type': 'depth',
                    'head': 'tiny/depth',
                    'columns': ('delta1', 'abs_rel'),
                    'methods': ('re2pix', 'copy_last', 'vae', 'truth'),
                },
                'frames': {'type': 'frechet', 'of': 'frames'},
                'video': {'type': 'frechet', 'of': 'video'},
                # on pixels: by a network of our own, and by random kernels as a check on it
                'frechet_judge': {'type': 'frechet', 'of': 'judge', 'network': 'tiny/judge'},
                'frechet_random3d': {'type': 'frechet', 'of': 'random3d', 'seed': 0},
                'fid': {'type': 'frechet', 'of': 'inception', 'network': ''},
                'fvd': {'type': 'frechet', 'of': 'i3d', 'network': ''},
            },
        }
    )
