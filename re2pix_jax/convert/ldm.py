"""Autoencoders under the names of latent-diffusion's own code: alone, as FLUX's ae.safetensors, or
within the checkpoint of a whole model.
"""

import re

from re2pix_jax.convert.table import count, left_out, rename

WITHIN = ('first_stage_model.', 'vae.')  # in front of the autoencoder's keys in a whole model
BESIDE = ('loss.', 'model_ema.')  # of the autoencoder's training
RENAMED = (  # theirs -> diffusers'
    (r'\.down\.(\d+)\.block\.', r'.down_blocks.\1.resnets.'),
    (r'\.down\.(\d+)\.downsample\.', r'.down_blocks.\1.downsamplers.0.'),
    (r'\.block\.', '.resnets.'),
    (r'\.upsample\.', '.upsamplers.0.'),
    (r'\.nin_shortcut\.', '.conv_shortcut.'),
    (r'\.mid\.block_1\.', '.mid_block.resnets.0.'),
    (r'\.mid\.block_2\.', '.mid_block.resnets.1.'),
    (r'\.mid\.attn_1\.', '.mid_block.attentions.0.'),
    (r'attentions\.0\.norm\.', 'attentions.0.group_norm.'),
    (r'attentions\.0\.([qkv])\.', r'attentions.0.to_\1.'),
    (r'attentions\.0\.proj_out\.', 'attentions.0.to_out.0.'),
    (r'^(encoder|decoder)\.norm_out\.', r'\1.conv_norm_out.'),
)


def to_diffusers_names(tensors: dict, where) -> dict:
    """The autoencoder's tensors under diffusers' names; those that have them pass unchanged.

    Raises:
        UserError: two tensors come to have the same name.
    """
    for front in WITHIN:
        inside = {
            key.removeprefix(front): array
            for key, array in tensors.items()
            if key.startswith(front)
        }
        if inside:
            others = [key for key in tensors if not key.startswith(front)]
            left_out(others, f'the tensors beside {front}*', 'no part of the autoencoder')
            tensors = inside
            break
    depth = count(tensors, 'decoder.up.{}.')
    if not depth or not count(tensors, 'encoder.down.{}.'):
        return tensors
    for front in BESIDE:
        left_out([key for key in tensors if key.startswith(front)], f'{front}*', 'of its training')
    tensors = {key: array for key, array in tensors.items() if not key.startswith(BESIDE)}

    def name_of(key):
        # They count the decoder's blocks from the finest, diffusers in the order of computing.
        turned = lambda match: f'decoder.up_blocks.{depth - 1 - int(match.group(1))}.'
        key = re.sub(r'^decoder\.up\.(\d+)\.', turned, key)
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        return key

    return rename(tensors, name_of, where)
