r"""Plans a training or a prediction on devices that need not be here.

    re2pix plan --config=generator:base-xl --topology=v5e:8x8
    re2pix plan --config=generator:base --topology=h100:8 --for=predict --config.batch_size=8
    re2pix plan --config=generator:base-xl --topology=v5e:4x4 --search
    re2pix plan generator:base forecaster_lowres --topology=v5e:4x4,v5p:4x4x4 --json=plans.json
    re2pix plan generator:base-xl --topology=v5e:4x4,v5e:8x8,v5e:16x16 --clips=4 --cut_to_fit
    re2pix plan --fits

The real step, or the real roll-out, is compiled for the devices: TPUs by libtpu (`pip install
libtpu`), minutes each; GPUs and CPUs as so many devices of this one. What is compiled is kept, so
that a table that was cut off goes on. What it says of time is a bound: nominal rates, everything
hidden behind what takes longest. With names instead of --config, or several topologies, one table.
With --fits another: how many clips each device takes, to predict, to fine-tune and to train.
"""

import dataclasses
import difflib
import functools
import json
import os
import pathlib

os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # there need be no TPU here
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')  # nothing is run: others may be at it

from re2pix_jax.commands import cli  # isort: skip

# isort: split
from absl import flags

from re2pix_jax import files
from re2pix_jax.commands import _config, _interrupt
from re2pix_jax.errors import UserError
from re2pix_jax.planning import chips, fits, plan, programs
from re2pix_jax.progress import track
from re2pix_jax.tasks import recipes
from re2pix_jax.training import mesh as meshes

_CONFIG = cli.config_flag(required=False)
_TOPOLOGY = flags.DEFINE_list('topology', [], 'Devices: v5e:4x4, v5p:4x4x4, v6e:8x8, h100:8, cpu.')
_FOR = flags.DEFINE_enum(
    'for',
    'train',
    ['train', 'finetune', 'predict'],
    'What is planned; of `re2pix finetune`, its step.',
)
_HORIZON = flags.DEFINE_integer('horizon', 8, 'Frames of a prediction.', lower_bound=1)
_CLIPS = flags.DEFINE_integer(
    'clips', None, 'Clips a device, in the place of config.batch_size.', lower_bound=1
)
_CUT = flags.DEFINE_bool(
    'cut_to_fit', False, 'mesh.fsdp=-1 or model.remat, or both, where it does not fit without.'
)
_FILL = flags.DEFINE_bool('fill_devices', False, 'As that of `re2pix train`.')
_SEARCH = flags.DEFINE_bool('search', False, 'Tries fsdp and remat, and recommends.')
_FITS = flags.DEFINE_bool('fits', False, 'How many clips single devices take.')
_JSON = flags.DEFINE_string('json', '', 'Where to write the plans as JSON, too.')
ARGUMENTS = None  # names of configs, any number of them
SINGLE = 'rtx4060', 'rtx4080', 'rtx4090', 'h100', 'v5e:1x1', 'v6e:1x1'
SIZES = 'generator:tiny', 'generator:small', 'generator:base', 'generator:base-xl'
"""What --fits looks at where nothing else is named."""
CALLED = {'vae': 'autoencoder', 'pca': 'principal', 'dit': 'generator', 'unet': 'generator'}
"""Config that trains what is called so elsewhere."""
REMOTE = ('json',)


def main(argv):
    asked = _asked(argv[1:])
    for name, config in asked:
        if 'task' not in config:
            raise UserError(f'{name}: trains nothing; expected a config of `re2pix recipes`')
    given = _TOPOLOGY.value or (SINGLE if _FITS.value else ())
    if not given:
        raise UserError('--topology: expected the devices, as in --topology=v5e:4x4 or h100:8')
    topologies = [chips.parse(name) for name in given]
    if _FITS.value:
        beside = _SEARCH, _CUT, _CLIPS, _FOR, _FILL
        odd = [flag.name for flag in beside if flag.value != flag.default]
        if odd:
            raise UserError(f'--fits: looks at all purposes and batches; leave out --{odd[0]}')
        _print_fits(asked, topologies)
        return
    if _SEARCH.value and len(asked) * len(topologies) > 1:
        raise UserError('--search: expected one config and one topology')
    jobs = [(*pair, to) for pair in asked for to in topologies]
    if _SEARCH.value:
        jobs = [(name, variant, to) for name, config, to in jobs for variant in _variants(config)]
    plans = _each(jobs, topologies, _fitting if _CUT.value else _plan)
    _write(plans)
    if len(plans) == 1:
        print(plan.describe(plans[0]))
        return
    print(plan.compare(plans))
    if _SEARCH.value:
        print(f'\n{plan.recommend(plans)}')


