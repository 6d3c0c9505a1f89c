r"""The DPT head that reads segmentation, depth or surface normals from PCA-reconstructed features.

    re2pix train --config=head:tiny --workdir=runs/head \
        --config.frozen.encoder=runs/bundles/encoder \
        --config.frozen.principal=runs/bundles/principal

head:tiny-depth and head:tiny-normals read the other two, and so for each size.

tiny: about 5 minutes on 2 cores. small: one GPU (launch/train_small.sh). base: one GPU, sizes and
recipe of the published heads [R], on Cityscapes, for depth by the ordinal classes of its published
teacher (with disparity alone, --config.loss.depth_range="(1.0,200.0)"); normals follow from depth
in metres, so base-normals takes disparity, not these classes. small and base are not yet run; hours
by `re2pix recipes head`.

tiny and small are not evaluated while they train: --config.eval_every=N runs config.evals.
"""

import functools

from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults

CLASSES = {'segmentation': 19, 'depth': 256, 'normals': 3}  # [R]


def get_config(size='tiny'):
    size, _, reads = size.partition('-')
    reads = reads or 'segmentation'
    if reads not in CLASSES:
        raise UserError(
            f'config reads {reads!r}: expected one of {", ".join(CLASSES)}, as in '
            '--config=head:tiny-depth'
        )
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'head'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256), base=(448, 896))
    config.frozen.update(encoder='', principal='')
    config.model.classes = CLASSES[reads]
    config.model.update(
        pick(
            tiny=dict(features=32, channels=(32, 48, 64, 64), batch_norm=False),
            small=dict(features=64, channels=(64, 96, 128, 128), batch_norm=False),
            base=dict(features=256, channels=(128, 256, 512, 512), batch_norm=True),
        )
    )
    config.loss.update(
        reads=reads,  # 'segmentation' | 'depth' | 'normals'
        # metres of a depth head's classes; () = the data holds ordinal classes, as published
        depth_range=pick(tiny=(1.0, 200.0), small=(1.0, 200.0), base=()),
        # horizontal, degrees: with which normals are derived from depth. The world has cameras of
        # 56 to 66; Cityscapes' focal length is 2262.52 of 2048 pixels
        field_of_view=pick(tiny=60.0, small=60.0, base=48.7),
    )
    config.steps = pick(tiny=300, small=1000, base=1)
    config.batch_size = 16
    if size == 'small':
        defaults.on_small_world(config)
    if size == 'base':
        defaults.on_cityscapes(config, epochs=100, evaluated=10)  # one frame of each clip [R]
    schedule = 'cosine' if reads == 'depth' else 'poly'
    config.optimizer.update(
        name='adamw',
        schedule=schedule,
        warmup_steps=pick(tiny=120, small=100, base=config.get_ref('steps') // 10),
        weight_decay=1e-4,
    )
    config.optimizer.update(
        pick(
            tiny=dict(learning_rate=2e-3),
            small=dict(learning_rate=3e-4),
            base=dict(learning_rate=1e-4, power=1.0, clip=0.0),
        )
    )
    config.ema = pick(tiny=0.99, small=0.99, base=0.999)
    window = pick(
        tiny='start', small='start', base='target'
    )  # base: Cityscapes, which labels one frame of a clip
    config.data.update(
        size=frames, frames=1, flip=pick(tiny=0.0, small=0.0, base=0.5), window=window
    )
    clips = pick(tiny=32, small=32, base=0)
    config.eval_data.update(size=frames, frames=1, clips=clips, window=window)
    config.evals[reads] = {'type': reads, 'methods': ('truth',)}
    if reads == 'normals':
        config.evals.normals.field_of_view = config.loss.get_ref('field_of_view')
    return config
