"""A small DINOv2-family encoder, where no published one fits the frame size.

    re2pix train --config=encoder:tiny --workdir=runs/encoder

tiny: patch 8 on 64×128, about 30 minutes on one core; the comparison that chose its losses is in
re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
small: patch 16 on 128×256, one GPU (launch/train_small.sh); not yet run.
base: DINOv2-B's sizes at 224×448 [P]; the published weights are what the method assumes. On the
world, which labels every frame as Cityscapes does not: 160 epochs of as many clips as it is
asked for. Not yet run; hours by `re2pix recipes encoder`.
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
    # Clips of the world, where there are many steps; 0 = as many as it has by itself.
    clips = pick(tiny=0, small=0, base=160_000)
    config.data.update(size=frames, frames=1, clips=clips)
    config.eval_data.update(size=frames, frames=1, clips=32)
    if size == 'small':
        defaults.on_small_world(config)
    config.evals.probe = {'type': 'probe', 'clips': 64, 'steps': 100, 'batch_size': 8}
    return config
