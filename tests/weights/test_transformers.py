"""DINOv2 as the `transformers` package builds and names it. Skipped where torch or transformers are not installed."""

import jax.numpy as jnp
import numpy as np
import pytest

from re2pix_jax.weights import dinov2

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')


@pytest.mark.parametrize(('registers', 'swiglu'), [(0, False), (4, False), (0, True)])
@pytest.mark.parametrize('in_file', [True, False])
def test_every_layer_agrees(tmp_path, registers, swiglu, in_file):
    torch.manual_seed(0)
    sizes = {'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 3, 'image_size': 28, 'patch_size': 4,
             'mlp_ratio': 4, 'use_swiglu_ffn': swiglu}
    if registers:
        model = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes))
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        outputs = model.eval()(images, output_hidden_states=True)
        theirs = torch.cat([model.layernorm(outputs.hidden_states[index + 1]) for index in (0, 2)], dim=-1)
    if in_file:
        model.save_pretrained(tmp_path)
    else:  # its names in memory are others
        torch.save(model.state_dict(), tmp_path / 'model.bin')
    encoder = dinov2.convert(tmp_path / ('model.safetensors' if in_file else 'model.bin'), heads=3, layers=(0, 2))
    ours = encoder.encode(jnp.asarray(images.permute(0, 2, 3, 1).numpy())[:, None])
    theirs = theirs[:, 1 + registers:].reshape(2, 1, 7, 7, 48).numpy()
    assert np.abs(np.asarray(ours) - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert encoder.net.ffn == ('swiglu' if swiglu else 'mlp') and encoder.net.registers == registers
