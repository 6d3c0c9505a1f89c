r"""Which sampler a model should have: what each makes of held-out clips, and for how much work.

    re2pix samplers --config=samplers
    re2pix samplers --config=samplers --config.model=runs/bundles/re2pix --config.clips=64 \
        --config.rows="(('euler',50,'even'),('heun',9,'shifted:2'))"

Not yet run at its full length.
"""

import pathlib
import runpy

_evaluate = runpy.run_path(str(pathlib.Path(__file__).with_name('evaluate.py')))['get_config']

OURS = 'quantiles:-0.4,1'  # of the times that configs/generator.py trains on


def get_config():
    config = _evaluate()
    config.clips = 64
    config.methods = ('re2pix', 'vae')
    config.evals = {
        name: config.evals[name]
        for name in ('image', 'sharpness', 'motion', 'video', 'frechet_random3d')
    }
    config.rows = tuple(
        (sampler, steps, grid)
        for sampler, steps in (('euler', 10), ('euler', 20), ('heun', 5), ('heun', 10))
        for grid in ('even', 'shifted:3', 'shifted:0.5', 'quantiles', OURS)
    )  # sampler, steps, grid
    return config
