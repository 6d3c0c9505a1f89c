"""`re2pix plan`: real programs, compiled for devices that are not here; what users get wrong."""

import json

import pytest

from re2pix_jax.planning import chips
from tests import running

SMALL = (
    *('--config=judge:tiny', '--config.model.widths=(8,16)', '--config.model.reads=4'),
    *('--config.data.size=(16,16)', '--config.batch_size=8'),
)


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp('plan')
    commands = {
        'step': [*SMALL, '--topology=h100:4', f'--json={folder}/plan.json'],
        'several': [*SMALL, '--clips=2', '--topology=h100:2,h100:4'],
        'topology': ['--config=judge:tiny', '--topology=v9:4x4'],
        'none': ['--config=judge:tiny'],
        'nothing': ['--topology=h100:4'],
        'predict': [*SMALL, '--topology=h100:4', '--for=predict'],
        'search': ['judge:tiny', 'generator:tiny', '--topology=h100:4', '--search'],
        'no task': ['evaluate', '--topology=h100:4'],
        'called': ['vae:tiny', '--topology=h100:4'],
        'misspelt': ['forecast:base', '--topology=h100:4'],
        'fits': ['judge:tiny', '--fits'],
        'beside': ['generator:tiny', '--fits', '--clips=3'],
        'many': ['generator:tiny', '--fits', '--topology=h100:2'],
        'batch': [*SMALL, '--config.batch_size=6', '--topology=h100:4'],
    }
    return running.outcomes('plan', commands), folder


def test_a_step_is_planned_without_its_devices(ran):
    (status, printed, errors), folder = ran[0]['step'], ran[1]
    assert status == 0, errors
    assert 'judge:tiny' in printed and '4 x H100' in printed and 'all-reduce' in printed
    (plan,) = json.loads((folder / 'plan.json').read_text())
    assert plan['fits'] and plan['devices'] == 4 and plan['gathered_activations'] == 0
    # The gradients alone have to travel.
    sent = sum(row['travels'] * row['times'] for row in plan['transfers'])
    assert 0 < sent < 4 * plan['state']
    assert plan['mfu_bound'] <= 1 and plan['seconds']['compute'] > 0


def test_several_topologies_make_a_table(ran):
    status, printed, errors = ran[0]['several']
    assert status == 0, errors
    rows = [line.split() for line in printed.splitlines() if line.startswith('judge:tiny')]
    assert [row[1] for row in rows] == ['h100:2', 'h100:4']
    assert rows[0][-1] == '100.0%'  # the first is what the others are compared with
    assert [row[5] for row in rows] == ['4', '8']  # clips a device: the batch grows with them
    assert 80 < float(rows[1][-1].rstrip('%')) <= 100


@pytest.mark.parametrize(
    ('case', 'message'),
    [
        ('topology', '--topology=v9:4x4: expected one of v5e, v5p, v6e, h100'),
        ('none', '--topology: expected the devices, as in --topology=v5e:4x4 or h100:8'),
        ('nothing', 're2pix plan: give --config=NAME, or names of configs'),
        ('predict', '--for=predict: expected a generator config, got one of task judge'),
        ('search', '--search: expected one config and one topology'),
        ('no task', 'evaluate: trains nothing; expected one of autoencoder, encoder, principal'),
        ('called', 'vae:tiny: trains nothing; did you mean autoencoder:tiny? expected one of'),
        ('misspelt', 'forecast:base: trains nothing; did you mean forecaster:tiny? expected one'),
        ('fits', '--fits: expected generator configs, got judge:tiny of task judge'),
        ('beside', '--fits: looks at all purposes and batches; leave out --clips'),
        ('many', '--fits: expected single devices, got --topology=h100:2'),
        ('batch', 'batch_size is 6 but mesh.data x mesh.fsdp is 4 devices: choose a multiple of 4'),
    ],
)
def test_what_is_wrong_is_said_in_a_line(ran, case, message):
    status, _, errors = ran[0][case]
    assert status == 2 and message in errors, errors
    assert 'Traceback' not in errors


def test_topologies():
    assert chips.parse('v5e:4x4').count == 16 and chips.parse('v5p:4x4x4').count == 64
    assert chips.parse('v5e:8x8').hosts == 16 and chips.parse('h100:8').hosts == 1
    assert chips.parse('cpu').count == 1 and chips.parse('h200').count == 1
    for wrong in ('v5e', 'v5e:16', 'v5p:4x4', 'h100:2x2', 'h100:0', 'v5e:4x-4'):
        with pytest.raises(chips.UserError, match='expected a shape as in'):
            chips.parse(wrong)


@pytest.mark.slow
def test_a_tpu_slice_by_its_own_compiler(tmp_path):
    pytest.importorskip('libtpu')
    commands = {'tpu': [*SMALL, '--topology=v5e:2x2']}
    status, printed, errors = running.outcomes('plan', commands)['tpu']
    assert status == 0, errors
    assert '4 x TPU v5 lite' in printed
