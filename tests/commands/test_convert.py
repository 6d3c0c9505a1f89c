"""The convert command: published files in, bundles out; and what it says of files that are not what
they should be.
"""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import re2pix_jax
from re2pix_jax import bundles
from re2pix_jax.convert import dinov2
from tests.commands.convert_lines import (
    BAD,
    BAD_PUBLISHED,
    EVIL,
    GOOD,
    MISUSED,
    OTHERS,
    PUBLISHED,
)
from tests.conftest import ROOT
from tests.convert import torch_pickles
from tests.convert.micro_files import CHANNELS, DATA, forecaster_tensors, principal_file, published
from tests.convert.torch_pickles import entries, literal
from tests.running import outcomes as run_commands

GOLDEN = ROOT.parent / 'shared' / 'golden' / 'dino_foresight_small'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    tensors = published('dinov2')
    bias = next(name for name in tensors if name.endswith('norm1.bias'))
    for name, change in (
        ('dinov2', {}),
        ('shape', {bias: np.zeros(5, np.float16)}),
        (
            'more',
            {'head.weight': np.zeros((2, 2), np.float16), 'head.bias': np.zeros(2, np.float16)},
        ),
    ):
        save_file({**tensors, **change}, folder / f'{name}.safetensors')
    (folder / 'cut.safetensors').write_bytes((folder / 'dinov2.safetensors').read_bytes()[:-100])
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    save_file(rounded, folder / 'bfloat16.safetensors')
    torch_pickles.state_dict(folder / 'bfloat16.pth', rounded)
    save_file(published('dinov3'), folder / 'dinov3.safetensors')
    (folder / 'lone').mkdir()
    (folder / 'lone' / 'vae.safetensors').write_bytes(
        (DATA / 'sd_vae' / 'diffusion_pytorch_model.safetensors').read_bytes()
    )
    forecaster = forecaster_tensors()
    records = {
        'micro': {'args': {'heads': 2, 'd_layers': [0, 1], 'img_size': [4, 6]}},
        'strange': {'heads': 'two', 'img_size': [8]},
        'list': ['heads', 2],
    }
    for name, record in records.items():
        torch_pickles.state_dict(
            folder / f'{name}.ckpt', forecaster, hyper_parameters=literal(record)
        )
    head = {f'head.{name}': np.ones(1, np.float32) for name in ('scale', 'bias')}
    torch_pickles.state_dict(folder / 'bare.ckpt', forecaster | head)
    principal_file(folder / 'pca.pth', 6, CHANNELS)
    principal_file(folder / 'wide.pth', 6, 24)
    principal_file(folder / 'fewer.pth', 20, 96)
    model = b'cargparse\nNamespace\n)R' + literal({'mean_': ['a'], 'components_': ['b']}) + b'b'
    torch_pickles.write(
        folder / 'words.pth', entries(pca_model=model, mean=literal(['c']), std=literal(None))
    )
    bundles.save(
        folder / 'encoder', dinov2.convert(folder / 'dinov2.safetensors', 2, (0, 1), (8, 12))
    )
    (folder / 'empty').mkdir()
    (folder / 'letters').mkdir()
    (folder / 'letters' / 'one').write_text('dear reader')
    (folder / 'evil').mkdir()
    (folder / 'evil' / 'config.json').write_text(
        '{"_class_name": "AutoencoderKL", "model_type": "dinov3_vit"}'
    )
    for name, (body, _) in torch_pickles.malicious(folder / 'proof').items():
        for suffix in ('.pth', '.ckpt', '.bin'):
            torch_pickles.write(
                folder / 'evil' / f'{name.replace(" ", "_")}{suffix}', entries(state_dict=body)
            )
        torch_pickles.write_old(
            folder / 'evil' / f'{name.replace(" ", "_")}.pt', entries(state_dict=body)
        )
    for name in MISUSED:
        for suffix, write in (('.pth', torch_pickles.write), ('.pt', torch_pickles.write_old)):
            write(
                folder / 'evil' / f'{name.replace(" ", "_")}{suffix}',
                torch_pickles.misused()[name],
                s0=np.zeros(4, np.float32),
            )
    return folder


