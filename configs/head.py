"""The DPT head that reads segmentation out of PCA-reconstructed features.

    python -m re2pix_jax.train --config=configs/head.py:tiny --workdir=runs/head \
        --config.frozen.encoder=runs/bundles/encoder --config.frozen.principal=runs/bundles/principal

tiny: about 5 minutes on 2 cores. small, base: one GPU, sizes and recipe of the published heads [R]; not yet run.
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'head'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(112, 224), base=(224, 448))
    config.frozen.update(encoder='', principal='')
    config.model.update(pick(
        tiny=dict(classes=19, features=32, channels=(32, 48, 64, 64), batch_norm=False),
        small=dict(classes=19, features=128, channels=(64, 128, 256, 256), batch_norm=False),
        base=dict(classes=19, features=256, channels=(128, 256, 512, 512), batch_norm=False)))
    config.steps = pick(tiny=300, small=20_000, base=18_600)  # base: 100 epochs of 2975 frames at batch 16 [R]
    config.batch_size = 16
    config.optimizer.update(name='adamw', schedule='poly', warmup_steps=pick(tiny=120, small=2000, base=1860), weight_decay=1e-4)
    config.optimizer.learning_rate = pick(tiny=2e-3, small=3e-4, base=1e-4)
    config.ema = pick(tiny=0.99, small=0.999, base=0.999)
    config.data.update(size=frames, frames=1)
    config.eval_data.update(size=frames, frames=1, clips=32)
    return config
