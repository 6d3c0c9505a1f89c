"""Counts what every config would take to train: epochs, operations, hours by card.

    re2pix recipes
    re2pix recipes generator:base-xl --mfu=0.3

Nothing is trained: steps are traced on shapes. Of one config, all its sizes or the one that is
named; without a name, of all, in some minutes.
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

ARGUMENTS = ('[config]',)


def main(argv):
    names = _asked(*argv[1:]) if len(argv) > 1 else _all()
    parts = functools.cache(functools.partial(recipes.abstract_parts, _config.load))
    work = lambda name: recipes.work_of(_config.load(name), parts(recipes.size_of(name)))
    tracked = track(names, len(names), 'counting', 'config', size=lambda _: 1)
    found = [(name, work(name)) for name in tracked]
    print(recipes.describe(found, _MFU.value))


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
