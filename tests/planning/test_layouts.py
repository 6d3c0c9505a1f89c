"""What travels in the real steps: no activation is gathered, whatever way the state is cut."""

import pytest

from tests import running

PLANNED = """
from re2pix_jax.commands import _config
from re2pix_jax.planning import chips, plan, programs
from re2pix_jax.tasks import recipes
from re2pix_jax.training import sharding

sharding.SMALLEST, plan.LEAST = 0, 4096  # a clip of activations has more
topology = chips.parse('cpu:8')
programs.make_room([topology])
parts = recipes.abstract_parts(_config.load, 'tiny')
for name in ('forecaster:tiny', 'generator:tiny'):
    config = _config.load(name)
    config.model.update(width=48, depth=2, heads=4)
    config.batch_size, config.optimizer.name = 16, 'adamw'  # muon gathers what it turns
    for fsdp in (1, 4):
        config.mesh.fsdp = fsdp
        made = plan.make(name, 'step', config, topology, programs.step(config, parts, topology))
        kinds = ','.join(sorted({row.kind for row in made.transfers}))
        print(name, fsdp, kinds, [row for row in made.gathered])
"""


@pytest.mark.long
def test_no_activation_is_gathered():
    done = running.on_eight_devices(PLANNED)
    assert done.returncode == 0, done.stderr
    lines = [line.split(' ', 3) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        [name, fsdp] for name in ('forecaster:tiny', 'generator:tiny') for fsdp in ('1', '4')
    ]
    for name, fsdp, kinds, gathered in lines:
        assert gathered == '[]', (name, fsdp, gathered)
        assert ('all-gather' in kinds) == (fsdp == '4'), (name, fsdp, kinds)  # parameters, if cut
