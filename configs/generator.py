r"""Stage 2: renders forecast semantics into frames.

    re2pix train --config=generator:tiny --workdir=runs/generator \
        --config.frozen.forecaster=runs/bundles/forecaster --config.frozen.vae=runs/bundles/vae

tiny: about two hours on one core from encoded clips (launch/train_tiny.sh); score in
re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
small: one GPU, from encoded clips (launch/train_small.sh); not yet run.
base: DiT-B at 256×512 over Stable Diffusion's latents [O] on Cityscapes: 800 epochs at 64 clips a
step [R: what the authors' flow model takes], a warm-up [O], and every 20 epochs 64 held-out clips
whose first future frame has the labels. Not yet run; hours by `re2pix recipes generator`.

tiny and small are not evaluated while they train: --config.eval_every=N runs config.evals.

A variant follows the size, as in generator:tiny-unet, in all sizes:
  unet            a video U-Net in the place of the transformer
  joint           one attention over all frames' tokens instead of one over time and one over space
  baseline        without features [P]
  baseline-large  without features, with at least the parameters of generator and forecaster [P]
  s, b, l, xl     the usual sizes of diffusion transformers at this resolution (base-l, base-xl)
Variants combine with any field, as with --config.model.components=0 for a U-Net without features.
Not yet run.
"""

import functools

from re2pix_jax.errors import UserError
from re2pix_jax.generator.dit import SIZES
from re2pix_jax.training import defaults


def get_config(size='tiny'):
    size, _, variant = size.partition('-')
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'generator'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256), base=(256, 512))
    config.frozen.update(
        forecaster='', vae='', head=''
    )  # the head is only passed on to the exported model
    config.model.update(
        context_frames=4,
        future_frames=4,
        **pick(
            tiny=dict(latent_channels=8, latent_grid=(16, 32), components=144),
            small=dict(latent_channels=16, latent_grid=(16, 32), components=288),
            base=dict(latent_channels=4, latent_grid=(32, 64), components=1152, remat=True),
        ),
    )
    config.model.update(
        pick(
            tiny=dict(backbone='unet', width=32, multiples=(1, 2, 3), blocks=1, head=16, groups=8),
            small=dict(backbone='unet', width=128, multiples=(1, 2, 3), blocks=2),
            base=dict(backbone='unet', width=192, multiples=(1, 2, 4), blocks=2, head=64),
        )
        if variant == 'unet'
        else pick(
            tiny=dict(
                backbone='dit',
                patch_size=2,
                width=144,
                depth=4,
                heads=4,
                ffn_multiple=32,
                unroll=True,
            ),
            small=dict(backbone='dit', patch_size=2, width=256, depth=7, heads=4, unroll=True),
            base=dict(backbone='dit', patch_size=2, unroll=True, **SIZES['B']),
        )
    )
    large = pick(tiny=dict(width=208), small=dict(width=320, depth=12, heads=5), base=SIZES['L'])
    changes = {
        '': {},
        'unet': {},
        'joint': {'attention': 'joint'},
        'baseline': {'components': 0},
        'baseline-large': {'components': 0, **large},
        **{name.lower(): fields for name, fields in SIZES.items()},
    }
    if variant not in changes:
        raise UserError(
            f"config variant '{variant}': expected one of {', '.join(filter(None, changes))}, as "
            'in --config=generator:tiny-unet'
        )
    config.model.update(changes[variant])
    config.loss.update(
        nested_dropout=True,
        nested_counts='doublings',  # or 'multiples': which the paper means is not known [O]
        nested_share=1.0,  # of the steps that have nested dropout, the first ones [O]
        # of the samples are trained on stage 1's own forecast [P]; 0: ground truth only, 1:
        # predictions only
        predicted_fraction=0.1,
        # evenly spaced samples of the batch [O]; 'per_sample' draws each [P], and forecasts for all
        # of them
        mixed='slice',
        path='flow',  # or 'ddpm', with the schedule below; what the paper uses is not known [O]
        target='x',  # or 'v' or 'epsilon': what the network predicts [R]
        schedule='linear',  # or 'cosine', of ddpm
        times='logit_normal',  # or 'uniform'
        # of the logit-normal [R], for latents of few channels [O]; published -2 and 1.5
        time_mean=-0.4,
        time_std=1.0,
        # > 0: half of the clips have noise on context frames, from t = 1 down to 1 - this, so that
        # later chunks can be predicted from noised ones (predict --context_noise) [O]
        context_noise=0.0,
        # How the exported model draws, and the evaluation while training: by `re2pix samplers`
        # [O]; published: 15 steps of euler [R]
        sampler='heun',  # or 'euler' or 'ddim'
        sampler_steps=5,
        sampler_grid='shifted:0.5',  # or 'even', or 'quantiles:-0.4,1', of the times trained on
    )
    config.steps = pick(tiny=5000, small=10_000, base=1)
    config.batch_size = pick(tiny=8, small=32, base=64)
    config.optimizer.update(
        name=pick(tiny='muon', small='adamw', base='adamw'),
        schedule='cosine',
        warmup_steps=pick(tiny=100, small=200, base=1000),
        b2=0.95,
        clip=1.0,
    )
    config.optimizer.learning_rate = pick(tiny=2.5e-3, small=5e-4, base=1e-4)
    config.ema = pick(tiny=0.99, small=0.999, base=0.9999)
    config.data.update(size=frames, frames=8, strides=(3,), crop=(0.5, 1.0), flip=0.5, labels=False)
    if size == 'tiny':
        config.data.crop = (1.0, 1.0)  # half of a 64-pixel frame is too little to enlarge
    config.eval_data.update(size=frames, frames=8, strides=(3,), labels=False, clips=32)
    config.evals.latents = {'type': 'latents'}
    if size == 'small':
        defaults.on_small_world(config, encoded=True)
    if size == 'base':
        defaults.on_cityscapes(config, epochs=800, evaluated=20)
        config.eval_data.update(start=7, labels=True, clips=64)
        config.evals.image = {'type': 'image', 'methods': ('re2pix',)}
        config.evals.segmentation = {'type': 'segmentation', 'methods': ('re2pix',)}
    return config
