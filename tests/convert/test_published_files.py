"""Published files as people have them: told by their first bytes, read where there is one right
way, else named for what they are.
"""

import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from re2pix_jax.convert import autoencoder_kl, dinov2, published, table, torch_file
from re2pix_jax.errors import UserError
from tests.convert import micro_files
from tests.convert.test_autoencoder_kl import DATA, FILE, assert_equal, flat
from tests.convert.torch_pickles import call, entries, literal, state_dict, tensor, write

FOUR = np.arange(4, dtype=np.float32)
ONE = tensor('0', 'FloatStorage', 4, (4,), (1,))


def values(path):
    return {name: np.asarray(array).tolist() for name, array in torch_file.tensors(path).items()}


@pytest.mark.parametrize('name', ['w.pth', 'w.ckpt', 'w.safetensors', 'w.bin'])
@pytest.mark.parametrize(
    ('first', 'said'),
    [
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n',
            'is a git-lfs pointer, .*: run `git lfs pull` in its folder',
        ),
        (b'\n<!DOCTYPE html><html>', 'is a web page .*: fetch the file itself'),
        (b'<?xml version="1.0"?><Error>', 'is a web page'),
        (b'', 'is empty, .*: fetch the file itself'),
        (b'{"error": "Repository not found"}', 'is JSON text without a weight_map'),
        (b'\x1f\x8b\x08\0', 'is a gzip archive, .*: unpack it'),
        (b'w'.ljust(257, b'\0') + b'ustar', 'is a tar archive'),
        (b'\x89HDF\r\n', 'is an HDF5 file'),
        (b'GGUF\3\0', 'is a GGUF file'),
        (b'\x93NUMPY\1', 'is a numpy array'),
        (b'\x80\x04}.', 'is a plain pickle'),
    ],
)
def test_other_files_are_named(tmp_path, name, first, said):
    (tmp_path / name).write_bytes(first)
    with pytest.raises(UserError, match=f'{name}: {said}') as caught:
        torch_file.tensors(tmp_path / name)
    assert '\n' not in str(caught.value)


def test_a_wrong_ending_does_no_harm(tmp_path):
    save_file({'w': FOUR}, tmp_path / 'w.pth')
    write(tmp_path / 'w.safetensors', entries(w=ONE), s0=FOUR)
    assert values(tmp_path / 'w.pth') == values(tmp_path / 'w.safetensors') == {'w': [0, 1, 2, 3]}
    with pytest.raises(UserError, match='w.pth: is a safetensors file: expected one that torch'):
        torch_file.read(tmp_path / 'w.pth')


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [('F8_E4M3', ml_dtypes.float8_e4m3fn), ('F8_E5M2', ml_dtypes.float8_e5m2)],
)
def test_8_bit_numbers(tmp_path, kind, dtype):
    def file_of(kind):
        entry = {'dtype': kind, 'shape': [2, 2], 'data_offsets': [4, 8]}
        first = {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}
        header = json.dumps({'a': first, 'w': entry}).encode()
        data = FOUR[1:2].tobytes() + FOUR.astype(dtype).tobytes()
        path = tmp_path / 'w.safetensors'
        path.write_bytes(len(header).to_bytes(8, 'little') + header + data)
        return path

    assert values(file_of(kind)) == {'a': [1], 'w': [[0, 1], [2, 3]]}
    with pytest.raises(UserError, match='tensor w is of type F8_E8M0, .* save it as F32'):
        torch_file.tensors(file_of('F8_E8M0'))
    later = tensor('0', 'UntypedStorage', 4, (3,), (1,), 1).replace(b'tensor_v2', b'tensor_v3')
    later = later.removesuffix(b'tR') + f'ctorch\n{np.dtype(dtype).name}\n'.encode() + b'tR'
    path = write(tmp_path / 'w.pth', entries(w=later), s0=FOUR.astype(dtype))
    assert values(path) == {'w': [1, 2, 3]}
    body = entries(w=tensor('0', 'ComplexFloatStorage', 2, (2,), (1,)))
    with pytest.raises(UserError, match='a tensor of torch.ComplexFloatStorage, which is not read'):
        torch_file.tensors(write(tmp_path / 'w.pth', body, s0=FOUR))