def _asked(names):
    """[(name, config)]"""
    if names or _CONFIG.value is None and _FITS.value:
        for name in names:
            _check_name(name)
        return [(name, _config.load(name)) for name in names or SIZES]
    if _CONFIG.value is None:
        raise UserError('re2pix plan: give --config=NAME, or names of configs')
    return [(_short(flags.FLAGS['config'].config_filename), _CONFIG.value)]


def _check_name(name):
    """Refuses the name of no config that trains; those of files are looked at as they are read."""
    stem, _, size = name.partition(':')
    if stem in recipes.RECIPES or stem.endswith('.py') or os.sep in stem:
        return
    near = [CALLED[stem]] if stem in CALLED else difflib.get_close_matches(stem, recipes.RECIPES)
    hint = ''
    if near:
        sizes = recipes.RECIPES[near[0]]
        size = size if size in sizes else sizes[0]
        hint = f'did you mean {near[0]}{size and ":"}{size}? '
    raise UserError(f'{name}: trains nothing; {hint}expected one of {", ".join(recipes.RECIPES)}')


def _print_fits(asked, topologies):
    for name, config in asked:
        if config.task != 'generator':
            raise UserError(f'--fits: expected generator configs, got {name} of task {config.task}')
    for topology in topologies:
        if topology.count > 1:
            raise UserError(f'--fits: expected single devices, got --topology={topology.name}')
    # Of GPUs there is one stand-in.
    alike = {}
    for topology in topologies:
        alike.setdefault(programs.alike(topology), topology)
    jobs = [
        (name, config, topology, clips, purpose)
        for purpose in ('predict', 'finetune', 'train')
        for name, config in asked
        for topology in alike.values()
        for clips in fits.CLIPS
    ]
    plans = _each(jobs, topologies, _plan)
    _write(plans)
    found = {
        (purpose, name, programs.alike(topology)): pair
        for (name, _, topology, _, purpose), *pair in zip(
            jobs[::2], plans[::2], plans[1::2], strict=True
        )
    }
    print(
        fits.describe(
            [
                fits.Fit(purpose, *(dataclasses.replace(one, topology=topology) for one in pair))
                for (purpose, _, same), pair in found.items()
                for topology in topologies
                if programs.alike(topology) == same
            ]
        )
    )


def _write(plans):
    if _JSON.value:
        text = json.dumps([one.as_dict() for one in plans], indent=1)
        files.write_text(_JSON.value, text)


def _each(jobs, topologies, function):
    programs.make_room(topologies)
    tracked = track(jobs, len(jobs), 'compiling', 'program', size=lambda _: 1)
    with _interrupt.at_once():
        return [function(*job) for job in tracked]


def _short(file):
    """'.../configs/generator.py:base' → 'generator:base'."""
    path, colon, variant = file.partition('.py:')
    return f'{pathlib.Path(path).stem}{colon and ":"}{variant}'


@functools.cache
def _parts(size):
    return recipes.abstract_parts(_config.load, size)


def _plan(name, config, topology, clips=None, purpose=None):
    """A plan; of so many clips a device, for a purpose, the flags' where they are None."""
    clips, purpose = clips or _CLIPS.value, purpose or _FOR.value
    if clips:
        config.batch_size = clips * topology.count // config.mesh.tensor  # steps go along
    elif _FILL.value:
        devices = meshes.abstract(topology.count, **meshes.sizes(config))
        config.batch_size = meshes.filled(config.batch_size, devices, config.accumulate)
    config, parts = config.copy_and_resolve_references(), _parts(recipes.size_of(name))
    if purpose == 'predict':
        program = programs.prediction(config, parts, topology, _HORIZON.value)
        return plan.make(name, 'prediction', config, topology, program)
    if purpose == 'finetune':  # on what is encoded beforehand
        config.data.sources = ('encoded:',)
    program = programs.step(config, parts, topology)
    return plan.make(name, 'step', config, topology, program)


def _fitting(name, config, topology):
    return plan.fitting(lambda config: _plan(name, config, topology), config)


def _variants(config):
    """Of a config, in how its state lies and whether layers are computed again."""
    for fsdp in (1, -1):
        for remat in (False, True) if 'remat' in config.model else (False,):
            variant = config.copy_and_resolve_references()
            variant.mesh.fsdp = fsdp
            if 'remat' in variant.model:
                variant.model.remat = remat
            yield variant
