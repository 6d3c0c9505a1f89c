"""Fits the standardisation and principal components of an encoder's features in one pass, and writes them as a bundle.

    python -m re2pix_jax.fit_pca --config=configs/principal.py:tiny --out=runs/bundles/principal \
        --config.frozen.encoder=runs/bundles/encoder
"""

from absl import flags
from tqdm import tqdm

from re2pix_jax import cli, weights
from re2pix_jax.clips import loader
from re2pix_jax.encoder import principal
from re2pix_jax.errors import UserError

CONFIG = cli.config_flag()
OUT = flags.DEFINE_string('out', None, 'folder of the bundle to write', required=True)


def main(argv):
    config = CONFIG.value
    if not config.frozen.encoder:
        raise UserError('config.frozen.encoder: expected the path of an encoder bundle, got none')
    encoder = weights.load(config.frozen.encoder)
    moments = principal.Moments()
    batches = loader.create(config.data, config.batch_size, config.seed)
    for _ in tqdm(range(-(-config.clips // config.batch_size)), desc='features', mininterval=5):
        moments.update(encoder.encode(next(batches)['frames']))
    fitted = principal.fit(moments, config.components)
    weights.save(OUT.value, fitted, parts={'encoder': config.frozen.encoder})
    print(f'{moments.count} tokens: {config.components} of {len(fitted.mean)} components explain '
          f'{100 * float(fitted.variance.sum()):.1f} % of the variance; written to {OUT.value}')


if __name__ == '__main__':
    cli.run(main, arguments=())