def test_broadcast_tensors(tmp_path):
    body = entries(w=tensor('0', 'FloatStorage', 4, (3, 4), (0, 1)))
    assert values(write(tmp_path / 'w.pth', body, s0=FOUR)) == {'w': [[0, 1, 2, 3]] * 3}
    body = entries(w=tensor('0', 'FloatStorage', 4, (1 << 23, 4), (0, 1)))
    with pytest.raises(UserError, match='reaches beyond its storage'):
        torch_file.tensors(write(tmp_path / 'w.pth', body, s0=FOUR))


def script(name, **state):
    return f'c__torch__.{name}\nModule\n)\x81'.encode('latin1') + entries(**state) + b'b'


def test_torchscript_archives(tmp_path):
    inner = script('Conv', training=literal(False), weight=ONE)
    path = write(tmp_path / 'w.pt', script('Net', conv=inner, scale=ONE), s0=FOUR)
    assert values(path) == {'conv.weight': [0, 1, 2, 3], 'scale': [0, 1, 2, 3]}
    with pytest.raises(UserError, match='is a TorchScript archive without named weights'):
        torch_file.tensors(write(path, script('Net', training=literal(False))))


def test_types_beside_the_weights_are_skipped(tmp_path):
    """As Lightning's files hold them: paths, callbacks, functions, sets, in any use of them."""
    extras = {
        'path': call('pathlib.PosixPath', literal('a')),
        'state': b'clightning\nCallback\n)\x81' + entries(best=ONE) + b'b',
        'items': b'ccollections\ndefaultdict\n(c__builtin__\nlist\ntR' + literal('k') + ONE + b's',
        'list': b'ca\nList\n)\x81(' + literal(1) + literal(2) + b'e',
        'type': b'ctorch.optim.adamw\nAdamW\n',
        'called': b'ca\nMaker\n)R)R',
        'inside': b'cargparse\nNamespace\n)R' + entries(x=call('omegaconf.DictConfig')) + b'b',
    }
    path = write(tmp_path / 'w.ckpt', entries(state_dict=entries(w=ONE), **extras), s0=FOUR)
    assert values(path) == {'w': [0, 1, 2, 3]}
    for name in ('path', 'type'):
        body = entries(state_dict=entries(w=ONE, v=extras[name]))
        with pytest.raises(UserError, match='its pickle asks for .*, which weights do not need'):
            torch_file.tensors(write(path, body, s0=FOUR))
    for name in ('os.system', 'builtins.eval', '__builtin__.getattr', 'posix.system'):
        body = entries(state_dict=entries(w=ONE), x=call(name, literal('1')))
        with pytest.raises(UserError, match=f'its pickle asks for {name}, .*refused'):
            torch_file.tensors(write(path, body, s0=FOUR))
    many = b'(' + b''.join(f'ca\nT{index}\n'.encode() for index in range(1001)) + b't'
    with pytest.raises(UserError, match='asks for 1000 types'):
        torch_file.tensors(write(path, entries(state_dict=entries(w=ONE), x=many), s0=FOUR))


@pytest.mark.parametrize(
    'front', ['module.', '_orig_mod.', 'backbone.', 'module._orig_mod.', '_orig_mod.module.']
)
def test_names_of_wrappers(tmp_path, front):
    tensors = {'a.w': FOUR, 'b': FOUR}
    path = state_dict(tmp_path / 'w.ckpt', {f'{front}{name}': tensors[name] for name in tensors})
    assert set(values(path)) == {'a.w', 'b'}
    state_dict(path, {'module.a': FOUR, 'b._orig_mod.w': FOUR})
    assert set(values(path)) == {'module.a', 'b.w'}
    state_dict(path, {'b.w': FOUR, 'b._orig_mod.w': FOUR})
    with pytest.raises(UserError, match='b.w and b._orig_mod.w are both b.w'):
        torch_file.tensors(path)


def test_the_one_state_dict(tmp_path):
    model = entries(w=ONE)
    optimizer = entries(state=b'}' + literal(0) + model + b's')
    path = write(tmp_path / 'w.pth', entries(model=model, optimizer=optimizer), s0=FOUR)
    assert values(path) == {'w': [0, 1, 2, 3]}
    with pytest.raises(UserError, match="holds several state dicts, 'model', 'ema': expected one"):
        torch_file.tensors(write(path, entries(model=model, ema=model), s0=FOUR))


