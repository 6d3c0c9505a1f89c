r"""Which sampler a model should have: what each makes of held-out clips, and for how much work.

    re2pix samplers --config=samplers
    re2pix samplers --config=samplers --config.model=runs/bundles/re2pix --config.clips=64 \
        --config.rows="(('euler',50,'even'),('heun',9,'shifted:2'))"

About 15 minutes on 2 cores.
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
    config.rows = (  # sampler, steps, grid
        ('euler', 10, 'even'),
        ('euler', 20, 'even'),
        ('euler', 20, 'shifted:0.5'),
        ('heun', 5, 'even'),
        ('heun', 5, 'shifted:0.5'),
        ('heun', 5, 'shifted:3'),
        ('heun', 5, OURS),
        ('heun', 10, 'even'),
        ('heun', 10, 'shifted:0.5'),
    )
    return config
