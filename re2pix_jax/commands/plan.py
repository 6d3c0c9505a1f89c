r"""Plans a training or a prediction on devices that need not be here.

    re2pix plan --config=generator:base-xl --topology=v5e:8x8
    re2pix plan --config=generator:base --topology=h100:8 --for=predict --config.batch_size=8
    re2pix plan --config=generator:base-xl --topology=v5e:4x4 --search
    re2pix plan generator:base forecaster_lowres --topology=v5e:4x4,v5p:4x4x4 --json=plans.json

The real step, or the real roll-out, is compiled for the devices: TPUs by libtpu (`pip install
libtpu`), minutes each, with layers as a loop (train there with --config.model.unroll=False); GPUs
and CPUs as so many devices of this one. What it says of time is a bound: nominal rates, everything
hidden behind what takes longest. With names instead of --config, or several topologies, one table.
"""

import json
import os
import pathlib

os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there need be no TPU here

from re2pix_jax.commands import cli  # isort: skip

# isort: split
from absl import flags

from re2pix_jax import files
from re2pix_jax.commands import _config
from re2pix_jax.errors import UserError
from re2pix_jax.planning import chips, plan, programs
from re2pix_jax.progress import track
from re2pix_jax.tasks import recipes

_CONFIG = cli.config_flag(required=False)
_TOPOLOGY = flags.DEFINE_list('topology', [], 'Devices: v5e:4x4, v5p:4x4x4, v6e:8x8, h100:8, cpu.')
_FOR = flags.DEFINE_enum('for', 'train', ['train', 'predict'], 'What is planned.')
_HORIZON = flags.DEFINE_integer('horizon', 8, 'Frames of a prediction.', lower_bound=1)
_SEARCH = flags.DEFINE_bool('search', False, 'Tries sharding and remat, and recommends.')
_JSON = flags.DEFINE_string('json', '', 'Where to write the plans as JSON, too.')
ARGUMENTS = None  # names of configs, any number of them
REMOTE = ('json',)


def main(argv):
    if not argv[1:] and _CONFIG.value is None:
        raise UserError('re2pix plan: give --config=NAME, or names of configs')
    if argv[1:]:
        names, asked = argv[1:], [_config.load(name) for name in argv[1:]]
    else:
        names, asked = [_short(flags.FLAGS['config'].config_filename)], [_CONFIG.value]
    for name, config in zip(names, asked, strict=True):
        if 'task' not in config:
            raise UserError(f'{name}: trains nothing; expected a config of `re2pix recipes`')
    if not _TOPOLOGY.value:
        raise UserError('--topology: expected the devices, as in --topology=v5e:4x4 or h100:8')
    topologies = [chips.parse(name) for name in _TOPOLOGY.value]
    if _SEARCH.value and len(asked) * len(topologies) > 1:
        raise UserError('--search: expected one config and one topology')
    jobs = [(*pair, to) for pair in zip(names, asked, strict=True) for to in topologies]
    if _SEARCH.value:
        jobs = [(name, variant, to) for name, config, to in jobs for variant in _variants(config)]
    programs.make_room(topologies)
    tracked = track(jobs, len(jobs), 'compiling', 'program', size=lambda _: 1)
    plans = [_plan(*job) for job in tracked]
    if _JSON.value:
        text = json.dumps([one.as_dict() for one in plans], indent=1)
        files.write_text(_JSON.value, text)
    if len(plans) == 1:
        print(plan.describe(plans[0]))
        return
    print(plan.compare(plans))
    if _SEARCH.value:
        print(f'\n{plan.recommend(plans)}')


def _short(file):
    """'.../configs/generator.py:base' → 'generator:base'."""
    path, colon, variant = file.partition('.py:')
    return f'{pathlib.Path(path).stem}{colon and ":"}{variant}'


def _plan(name, config, topology):
    devices = programs.devices_of(topology)
    if topology.chip.platform == 'tpu' and config.model.get('unroll'):
        # Layer by layer its compiler takes no end: the same step, as a loop.
        config = config.copy_and_resolve_references()
        config.model.unroll = False
    parts = recipes.abstract_parts(_config.load, recipes.size_of(name))
    if _FOR.value == 'train':
        program = programs.step(config, parts, devices)
        return plan.make(name, 'step', config, topology, program)
    program = programs.prediction(config, parts, devices, _HORIZON.value)
    return plan.make(name, 'prediction', config, topology, program)


def _variants(config):
    """Of a config, in how its state lies and whether layers are computed again."""
    for sharding in ('replicate', 'fsdp'):
        for remat in (False, True) if 'remat' in config.model else (False,):
            variant = config.copy_and_resolve_references()
            variant.sharding = sharding
            if 'remat' in variant.model:
                variant.model.remat = remat
            yield variant
