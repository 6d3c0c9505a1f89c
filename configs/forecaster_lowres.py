r"""Stage 1 by the published recipe at low resolution: 224x448, 800 epochs of Cityscapes at 64 clips
a step [R]; its validation split every 10 epochs [R].

    re2pix prepare cityscapes --raw=DIR --out=data/cityscapes
    re2pix train --config=forecaster_lowres --workdir=runs/forecaster_lowres \
        --config.frozen.encoder=bundles/dinov2_b --config.frozen.principal=bundles/principal

Published on 8 GPUs with 8 clips each. Where memory is short: --config.accumulate=4,
--config.model.remat. Not yet run; hours by `re2pix recipes forecaster_lowres`.
"""

import pathlib
import runpy

from re2pix_jax.training import defaults

FRAMES = (224, 448)

_forecaster = runpy.run_path(str(pathlib.Path(__file__).with_name('forecaster.py')))['get_config']


def get_config():
    config = _forecaster('small')
    config.model.update(
        components=1152, width=1152, depth=12, heads=8, frames=5, grid=(16, 32), dropout=0.1
    )
    config.batch_size = 64
    defaults.on_cityscapes(config, epochs=800, evaluated=10)
    config.optimizer.update(
        name='adam',
        # follows the batch size where the command line sets it
        learning_rate=8e-5 * config.get_ref('batch_size').to_float() / 8,
        schedule='cosine',
        warmup_steps=0,
        clip=1.0,
    )
    config.ema = 0.9999  # [O]: published without
    config.data.update(size=FRAMES, strides=(2, 3, 4), crop=(0.5, 1.0), flip=0.5)
    # Mid-term: three steps, the last of which is the frame with labels.
    config.eval_data.update(size=FRAMES, frames=7, strides=(3,), window='target', clips=0)
    return config
