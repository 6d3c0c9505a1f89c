r"""Stage 1: forecasts the components of the next frame from those of four.

    re2pix train --config=forecaster:tiny --workdir=runs/forecaster \
        --config.frozen.encoder=runs/bundles/encoder \
        --config.frozen.principal=runs/bundles/principal
    re2pix train --config=forecaster:tiny-unrolled --workdir=runs/forecaster_unrolled \
        --config.init=runs/bundles/forecaster --config.frozen.encoder=runs/bundles/encoder \
        --config.frozen.principal=runs/bundles/principal

tiny-unrolled, small-unrolled: the end of the training, from the bundle of a first run: a loss over
four frames, each predicted from the predictions before it, at a lower rate [O].

tiny: about 50 minutes on one core from encoded clips (launch/train_tiny.sh); score in
re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
small: one GPU, from encoded clips (launch/train_small.sh); not yet run.
The published sizes are forecaster_lowres and forecaster_highres.

tiny and small are not evaluated while they train: --config.eval_every=N runs config.evals.
"""

import functools

from re2pix_jax.errors import UserError
from re2pix_jax.training import defaults


def get_config(size='tiny'):
    size, _, variant = size.partition('-')
    if variant not in ('', 'unrolled'):
        raise UserError(
            f'config variant {variant!r}: expected unrolled or none, as in '
            f'--config=forecaster:{size}-unrolled'
        )
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'forecaster'
    config.dtype = pick(tiny='float32', small='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256))
    config.frozen.update(encoder='', principal='')
    config.model.update(
        pick(
            tiny=dict(
                components=144,
                width=144,
                depth=4,
                heads=4,
                frames=5,
                grid=(8, 16),
                dropout=0.0,
                remat=False,
            ),
            small=dict(
                components=288,
                width=288,
                depth=6,
                heads=8,
                frames=5,
                grid=(8, 16),
                dropout=0.1,
                remat=False,
            ),
        )
    )
    config.loss.update(
        unroll=1,  # frames predicted by roll-out that the loss is over; data.frames: 4 + this [O]
        # Whether the gradient of a step stops at the predictions that it goes on from. It saves no
        # memory, every step's activations are kept all the same: model.remat does. [O]
        cut=False,
        noise=0.0,  # on the context, in units of the error of the next frame [O]
    )
    config.steps = pick(tiny=4500, small=6000)
    config.batch_size = pick(tiny=4, small=32)
    config.optimizer.update(
        name=pick(tiny='muon', small='adam'),
        learning_rate=pick(tiny=4e-3, small=6.4e-4),
        schedule='cosine',
        warmup_steps=pick(tiny=100, small=0),
        clip=1.0,
    )
    config.ema = pick(tiny=0.995, small=0.999)
    config.data.update(
        size=frames, frames=5, strides=(2, 3, 4), crop=(0.5, 1.0), flip=0.5, labels=False
    )
    if size == 'tiny':
        config.data.crop = (1.0, 1.0)  # half of a 64-pixel frame is too little to enlarge
        config.data.strides = (
            3,
        )  # the one it is used at: so small a network has nothing to spare for others [O]
    config.eval_data.update(size=frames, frames=8, strides=(3,), labels=False, clips=32)
    if size == 'small':
        defaults.on_small_world(config, encoded=True)
    config.evals.components = {'type': 'components', 'methods': ('forecast',)}
    if variant == 'unrolled':
        config.loss.unroll, config.data.frames = 4, 8
        config.steps = pick(tiny=240, small=800)
        config.optimizer.learning_rate = pick(tiny=1.5e-3, small=8e-5)
        config.optimizer.warmup_steps = pick(tiny=20, small=0)
        config.ema = pick(tiny=0.98, small=0.999)
    return config
