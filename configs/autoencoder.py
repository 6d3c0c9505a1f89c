"""The VAE: pixels to latents and back.

    re2pix train --config=autoencoder:tiny --workdir=runs/autoencoder
    re2pix train --config=autoencoder:tiny --workdir=runs/sharper --config.steps=1200 \
        --config.init=tiny --config.frozen.vae=tiny --config.frozen.encoder=tiny \
        --config.loss.adversary=0.2 --config.loss.features=2.0 --config.optimizer.learning_rate=5e-4

The second sharpens a decoder and leaves its latents as they are, so that a generator that was
trained on them still fits.

tiny: 64×128 frames, f = 4, 8 channels; about 40 minutes on one core; score in
re2pix_jax/bundles/shipped/tiny/MODEL_CARD.md.
small: 128×256 frames, f = 8, 16 channels, one GPU (launch/train_small.sh); not yet run.
base: Stable Diffusion's own sizes at 256×512 on Cityscapes, to fine-tune or train anew; the
published weights are what the method assumes. An epoch is one frame of each clip: 300 see every
frame ten times [O]. Not yet run; hours by `re2pix recipes autoencoder`.

tiny and small are not evaluated while they train: --config.eval_every=N runs config.evals.
"""

import functools

from re2pix_jax.training import defaults


def get_config(size='tiny'):
    pick = functools.partial(defaults.by_size, size)
    config = defaults.defaults()
    config.task = 'autoencoder'
    config.dtype = pick(tiny='float32', small='bfloat16', base='bfloat16')
    frames = pick(tiny=(64, 128), small=(128, 256), base=(256, 512))
    config.model.update(
        pick(
            tiny=dict(
                block_out_channels=(16, 32, 64),
                layers_per_block=1,
                latent_channels=8,
                norm_groups=8,
                quant_conv=True,
                mid_attention=False,
            ),
            small=dict(
                block_out_channels=(64, 128, 128, 128),
                layers_per_block=2,
                latent_channels=16,
                norm_groups=32,
                quant_conv=True,
                mid_attention=True,
            ),
            base=dict(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=4,
                norm_groups=32,
                quant_conv=True,
                mid_attention=True,
            ),
        )
    )
    config.loss.update(
        l2=4.0,
        kl=1e-5,
        # weight of the distance of frozen.encoder's features
        features=pick(tiny=1.0, small=2.0, base=1.0),
        # how strongly the discriminator pulls at an image, beside the other terms; 0 = none
        adversary=pick(tiny=0.0, small=0.2, base=0.0),
        adversary_start=500,  # steps before it does
        discriminator=pick(tiny=(32, 64), small=(64, 128, 256), base=(64, 128, 256)),  # its widths
    )
    # encoder: whose features are compared; vae: whose latents are kept, only a decoder is trained;
    # '' = neither
    config.frozen.update(encoder=pick(tiny='', small='runs/bundles/small_encoder', base=''), vae='')
    config.steps = pick(tiny=2400, small=4800, base=1)
    config.batch_size = pick(tiny=8, small=32, base=32)
    config.optimizer.learning_rate = pick(tiny=2e-3, small=3e-4, base=1e-4)
    config.ema = pick(tiny=0.995, small=0.999, base=0.9999)
    config.data.update(size=frames, frames=1, labels=False)
    config.eval_data.update(size=frames, frames=1, labels=False, clips=32)
    if size == 'small':
        defaults.on_small_world(config)
    if size == 'base':
        defaults.on_cityscapes(config, epochs=300, evaluated=10)
        config.optimizer.warmup_steps = 1000
        config.data.flip = 0.5
    config.evals.reconstruction = {
        'type': 'reconstruction',
        'encoder': config.frozen.get_ref('encoder'),
    }
    config.evals.sharpness = {'type': 'sharpness'}
    return config
