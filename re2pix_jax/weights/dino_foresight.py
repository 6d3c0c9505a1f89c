"""DINO-Foresight's files: the Lightning checkpoint of stage 1 and the pickled principal components."""

import jax.numpy as jnp
import numpy as np

from re2pix_jax.encoder import Principal
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer
from re2pix_jax.weights import dinov2, torch_file
from re2pix_jax.weights.kinds import KINDS
from re2pix_jax.weights.table import Table, count, dense, flat, keep, layer, need, norm

LAYER, OURS = 'maskvit.transformer.layers.{}', 'params/layers_{}'


def _attention(theirs: str, ours: str) -> list:
    """torch's MultiheadAttention keeps query, key and value fused, as we do."""
    return [(f'{theirs}.fn.mha.in_proj_weight', f'{ours}/qkv/kernel', dense),
            (f'{theirs}.fn.mha.in_proj_bias', f'{ours}/qkv/bias', keep),
            *layer(f'{theirs}.fn.mha.out_proj', f'{ours}/proj')]


TABLE = Table('DINO-Foresight', (
    *layer('embed', 'params/embed'),
    ('replace_vector', 'params/replace_vector', flat),
    *((f'maskvit.pos_embd.emb.d_{axis}', f'params/d_{axis}', keep) for axis in range(3)),
    *norm(f'{LAYER}.0.norm', f'{OURS}/temporal_norm'),
    *_attention(f'{LAYER}.0', f'{OURS}/temporal'),
    *norm(f'{LAYER}.1.norm', f'{OURS}/spatial_norm'),
    *_attention(f'{LAYER}.1', f'{OURS}/spatial'),
    *norm(f'{LAYER}.2.norm', f'{OURS}/feed_forward_norm'),
    *layer(f'{LAYER}.2.fn.net.0', f'{OURS}/feed_forward/fc1'),
    *layer(f'{LAYER}.2.fn.net.3', f'{OURS}/feed_forward/fc2'),
    *layer('maskvit.fc_out', 'params/fc_out'),
), ignored=(
    r'(dino_v2|eva_clip|sam)\..*',  # the encoder: read by its own table
    r'pca_mean|pca_components|mean|std',  # the principal components: read by `principal_of`
    r'head\..*',  # a head that was evaluated beside: its file is converted by dpt
))


def _vector(value, where: str) -> np.ndarray:
    return np.asarray(value, np.float64).reshape(-1) if np.ndim(value) else _missing(where)


def _missing(where):
    raise UserError(f'{where}: expected an array')


def principal_of(mean, std, pca_mean, components, variance, where) -> Principal:
    """Checks the shapes and casts to float32."""
    mean, std, pca_mean = (_vector(value, where) for value in (mean, std, pca_mean))
    components = np.asarray(components)
    channels = len(mean)
    if components.ndim != 2 or not len(std) == len(pca_mean) == components.shape[1] == channels:
        raise UserError(f'{where}: principal components of shape {list(components.shape)} do not fit mean, std and PCA mean '
                        f'of {channels}, {len(std)} and {len(pca_mean)} channels')
    # A checkpoint keeps the directions and not their variances: unknown, not zero.
    variance = np.full(len(components), np.nan) if variance is None else np.asarray(variance)
    return Principal(*(jnp.asarray(value, jnp.float32) for value in (mean, std, pca_mean, components, variance)))


def convert_principal(path) -> Principal:
    """Reads the file that the authors' pca.py writes: {'pca_model': a scikit-learn PCA, 'mean', 'std'}."""
    content = torch_file.read(path)
    model = content.get('pca_model') if isinstance(content, dict) else None
    lacking = [name for name in ('mean', 'std') if not isinstance(content, dict) or name not in content]
    lacking += [f'pca_model.{name}' for name in ('mean_', 'components_') if not hasattr(model, name)]
    if lacking:
        raise UserError(f"{path}: expected a dict of 'pca_model', 'mean' and 'std', and found no {', '.join(lacking)}")
    return principal_of(content['mean'], content['std'], model.mean_, model.components_,
                        getattr(model, 'explained_variance_ratio_', None), path)


def convert(path, encoder=None, principal: Principal | None = None, heads: int | None = None,
            encoder_heads: int | None = None) -> Forecaster:
    """Reads a Lightning checkpoint of stage 1; its sizes come from the arguments that it records.

    Args:
        path: the .ckpt file.
        encoder, principal: used instead of those that the checkpoint holds.
        heads: of the transformer, where the file has no 'hyper_parameters'.
        encoder_heads: where the encoder inside is of no published size.
    """
    content = torch_file.read(path)
    tensors = torch_file.tensors_in(content, path)
    arguments = content.get('hyper_parameters', {}) if isinstance(content, dict) else {}
    arguments = arguments.get('args', arguments) if isinstance(arguments, dict) else arguments
    arguments = arguments if isinstance(arguments, dict) else vars(arguments)
    heads = heads or arguments.get('heads')
    if not heads:
        raise UserError(f"{path}: has no 'hyper_parameters' that say how many heads the transformer has: say it")
    embed = need(tensors, 'embed.weight', 2, path)
    tables = [need(tensors, f'maskvit.pos_embd.emb.d_{axis}', 2, path) for axis in range(3)]
    hidden = need(tensors, 'maskvit.transformer.layers.0.2.fn.net.0.weight', 2, path)
    net = MaskedFeatureTransformer(
        components=embed.shape[1], width=embed.shape[0], depth=count(tensors, 'maskvit.transformer.layers.{}.'), heads=heads,
        frames=len(tables[0]), grid=(len(tables[1]), len(tables[2])), mlp_ratio=hidden.shape[0] / embed.shape[0],
        dropout=arguments.get('dropout', 0.1))
    params = TABLE.convert(tensors, KINDS['forecaster'].expected(net, {}, {}, str(path)), path)
    if principal is None:
        lacking = [name for name in ('mean', 'std', 'pca_mean', 'pca_components') if name not in tensors]
        if lacking:
            raise UserError(f'{path}: holds no {", ".join(lacking)}: convert the PCA file too and pass it')
        principal = principal_of(*(tensors[name] for name in ('mean', 'std', 'pca_mean', 'pca_components')), None, path)
    if principal.num_components != net.components:
        raise UserError(f'{path}: the forecaster takes {net.components} components, the PCA gives {principal.num_components}; '
                        'expected the PCA file that belongs to it')
    if encoder is None:
        inside = {key.removeprefix('dino_v2.'): array for key, array in tensors.items() if key.startswith('dino_v2.')}
        if not inside:
            raise UserError(f'{path}: holds no DINOv2 encoder: convert one and pass it')
        layers, size = arguments.get('d_layers'), arguments.get('img_size')
        encoder = dinov2.encoder_of(inside, path, encoder_heads, tuple(layers) if layers else None,
                                    tuple(size) if size else None)
    return Forecaster(params, net, encoder, principal)
