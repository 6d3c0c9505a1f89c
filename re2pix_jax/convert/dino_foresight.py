"""DINO-Foresight's files: the Lightning checkpoint of stage 1 and the pickled principal
components.
"""

import jax.numpy as jnp
import numpy as np

from re2pix_jax.bundles.kinds import KINDS, check_forecaster
from re2pix_jax.convert import dinov2, torch_file
from re2pix_jax.convert.table import Table, count, dense, flat, keep, layer, left_out, need, norm
from re2pix_jax.convert.unpickled import Namespace
from re2pix_jax.encoder import Principal
from re2pix_jax.errors import UserError
from re2pix_jax.forecaster import Forecaster, MaskedFeatureTransformer

LAYER, OURS = 'maskvit.transformer.layers.{}', 'params/layers'
ENCODER = 'dino_v2.'  # in front of the encoder's keys, which are read by its own table
PRINCIPAL = (
    'mean',
    'std',
    'pca_mean',
    'pca_components',
)  # the principal components, in the order that `principal_of` takes


def _attention(theirs: str, ours: str) -> list:
    """torch's MultiheadAttention keeps query, key and value fused, as we do."""
    return [
        (f'{theirs}.fn.mha.in_proj_weight', f'{ours}/qkv/kernel', dense),
        (f'{theirs}.fn.mha.in_proj_bias', f'{ours}/qkv/bias', keep),
        *layer(f'{theirs}.fn.mha.out_proj', f'{ours}/proj'),
    ]


TABLE = Table(
    'DINO-Foresight',
    (
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
    ),
    ignored=(
        ('eva_clip.*', 'an encoder that is not computed here'),
        ('sam.*', 'an encoder that is not computed here'),
        ('head.*', 'a head that was evaluated beside: convert its own file as dpt-head'),
    ),
)


def principal_of(mean, std, pca_mean, components, variance, where) -> Principal:
    """Checks the shapes and casts to float32."""
    try:
        mean, std, pca_mean, components = (
            np.asarray(value, np.float64) for value in (mean, std, pca_mean, components)
        )
        # A checkpoint keeps the directions and not their variances: unknown, not zero.
        variance = (
            np.full(components.shape[:1], np.nan)
            if variance is None
            else np.asarray(variance, np.float64)
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f'{where}: expected mean, std and principal components as arrays of numbers ({error})'
        ) from error
    mean, std, pca_mean = (value.reshape(-1) for value in (mean, std, pca_mean))
    channels = len(mean)
    if (
        components.ndim != 2
        or not len(std) == len(pca_mean) == components.shape[1] == channels
        or variance.shape != components.shape[:1]
    ):
        raise UserError(
            f'{where}: principal components of shape {list(components.shape)} with variances '
            f'{list(variance.shape)} do not fit mean, std and PCA mean of {channels}, {len(std)} '
            f'and {len(pca_mean)} channels'
        )
    return Principal(
        *(jnp.asarray(value, jnp.float32) for value in (mean, std, pca_mean, components, variance))
    )


def convert_principal(path) -> Principal:
    """Reads the file that the authors' pca.py writes: {'pca_model': a scikit-learn PCA, 'mean',
    'std'}.
    """
    content = torch_file.read(path)
    model = content.get('pca_model') if isinstance(content, dict) else None
    lacking = [
        name for name in ('mean', 'std') if not isinstance(content, dict) or name not in content
    ]
    lacking += [
        f'pca_model.{name}' for name in ('mean_', 'components_') if not hasattr(model, name)
    ]
    if lacking:
        raise UserError(
            f"{path}: expected a dict of 'pca_model', 'mean' and 'std', and found no "
            f'{", ".join(lacking)}'
        )
    return principal_of(
        content['mean'],
        content['std'],
        model.mean_,
        model.components_,
        getattr(model, 'explained_variance_ratio_', None),
        path,
    )


