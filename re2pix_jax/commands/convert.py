r"""Turns published weights into a bundle that re2pix_jax.load opens.

    re2pix convert dinov2 dinov2_vitb14_reg4_pretrain.pth bundles/dinov2_b --image_size=224x448
    re2pix convert dinov3 hf:facebook/dinov3-vitb16-pretrain-lvd1689m bundles/dinov3_b
    re2pix convert sd-vae hf:stabilityai/sd-vae-ft-mse bundles/sd_vae
    re2pix convert dino-foresight lowres.ckpt bundles/forecaster --pca=pca.pth
    re2pix convert dpt-head head_segm.ckpt bundles/head_segm
    re2pix convert inception pt_inception-2015-12-05-6726825d.pth bundles/inception
    re2pix convert i3d rgb_imagenet.pt bundles/i3d
    re2pix convert lpips alexnet-owt-7be5be79.pth bundles/lpips --linear=alex.pth

The source is a file (.pth, .pt, .ckpt, .bin, .safetensors), a folder as `transformers` and
`diffusers` save it, or hf:OWNER/REPO[/FOLDER][:FILE]. Nothing in a file is run. Every tensor is
used, or the command says which are not.
"""

from absl import flags

from re2pix_jax.commands import cli
from re2pix_jax.convert import published

OPTIONS = (
    flags.DEFINE_integer(
        'heads',
        None,
        'Attention heads of the encoder, where it is of no published size (dinov2, dinov3, '
        'dino-foresight).',
        lower_bound=1,
    ),
    cli.integers_flag(
        'layers',
        None,
        'Zero-based blocks whose outputs are the features (dinov2, dinov3, dino-foresight).',
    ),
    cli.size_flag(
        'image_size',
        'What frames are resized to (dinov2, dinov3, dino-foresight); none: as they come, or as '
        'the checkpoint says.',
    ),
    flags.DEFINE_float(
        'scaling_factor', None, "What latents are multiplied by, instead of config.json's (sd-vae)."
    ),
    flags.DEFINE_float(
        'shift_factor',
        None,
        "What is subtracted from latents before that, instead of config.json's (sd-vae).",
    ),
    flags.DEFINE_string(
        'pca',
        None,
        'File of the principal components (dino-foresight); none: those of the checkpoint.',
    ),
    flags.DEFINE_string(
        'encoder', None, 'Encoder bundle (dino-foresight); none: the encoder inside the checkpoint.'
    ),
    flags.DEFINE_integer(
        'transformer_heads',
        None,
        'Attention heads of the forecaster, where the checkpoint does not say (dino-foresight).',
        lower_bound=1,
    ),
    flags.DEFINE_string('linear', None, 'File of the linear weights (lpips).'),
)
STORAGE = flags.DEFINE_enum(
    'storage', 'float32', ['float32', 'float16'], 'Precision of the tensors in the bundle.'
)
OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace a bundle of the same kind.')

ARGUMENTS = ('kind', 'source', 'destination')
REMOTE = ('source', 'destination', 'encoder')


def main(argv):
    _, kind, source, destination = argv
    options = {flag.name: flag.value for flag in OPTIONS}
    saving = {'storage': STORAGE.value, 'overwrite': OVERWRITE.value}
    converted = published.convert(kind, source, destination, options, **saving)
    print(f'{destination}: {kind}, {converted.parameters:,} parameters from {source}')
    if converted.left_out:
        print(f'{destination}: left out on purpose: {"; ".join(converted.left_out)}')
