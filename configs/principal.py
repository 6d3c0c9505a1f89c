r"""The principal components of the encoder's features.

    re2pix fit_pca --config=principal:tiny --out=runs/bundles/principal \
        --config.frozen.encoder=runs/bundles/encoder

tiny keeps 144 of 384 channels, base 1152 of 3072 [P]. Minutes on any machine: one pass over `clips`
windows of the training data. base: the labelled frame of each Cityscapes clip at 448×896, for both
resolutions of stage 1 [R].
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'principal'
    config.frozen.encoder = ''
    config.components = pick(tiny=144, small=288, base=1152)
    # windows that are looked at
    config.clips = pick(tiny=1000, small=defaults.SMALL_CLIPS, base=defaults.CITYSCAPES_CLIPS)
    config.batch_size = pick(tiny=50, small=50, base=17)
    config.data.update(
        size=pick(tiny=(64, 128), small=(128, 256), base=(448, 896)),
        frames=1,
        labels=False,
        flip=pick(tiny=0.5, small=0.5, base=0.0),
        window=pick(tiny='start', small='start', base='target'),
    )
    if size == 'small':
        defaults.on_small_world(config)
    if size == 'base':
        config.data.sources = ('records:data/cityscapes',)
    return config