@pytest.fixture(scope='module')
def outcomes(folder, tmp_path_factory):
    """{name: (status, stdout, stderr, out folder)} of every command line above."""
    outs = tmp_path_factory.mktemp('bundles')
    lines = {name: line for name, (line, _) in (BAD | EVIL | OTHERS).items()} | GOOD
    if GOLDEN.is_dir():
        lines |= PUBLISHED | {name: line for name, (line, _) in BAD_PUBLISHED.items()}
    commands = {
        name: line.format(
            dir=folder, out=outs / name.replace(' ', '_'), golden=GOLDEN, data=DATA
        ).split()
        for name, line in lines.items()
    }
    found = run_commands(
        'convert',
        commands,
        {'full disk': 2000},
        HF_HUB_OFFLINE='1',
    )
    return {name: (*outcome, outs / name.replace(' ', '_')) for name, outcome in found.items()}


@pytest.mark.parametrize('name', [*BAD, *EVIL, *BAD_PUBLISHED])
def test_bad_input_is_one_line_and_leaves_nothing(name, outcomes):
    if name not in outcomes:
        pytest.skip("the authors' files are not here")
    status, out, error, destination = outcomes[name]
    assert (status, out) == (2, '') and error.startswith('error: ') and error.count('\n') == 1, (
        error
    )
    assert re.search((BAD | EVIL | BAD_PUBLISHED)[name][1], error), error
    assert (
        not destination.exists()
        and not destination.with_name(f'{destination.name}.partial').exists()
    )


def test_no_malicious_file_was_obeyed(outcomes, folder):
    assert all(outcomes[name][0] == 2 for name in EVIL)
    assert (folder / 'evil').is_dir() and not (folder / 'proof').exists()


@pytest.mark.parametrize('name', GOOD)
def test_a_bundle_is_written_and_round_trips(name, outcomes, tmp_path):
    status, out, error, destination = outcomes[name]
    assert status == 0 and re.search(r'dinov2, [\d,]+ parameters from', out), error
    encoder = bundles.load(destination, 'encoder')
    assert encoder.image_size == ((16, 24) if name == 'dinov2' else None)
    about = json.loads((destination / 'config.json').read_text())['about']
    assert about['converted from'].startswith('dinov2 ') and len(about['sha256']) == 64
    bundles.save(tmp_path / 'again', encoder, storage='float16' if name == 'half' else 'float32')
    assert (tmp_path / 'again' / 'weights.safetensors').read_bytes() == (
        destination / 'weights.safetensors'
    ).read_bytes()


def test_bfloat16_files_are_cast(outcomes):
    whole, *rounded = (
        bundles.read(outcomes[name][3]).tensors
        for name in ('dinov2', 'bfloat16', 'bfloat16 of torch')
    )
    for tensors in rounded:
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(
                tensor, np.asarray(whole[name]).astype(ml_dtypes.bfloat16).astype(np.float32)
            )


@pytest.mark.parametrize('name', OTHERS)
def test_what_is_left_out_is_named_in_one_line(name, outcomes):
    status, out, error, destination = outcomes[name]
    assert status == 0, error
    first, *more = out.splitlines()
    assert ' parameters from ' in first and len(more) == (OTHERS[name][1] is not None)
    assert all(
        line.startswith(f'{destination}: left out on purpose: ')
        and re.search(OTHERS[name][1], line)
        for line in more
    ), more


