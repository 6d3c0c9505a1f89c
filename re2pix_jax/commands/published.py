r"""Makes the base-size set of bundles from the official files that others published.

    re2pix published --list
    re2pix published bundles/base
    re2pix published bundles/base --only=encoder,vae --files=downloads

Fetches what is not yet in --files, shows sizes and hashes, converts (nothing in a file is run) and
opens every bundle. Given again, it goes on where it stopped; a file that is not what it was before
is refused. Where the servers cannot be reached, put the files of --list into --files by hand, or
give the address of a --mirror that has them. A generator is then trained with
--config.frozen.forecaster=bundles/base/forecaster --config.frozen.vae=bundles/base/vae and
evaluated with --config.evals.fid.network=bundles/base/inception.
"""

import pathlib

from absl import flags

from re2pix_jax.convert import base_set
from re2pix_jax.errors import UserError

FILES = flags.DEFINE_string('files', None, 'Folder of the official files; none: OUT/files.')
MIRROR = flags.DEFINE_string('mirror', '', 'Address under which all files lie by their names.')
ONLY = flags.DEFINE_list('only', None, 'Names of the bundles to make; without it all.')
LIST = flags.DEFINE_bool('list', False, 'Say what would be fetched from where, and stop.')

ARGUMENTS = ('[out]',)
NO_PATHS = ('mirror',)
GOES_ON = True


def main(argv):
    out = pathlib.Path(argv[1] if len(argv) > 1 else 'OUT')
    if len(argv) < 2 and not LIST.value:
        raise UserError('published: expected a folder to write to, as in re2pix published base')
    items, folder = base_set.chosen(ONLY.value), pathlib.Path(FILES.value or out / 'files')
    if LIST.value:
        for item in items:
            print(f'{out / item.name}: {item.kind} of {item.file.name}')
        for file in base_set.needed(items):
            here = ' (there)' if (folder / file.name).is_file() else ''
            print(f'{folder / file.name}{here}: {file.url}')
        return
    base_set.make(items, out, folder, MIRROR.value, lambda line: print(line, flush=True))
