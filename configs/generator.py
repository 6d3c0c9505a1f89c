"""Stage 2: renders forecast semantics into frames.

    python -m re2pix_jax.train --config=configs/generator.py:tiny --workdir=runs/generator \
        --config.frozen.forecaster=runs/bundles/forecaster --config.frozen.vae=runs/bundles/vae

tiny: about an hour on 2 cores from encoded clips (launch/train_tiny.sh); score in re2pix_jax/bundles/tiny/MODEL_CARD.md.
small: one GPU; not yet run.
base: DiT-B at 256×512 over Stable Diffusion's latents [O]; not yet run.
The baseline without features is this config with --config.model.components=0.
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'generator'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256), base=(256, 512))
    config.frozen.update(forecaster='', vae='', head='')  # the head is only passed on to the exported model
    config.model.update(pick(
        tiny=dict(latent_channels=8, latent_grid=(16, 32), patch_size=2, components=144, width=144, depth=4, heads=4,
                  context_frames=4, future_frames=4, ffn_multiple=32, unroll=True),
        small=dict(latent_channels=4, latent_grid=(16, 32), patch_size=2, components=576, width=384, depth=12, heads=6,
             context_frames=4, future_frames=4),
        base=dict(latent_channels=4, latent_grid=(32, 64), patch_size=2, components=1152, width=768, depth=12, heads=12,
             context_frames=4, future_frames=4, remat=True)))
    config.loss.update(
        nested_dropout=True,
        nested_counts='doublings',  # or 'multiples': which the paper means is not known [O]
        predicted_fraction=0.1,  # of the samples are trained on stage 1's own forecast [P]; 0: ground truth only, 1: predictions only
        mixed='slice',  # evenly spaced samples of the batch [O]; 'per_sample' draws each [P], and forecasts for all of them
        path='flow',  # or 'ddpm', with the schedule below; what the paper uses is not known [O]
        target='x',  # or 'v' or 'epsilon': what the network predicts [R]
        schedule='linear',  # or 'cosine', of ddpm
        times='logit_normal',  # or 'uniform'
        time_mean=-0.4, time_std=1.0,  # logit-normal [R]; the mean suits few-channel latents [O]
        sampler='euler', sampler_steps=20)  # or 'heun' or 'ddim'; of the evaluation while training
    config.steps = pick(tiny=2200, small=50_000, base=200_000)
    config.batch_size = pick(tiny=8, small=32, base=64)
    config.optimizer.update(name=pick(tiny='muon', small='adamw', base='adamw'), schedule='cosine',
                            warmup_steps=pick(tiny=100, small=0, base=0), b2=0.95, clip=1.0)
    config.optimizer.learning_rate = pick(tiny=2.5e-3, small=3e-4, base=1e-4)
    config.ema = pick(tiny=0.99, small=0.9999, base=0.9999)
    config.data.update(size=frames, frames=8, strides=(3,), crop=(0.5, 1.0), flip=0.5, labels=False)
    if size == 'tiny':
        config.data.crop = (1.0, 1.0)  # half of a 64-pixel frame is too little to enlarge
    config.eval_data.update(size=frames, frames=8, strides=(3,), labels=False, clips=32)
    return config
