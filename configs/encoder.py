r"""A small DINOv2-family encoder, where no published one fits the frame size.

    re2pix train --config=encoder:tiny --workdir=runs/encoder
    re2pix prepare world --out=data/world_base --size=280x560 --frames=1 --clips=160000 \
        --validation_clips=256
    re2pix train --config=encoder:base --workdir=runs/encoder_base

tiny: patch 8 on 64×128, about 30 minutes on one core; the comparison that chose its losses is in
re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
small: patch 16 on 128×256, one GPU (launch/train_small.sh); not yet run.
base: DINOv2-B's sizes at 224×448 [P]; the published weights are what the method assumes. On the
world, which labels every frame as Cityscapes does not: 160 epochs [O] of 160,000 frames, each of a
street of its own, rendered once, larger than they are cropped to: 5 core-hours and 15 GB. To read
them takes 60 core-hours in all; beside one H100 twelve cores keep up. Not yet run; hours by
`re2pix recipes encoder`.

tiny and small are not evaluated while they train: --config.eval_every=N runs config.evals.
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'encoder'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256), base=(224, 448))
    config.model.update(
        pick(
            tiny=dict(
                patch_size=8,
                width=96,
                depth=8,
                heads=3,
                registers=4,
                layers=(1, 3, 5, 7),
                position_grid=(8, 16),
            ),
            small=dict(
                patch_size=16,
                width=192,
                depth=8,
                heads=3,
                registers=4,
                layers=(1, 3, 5, 7),
                position_grid=(8, 16),
            ),
            base=dict(
                patch_size=14,
                width=768,
                depth=12,
                heads=12,
                registers=4,
                layers=(2, 5, 8, 11),
                position_grid=(37, 37),
            ),
        )
    )
    # dense and distill weigh the two losses; 0 turns one off.
    config.loss.update(
        dense=1.0,
        depth=0.3,
        cells=pick(tiny=4, small=8, base=7),
        balance=0.5,
        jitter=0.2,
        distill=0.0,
        prototypes=512,
        mask=0.4,
        student_temperature=0.1,
        teacher_temperature=0.05,
    )
    config.steps = pick(tiny=2200, small=1200, base=200_000)
    config.batch_size = pick(tiny=16, small=128, base=128)
    config.optimizer.learning_rate = pick(tiny=2e-3, small=1e-3, base=2e-4)
    config.optimizer.weight_decay = 0.02
    config.ema = pick(tiny=0.99, small=0.998, base=0.999)
    config.data.update(size=frames, frames=1)
    config.eval_data.update(size=frames, frames=1, clips=pick(tiny=32, small=32, base=256))
    config.evals.probe = {
        'type': 'probe',
        'clips': pick(tiny=64, small=64, base=400),
        'steps': pick(tiny=100, small=100, base=300),
        'batch_size': 8,
    }
    if size == 'small':
        defaults.on_small_world(config)
    if size == 'base':
        config.data.sources = config.eval_data.sources = ('records:data/world_base',)
        config.data.update(crop=(0.8, 1.0), flip=0.5, workers=12)
        config.epoch_clips = 160_000
        config.eval_every = 5000
        config.optimizer.warmup_steps = 10_000  # [O]
    return config