def test_options_are_obeyed(outcomes):
    part = {name: bundles.load(outcomes[name][3]) for name in OTHERS}
    assert (part['dinov3'].net.heads, part['dinov3'].net.layers, part['dinov3'].image_size) == (
        1,
        (0, 1),
        (8, 12),
    )
    assert (part['vae'].scaling_factor, part['vae'].shift_factor) == (0.5, 0.25)
    for name in ('recorded', 'not recorded', 'other parts'):
        forecaster = part[name]
        assert (
            forecaster.net.heads,
            forecaster.encoder.net.heads,
            forecaster.encoder.net.layers,
        ) == (2, 2, (0, 1))
        assert forecaster.encoder.image_size == ((8, 12) if name == 'other parts' else (4, 6))


needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the authors' files are not here")


def difference(name, ours, theirs):
    """Prints and returns the largest difference over the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    print(f'{name}: largest relative error {error:.1e}')
    return error


@pytest.fixture(scope='module')
def authors(outcomes):
    """(the authors' files, converted by the command and opened, by name; the numbers that their
    code computed with them).
    """
    for name in PUBLISHED:
        assert outcomes[name][0] == 0, outcomes[name][2]
    expected = dict(np.load(GOLDEN / 'expected.npz'))
    expected['images'] = expected.pop('images_bt3hw').transpose(0, 1, 3, 4, 2)
    return {name: re2pix_jax.load(outcomes[name][3]) for name in PUBLISHED}, expected


@needs_golden
@pytest.mark.parametrize('name', ['dinov2 of a hub', 'dino-foresight'])
def test_the_authors_features(authors, name):
    parts, expected = authors
    features = getattr(parts[name], 'encode_features', None) or parts[name].encode
    assert (
        difference(
            'features',
            features(expected['images']).reshape(10, 32, 96),
            expected['encoder_features_bnc'],
        )
        < 1e-5
    )


@needs_golden
def test_the_authors_components_and_prediction(authors):
    parts, expected = authors
    forecaster, truth = parts['dino-foresight'], expected['predicted_pca_bthwc']
    # The PCA file, unlike the checkpoint, knows how much each component explains.
    assert forecaster.net.components == 36 and 0 < float(forecaster.principal.variance.sum()) <= 1
    components = forecaster.encode(expected['images'])
    features = forecaster.principal.project(
        expected['encoder_features_bnc'].reshape(2, 5, 4, 8, 96)
    )
    for name, ours in (('frames to components', components), ('features to components', features)):
        assert difference(name, ours, expected['pca_features_bthwc']) < 1e-5
    assert (
        difference('and back', forecaster.features(truth), expected['predicted_features_bthwc'])
        < 1e-5
    )
    assert (
        difference('prediction', forecaster.forecast(components[:, :4], 1)[:, 0], truth[:, -1])
        < 1e-5
    )
    half = forecaster.replace(net=forecaster.net.clone(dtype='bfloat16'))
    assert (
        difference(
            'prediction in bfloat16', half.forecast(components[:, :4], 1)[:, 0], truth[:, -1]
        )
        < 2e-2
    )


@needs_golden
def test_the_authors_roll_out(authors):
    parts, expected = authors
    forecaster, window = (
        parts['dino-foresight'],
        expected['unrolled_features_bthwc'],
    )  # frame 4, predictions 1, 2, 3, and 3 again
    rolled = forecaster.features(
        forecaster.forecast(forecaster.encode(expected['images'])[:, :4], 3)
    )
    assert difference('three steps', rolled, window[:, 1:4]) < 1e-4


@needs_golden
def test_the_authors_head(authors):
    parts, expected = authors
    head, features, truth = (
        parts['dpt-head'],
        expected['predicted_features_bthwc'][:, -1:],
        expected['segm_logits_bkhw'],
    )
    assert head.net.classes == 19
    for dtype, limit in (('float32', 1e-5), ('bfloat16', 2e-2)):
        logits = head.replace(net=head.net.clone(dtype=dtype)).logits(features)
        assert difference(f'logits in {dtype}', logits[:, 0].transpose(0, 3, 1, 2), truth) < limit
