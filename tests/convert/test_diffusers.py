"""AutoencoderKL as the `diffusers` package builds and names it. Skipped where torch or diffusers
are not installed.
"""

import jax
import numpy as np
import pytest

from re2pix_jax.convert import autoencoder_kl

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

KINDS = {  # the two published kinds, made small
    'stable_diffusion': {'latent_channels': 4, 'scaling_factor': 0.18215},
    'flux': {
        'latent_channels': 16,
        'scaling_factor': 0.3611,
        'shift_factor': 0.1159,
        'use_quant_conv': False,
        'use_post_quant_conv': False,
    },
}


def random_model(widths=(8, 16, 24), groups=4, seed=0, **settings):
    torch.manual_seed(seed)
    model = diffusers.AutoencoderKL(
        block_out_channels=widths,
        norm_num_groups=groups,
        down_block_types=('DownEncoderBlock2D',) * len(widths),
        up_block_types=('UpDecoderBlock2D',) * len(widths),
        **settings,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(float('norm' in name and name.endswith('weight')), fan_in**-0.5)
    return model.eval()


def to_torch(images):
    return torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())


def to_numpy(images):
    return images.permute(0, 2, 3, 1).numpy()


def difference(name, ours, theirs):
    error = np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()
    print(f'{name}: largest relative error {error:.1e}')
    return error


@pytest.mark.parametrize('kind', KINDS)
def test_both_kinds_agree_on_a_non_square_image(tmp_path, kind):
    model = random_model(layers_per_block=2, **KINDS[kind])
    model.save_pretrained(tmp_path)
    ours = autoencoder_kl.convert(tmp_path)
    scale, shift = KINDS[kind]['scaling_factor'], KINDS[kind].get('shift_factor', 0.0)
    assert (ours.scaling_factor, ours.shift_factor, ours.net.latent_channels) == (
        scale,
        shift,
        KINDS[kind]['latent_channels'],
    )
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    latents = rng.normal(size=(2, 4, 6, ours.net.latent_channels)).astype(np.float32)
    with torch.no_grad():
        posterior = model.encode(to_torch(frames)).latent_dist
        decoded = to_numpy(model.decode(to_torch(latents) / scale + shift).sample)
    mean, logvar = ours.moments(frames[None])
    assert difference(f'{kind} mean', mean[0], to_numpy(posterior.mean)) < 1e-5
    assert difference(f'{kind} log-variance', logvar[0], to_numpy(posterior.logvar)) < 1e-5
    decode = jax.jit(lambda params, z: ours.net.apply(params, z, method='decode'))
    assert (
        difference(f'{kind} decoded', decode(ours.params, latents / scale + shift), decoded) < 1e-5
    )
    half = ours.net.clone(dtype='bfloat16')
    encode = jax.jit(lambda params, x: half.apply(params, x, method='encode')[0])
    decode = jax.jit(lambda params, z: half.apply(params, z, method='decode'))
    assert (
        difference(f'{kind} mean, bfloat16', encode(ours.params, frames), to_numpy(posterior.mean))
        < 2e-2
    )
    assert (
        difference(
            f'{kind} decoded, bfloat16', decode(ours.params, latents / scale + shift), decoded
        )
        < 2e-2
    )


def test_torch_files_hold_the_same(tmp_path):
    model = random_model(widths=(8, 8), layers_per_block=1, **KINDS['flux'])
    model.save_pretrained(tmp_path / 'safe')
    model.save_pretrained(tmp_path / 'torch', safe_serialization=False)
    assert (tmp_path / 'torch' / 'diffusion_pytorch_model.bin').is_file()
    safe, from_torch = (autoencoder_kl.convert(tmp_path / name) for name in ('safe', 'torch'))
    jax.tree.map(np.testing.assert_array_equal, from_torch.params, safe.params)


def test_tiles_blend_as_theirs(tmp_path):
    """14x14 latents in tiles of 8 that share 2: both start tiles at 0 and 6. Theirs add narrow ones
    at 12, and weigh the corners that four tiles share otherwise: both are left out.
    """
    model = random_model(widths=(8, 8), layers_per_block=1, **KINDS['stable_diffusion'])
    model.save_pretrained(tmp_path)
    model.tile_latent_min_size, model.tile_sample_min_size = 8, 16
    ours = autoencoder_kl.convert(tmp_path, scaling_factor=1.0).replace(tile=8)
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (1, 28, 28, 3)).astype(np.float32)
    latents = 0.1 * rng.normal(size=(1, 14, 14, 4)).astype(np.float32)
    with torch.no_grad():
        moments = to_numpy(model._tiled_encode(to_torch(frames)))
        decoded = to_numpy(model.tiled_decode(to_torch(latents)).sample)
    same = np.ones((12, 12), bool)
    same[6:8, 6:8] = False
    mean = ours.moments(frames[None])[0][0, 0, :12, :12]
    assert difference('tiled mean', mean[same], moments[0, :12, :12, :4][same]) < 1e-5
    same = same.repeat(2, 0).repeat(2, 1)
    images = ours.decode_float(latents[None])[0, 0, :24, :24]
    assert (
        difference('tiled decoded', images[same], np.clip(decoded, -1, 1)[0, :24, :24][same]) < 1e-5
    )
