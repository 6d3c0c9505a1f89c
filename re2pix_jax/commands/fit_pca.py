r"""Fits the principal components of an encoder's features in one pass over clips.

    re2pix fit_pca --config=principal:tiny --out=runs/bundles/principal \
        --config.frozen.encoder=runs/bundles/encoder

They and the standardisation before them are written as a bundle. Clips are split over all devices,
batches made as much larger as that needs.
A pass that was cut off goes on where the last minute was saved, when the same command is given
again. `explained_variance.png` in the bundle shows how much each number of components holds.
"""

from re2pix_jax.commands import _config, cli  # first: it quietens native libraries while they load

# isort: split
import jax
from absl import flags

from re2pix_jax.tasks import principal
from re2pix_jax.training import mesh

_CONFIG = cli.config_flag()
_OUT = flags.DEFINE_string('out', None, 'folder of the bundle to write', required=True)
_OVERWRITE = flags.DEFINE_bool('overwrite', False, 'Replace a bundle of components at --out.')

REMOTE = ('out',)
GOES_ON = True


def main(argv):
    del argv
    _config.check_fields(_CONFIG.value, 'principal:tiny', 'components', 'frozen', 'data')
    mesh.initialize_processes()
    found = principal.fit(_CONFIG.value, _OUT.value, _OVERWRITE.value)
    if jax.process_index() == 0:
        print(found)
