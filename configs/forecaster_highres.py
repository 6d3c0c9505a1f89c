r"""Stage 1 by the published recipe at high resolution: 448x896, from adapted low-resolution
weights, 20 epochs of Cityscapes [R].

    re2pix export --workdir=runs/forecaster_lowres --out=bundles/forecaster_lowres
    re2pix train --config=forecaster_highres --workdir=runs/forecaster_highres \
        --config.init=bundles/forecaster_lowres \
        --config.frozen.encoder=bundles/dinov2_b --config.frozen.principal=bundles/principal

A converted low-resolution checkpoint (`convert dino-foresight`) serves as --config.init too. Row
and column codes are interpolated to the grid of 32x64. Published at 64 clips a step on 8 GPUs, each
with 1 clip at a time (--config.accumulate=8). Not yet run; hours by
`re2pix recipes forecaster_highres`.
"""

import pathlib
import runpy

FRAMES = (448, 896)

_lowres = runpy.run_path(str(pathlib.Path(__file__).with_name('forecaster_lowres.py')))


def get_config():
    config = _lowres['get_config']()
    config.init = 'bundles/forecaster_lowres'
    config.model.update(grid=(32, 64), remat=True)
    config.epochs = 20
    config.optimizer.learning_rate = 1e-5 * config.get_ref('batch_size').to_float() / 8
    config.data.size = config.eval_data.size = FRAMES
    return config
