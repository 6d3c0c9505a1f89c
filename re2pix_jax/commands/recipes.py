"""Counts what every config would take to train: epochs, operations, hours by card.

    re2pix recipes
    re2pix recipes generator:base-xl --mfu=0.3
    re2pix recipes encoder:small autoencoder:small --call=9

Nothing is trained: steps are traced on shapes. Of the configs that are named, all sizes or one;
without a name, of all, in some minutes. With --call the recipes are trained one after the other on
one H100, in calls of so many minutes: which in which call?
"""

import functools

from absl import flags

from re2pix_jax.commands import _config
from re2pix_jax.errors import UserError
from re2pix_jax.progress import track
from re2pix_jax.tasks import recipes

_MFU = flags.DEFINE_float(
    'mfu', 0.4, 'Share of the nominal peak that is reached.', lower_bound=1e-3, upper_bound=1.0
)

_CALL = flags.DEFINE_float('call', None, 'Minutes of a call, for a plan.', lower_bound=0.1)
_FIRST = flags.DEFINE_float('first', 0.0, 'Minutes of each call for the data.', lower_bound=0.0)
_EACH = flags.DEFINE_float('each', 0.7, 'Minutes beside the steps of each.', lower_bound=0.0)
_RATE = flags.DEFINE_float('rate', 1500.0, 'Clips a second the data gives.', lower_bound=1e-3)

ARGUMENTS = None  # configs, any number of them


def main(argv):
    names = [name for given in argv[1:] for name in _asked(given)] or _all()
    parts = functools.cache(functools.partial(recipes.abstract_parts, _config.load))
    work = lambda name: recipes.work_of(_config.load(name), parts(recipes.size_of(name)))
    tracked = track(names, len(names), 'counting', 'config', size=lambda _: 1)
    found = [(name, work(name)) for name in tracked]
    print(recipes.describe(found, _MFU.value))
    if _CALL.value:
        print()
        given = _MFU.value, _CALL.value, _FIRST.value, _EACH.value, _RATE.value
        print(recipes.plan(found, *given))


def _all() -> list[str]:
    sizes = recipes.RECIPES.items()
    return [f'{name}:{size}'.rstrip(':') for name, several in sizes for size in several]


def _asked(name) -> list[str]:
    if ':' in name:
        if name.partition(':')[0] not in recipes.RECIPES:
            raise UserError(f'{name}: trains nothing; one of {", ".join(recipes.RECIPES)} expected')
        return [name]
    if name not in recipes.RECIPES:
        raise UserError(f'{name}: expected one of {", ".join(recipes.RECIPES)}, with :SIZE or not')
    return [f'{name}:{size}'.rstrip(':') for size in recipes.RECIPES[name]]
