"""The shipped recipes on slices of TPUs, by their own compiler: what README's table rests on."""

import json
import subprocess
import sys

import pytest

from re2pix_jax.planning.chips import GIB
from tests import running
from tests.conftest import ROOT

FILE = ROOT / 'tests' / 'planning' / 'slices.json'
PLANNED = json.loads(FILE.read_text())
"""[{config, topology, mesh, remat, GiB a device, operations compiled over traced, MB that a device
sends by kind of collective}].
Anew: `re2pix plan CONFIGS --topology=... --cut_to_fit --json=plans.json` and `python -m
tests.planning.test_slices plans.json ...`."""
WITHIN = 0.1
STRIPS = 'autoencoder:base'
"""Images so large and so few a device are cut into strips by a TPU's compiler, whose convolutions
then overlap by the width of a kernel: operations that nobody asked for.
"""


def essentials(plan: dict) -> dict:
    """What is pinned of a plan as `--json` writes it."""
    sent = {}
    for row in plan['transfers']:
        sent[row['kind']] = sent.get(row['kind'], 0) + row['travels'] * row['times'] / 1e6
    return {
        'config': plan['name'],
        'topology': plan['topology'],
        'mesh': plan['mesh'],
        'remat': plan['remat'],
        'gib': round(plan['peak'] / GIB, 2),
        'operations': round(plan['counted'] / plan['traced'], 3),
        'sent_mb': {kind: round(sent[kind], 1) for kind in sorted(sent)},
    }


@pytest.mark.parametrize('pinned', PLANNED, ids=lambda one: f'{one["config"]}-{one["topology"]}')
def test_what_is_compiled_is_what_is_traced(pinned):
    if pinned['config'] != STRIPS:
        assert pinned['operations'] == pytest.approx(1, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize('pinned', PLANNED, ids=lambda one: f'{one["config"]}-{one["topology"]}')
def test_a_recipe_on_a_slice(pinned, tmp_path):
    if not pinned['topology'].startswith('h100'):
        pytest.importorskip('libtpu')
    subprocess.run(
        [
            *(sys.executable, '-m', 're2pix_jax', 'plan', f'--config={pinned["config"]}'),
            *(f'--config.mesh.{axis}={size}' for axis, size in pinned['mesh'].items()),
            *(['--config.model.remat=true'] if pinned['remat'] else []),
            *(f'--topology={pinned["topology"]}', f'--json={tmp_path}/plan.json'),
        ],
        cwd=ROOT,
        env=running.environment(1, JAX_DISABLE_MOST_OPTIMIZATIONS='false', XLA_FLAGS=''),
        check=True,
    )
    (plan,) = json.loads((tmp_path / 'plan.json').read_text())
    assert plan['fits'] and plan['gathered_activations'] == 0
    found = essentials(plan)
    assert found['gib'] == pytest.approx(pinned['gib'], rel=WITHIN)
    assert found['operations'] == pytest.approx(pinned['operations'], abs=0.01)
    assert found['mesh'] == pinned['mesh'] and found['sent_mb'].keys() == pinned['sent_mb'].keys()
    for kind, sent in pinned['sent_mb'].items():
        assert found['sent_mb'][kind] == pytest.approx(sent, rel=2 * WITHIN, abs=1), kind


if __name__ == '__main__':
    plans = [plan for file in sys.argv[1:] for plan in json.loads(open(file).read())]
    pinned = [essentials(plan) for plan in plans if plan['fits']]
    FILE.write_text(json.dumps(pinned, indent=1) + '\n')