def test_dinov2_as_its_training_saves_it(tmp_path):
    tensors = micro_files.published('dinov2')
    chunked = lambda name: name.replace('blocks.', 'blocks.0.', 1)
    teacher = {f'backbone.{chunked(name)}': array for name, array in tensors.items()}
    save_file(tensors, tmp_path / 'plain.safetensors')
    save_file(teacher | {'dino_head.mlp.0.weight': FOUR}, tmp_path / 'teacher.safetensors')
    plain, other = (
        dinov2.convert(tmp_path / f'{name}.safetensors', 2, (0, 1)) for name in ('plain', 'teacher')
    )
    assert plain.net == other.net
    np.testing.assert_array_equal(
        plain.params['params']['blocks']['attn']['qkv']['kernel'],
        other.params['params']['blocks']['attn']['qkv']['kernel'],
    )


@pytest.mark.parametrize('suffix', ['safetensors', 'bin'])
def test_models_in_several_files(tmp_path, suffix):
    stem = {'safetensors': 'model', 'bin': 'pytorch_model'}[suffix]
    names = [f'{stem}-0000{number}-of-00002.{suffix}' for number in (1, 2)]
    for name, key in zip(names, 'ab'):
        tensors = {f'module.{key}': FOUR}
        (save_file if suffix == 'safetensors' else lambda t, path: state_dict(path, t))(
            tensors, tmp_path / name
        )
    index = tmp_path / f'{stem}.{suffix}.index.json'
    places = {'module.a': names[0], 'module.b': names[1]}
    index.write_text(json.dumps({'metadata': {}, 'weight_map': places}))
    assert published._file(tmp_path) == index
    assert values(index) == {'a': [0, 1, 2, 3], 'b': [0, 1, 2, 3]}
    with pytest.raises(UserError, match='-of-00002.* is one of several files of a model'):
        published.convert('dinov2', str(tmp_path / names[0]), str(tmp_path / 'out'), {})
    index.write_text(json.dumps({'weight_map': places | {'module.c': names[1]}}))
    with pytest.raises(UserError, match=f"{names[1]}: 1 tensors do not match .*'module.c'"):
        torch_file.tensors(index)
    index.write_text(json.dumps({'weight_map': places}))
    (tmp_path / names[0]).unlink()
    with pytest.raises(UserError, match=f'lists {names[0]}, which is not beside it: fetch all'):
        torch_file.tensors(index)


LDM = (  # of diffusers' names, as CompVis' latent-diffusion has them
    ('mid_block.resnets.0', 'mid.block_1'),
    ('mid_block.resnets.1', 'mid.block_2'),
    ('mid_block.attentions.0.group_norm', 'mid.attn_1.norm'),
    ('mid_block.attentions.0.to_out.0', 'mid.attn_1.proj_out'),
    ('mid_block.attentions.0.to_', 'mid.attn_1.'),
    ('.resnets.', '.block.'),
    ('samplers.0', 'sample'),
    ('conv_shortcut', 'nin_shortcut'),
    ('conv_norm_out', 'norm_out'),
    ('encoder.down_blocks', 'encoder.down'),
)


@pytest.mark.parametrize('front', ['', 'first_stage_model.'])
@pytest.mark.parametrize('name', ['sd_vae', 'flux_vae'])
def test_latent_diffusions_names(tmp_path, name, front):
    folder = pathlib.Path(shutil.copytree(DATA / name, tmp_path / 'model'))
    depth = len(json.loads((folder / 'config.json').read_text())['block_out_channels'])
    tensors = {}
    for key, array in load_file(folder / FILE).items():
        for old, new in LDM:
            key = key.replace(old, new)
        for block in range(depth):
            key = key.replace(f'decoder.up_blocks.{block}.', f'decoder.up.{depth - 1 - block}.')
        is_projection = '.attn_1.' in key and array.ndim == 2
        tensors[f'{front}{key}'] = array[..., None, None] if is_projection else array
    assert f'{front}decoder.up.{depth - 1}.upsample.conv.weight' in tensors
    tensors[f'{front}loss.logvar'] = FOUR
    if front:
        tensors['model.diffusion_model.out.0.weight'] = FOUR
    save_file(tensors, folder / 'whole.safetensors')
    with table.notes() as notes:
        assert_equal(flat(folder / 'whole.safetensors'), flat(DATA / name))
    assert len(notes) == (2 if front else 1) and 'loss.logvar (of its training)' in notes
    (folder / 'config.json').unlink()
    with pytest.raises(UserError, match='pass --scaling_factor and --shift_factor'):
        autoencoder_kl.convert(folder / 'whole.safetensors')