def convert(
    path,
    encoder=None,
    principal: Principal | None = None,
    heads: int | None = None,
    encoder_heads: int | None = None,
    layers: tuple[int, ...] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Forecaster:
    """Reads a Lightning checkpoint of stage 1; its sizes come from the arguments that it records.

    Args:
        path: the .ckpt file.
        encoder, principal: used instead of those that the checkpoint holds.
        heads: of the transformer, where the file has no 'hyper_parameters'.
        encoder_heads: where the encoder inside is of no published size.
        layers, image_size: of the encoder inside, instead of those that the file records.
    """
    content = torch_file.read(path)
    tensors = torch_file.tensors_in(content, path)
    arguments = _arguments(content, path)
    heads = heads or arguments['heads']
    if not heads:
        raise UserError(
            f"{path}: has no 'hyper_parameters' that say how many heads the transformer has: say "
            'it, --transformer_heads=8'
        )
    inside = {
        key.removeprefix(ENCODER): tensors.pop(key)
        for key in list(tensors)
        if key.startswith(ENCODER)
    }
    components = {name: tensors.pop(name) for name in PRINCIPAL if name in tensors}
    embed = need(tensors, 'embed.weight', 2, path)
    tables = [need(tensors, f'maskvit.pos_embd.emb.d_{axis}', 2, path) for axis in range(3)]
    hidden = need(tensors, 'maskvit.transformer.layers.0.2.fn.net.0.weight', 2, path)
    net = MaskedFeatureTransformer(
        components=embed.shape[1],
        width=embed.shape[0],
        depth=count(tensors, 'maskvit.transformer.layers.{}.'),
        heads=heads,
        frames=len(tables[0]),
        grid=(len(tables[1]), len(tables[2])),
        mlp_ratio=hidden.shape[0] / embed.shape[0],
        dropout=arguments['dropout'],
    )
    params = TABLE.convert(tensors, KINDS['forecaster'].expected(net, {}, {}, str(path)), path)
    if principal is None:
        lacking = [name for name in PRINCIPAL if name not in components]
        if lacking:
            raise UserError(
                f'{path}: holds no {", ".join(lacking)}: pass the PCA file too, --pca=FILE'
            )
        principal = principal_of(*(components[name] for name in PRINCIPAL), None, path)
    else:
        left_out(list(components), 'the principal components', 'another file of them was given')
    if principal.num_components != net.components:
        raise UserError(
            f'{path}: the forecaster takes {net.components} components, the PCA gives '
            f'{principal.num_components}; expected the PCA file that belongs to it'
        )
    if encoder is None:
        if not inside:
            raise UserError(
                f'{path}: holds no DINOv2 encoder: convert one and pass it, --encoder=BUNDLE'
            )
        encoder = dinov2.encoder_of(
            inside,
            path,
            encoder_heads,
            layers or arguments['d_layers'],
            image_size or arguments['img_size'],
        )
    else:
        left_out(list(inside), f'{ENCODER}*', 'another encoder was given')
    forecaster = Forecaster(params, net, encoder, principal)
    check_forecaster(path, forecaster)
    return forecaster


def _arguments(content, where) -> dict:
    """What the checkpoint records of its run: the fields that are needed, in the types that they
    need.
    """
    found = content.get('hyper_parameters', {}) if isinstance(content, dict) else {}
    found = found.get('args', found) if isinstance(found, dict) else found
    found = vars(found) if isinstance(found, Namespace) else found
    if not isinstance(found, dict):
        raise UserError(
            f"{where}: its 'hyper_parameters' are of type {type(found).__name__}: expected a dict "
            'or a Namespace'
        )
    integer = lambda value, numbers: (
        isinstance(value, list | tuple)
        and len(value) in numbers
        and all(type(item) is int for item in value)
    )
    chosen = {
        'heads': found.get('heads'),
        'dropout': found.get('dropout', 0.1),
        'd_layers': found.get('d_layers'),
        'img_size': found.get('img_size'),
    }
    right = {
        'heads': type(chosen['heads']) is int,
        'dropout': isinstance(chosen['dropout'], int | float),
        'd_layers': integer(chosen['d_layers'], range(1, 100)),
        'img_size': integer(chosen['img_size'], [2]),
    }
    wrong = [
        f'{name} {chosen[name]!r}'
        for name in chosen
        if chosen[name] is not None and not right[name]
    ]
    if wrong:
        raise UserError(
            f"{where}: its 'hyper_parameters' say {', '.join(wrong)}: expected a number of heads, "
            'a share of dropout, numbers of layers, and height and width'
        )
    return chosen | {name: tuple(chosen[name]) for name in ('d_layers', 'img_size') if chosen[name]}
