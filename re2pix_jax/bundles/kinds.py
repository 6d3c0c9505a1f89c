"""The kinds of bundle: which part each one opens as, and which tensors it must hold."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError

NOT_OF_THE_NETWORK = (
    'parent',
    'name',
    'dtype',
)  # dtype: in what precision to compute is for the running program to say


def _encoder_inputs(net, tensors):
    rows, columns = net.position_grid or (1, 1)
    return (_array(1, rows * net.patch_size, columns * net.patch_size, 3),)


def _vae_inputs(net, tensors):
    return (_array(1, 2 * net.factor, 2 * net.factor, 3),)


def _forecaster_inputs(net, tensors):
    return (_array(1, net.frames - 1, *net.grid, net.components),)


def _head_inputs(net, tensors):
    # The head's own fields do not say how wide its input is; its first tensor does.
    kernel = tensors.get('params/projects_0/kernel')
    width = kernel.shape[2] if kernel is not None and kernel.ndim == 4 else 1
    return (_array(1, 2, 4, 4 * width),)


def _generator_inputs(net, tensors):
    return jax.eval_shape(net.example)


def _array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of bundle.

    Attributes:
        name: 'encoder', ...
        part: 'module:Class' of the part, imported on use.
        net: 'module:Class' of its network, or None where a bundle has no network of its own;
            'module:NAME' of a dict of classes where there is a choice: config.json's "network"
            names it as "backbone", and nothing means the first.
        inputs: (net, tensors) -> arguments whose shapes initialise the network.
        parts: names (which are kinds) of the parts it is made of.
        optional: those of `parts` that may be absent.
        references: names of bundles that it was made with: recorded, not loaded.
    """

    name: str
    part: str
    net: str | None = None
    inputs: Callable | None = None
    parts: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def part_class(self):
        return _import(self.part)

    def _nets(self) -> dict:
        """Name -> class of the networks to choose from."""
        found = _import(self.net)
        return found if isinstance(found, dict) else {'': found}

    def build_net(self, network: dict, where: str) -> nn.Module | None:
        """The network with the fields of config.json's "network"; lists become tuples."""
        if self.net is None:
            return None
        nets, network = self._nets(), dict(network)
        name = network.pop('backbone', next(iter(nets))) if len(nets) > 1 else ''
        if name not in nets:
            raise UserError(
                f'{where}: "backbone" of kind {self.name} is {name!r}: expected one of '
                f'{", ".join(nets)}'
            )
        net_class = nets[name]
        fields = {
            field.name: field
            for field in dataclasses.fields(net_class)
            if field.name not in ('parent', 'name')
        }
        unknown = sorted(set(network) - set(fields))
        missing = sorted(
            name
            for name, field in fields.items()
            if name not in network
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
        if unknown or missing:
            raise UserError(
                f'{where}: "network" of kind {self.name} has unknown fields '
                f'[{", ".join(unknown)}] and lacks '
                f'[{", ".join(missing)}]: it takes {", ".join(sorted(fields))}'
            )
        return net_class(**{name: tuples(value) for name, value in network.items()})

    def describe_net(self, part) -> dict:
        """The "network" entry of config.json for a part."""
        if self.name == 'principal':
            count, channels = part.components.shape
            return {'components': int(count), 'features': int(channels)}
        if self.net is None:
            return {}
        _, *others = self._nets().items()
        named = dict(
            [('backbone', name) for name, net_class in others if type(part.net) is net_class]
        )
        return named | {
            field.name: getattr(part.net, field.name)
            for field in dataclasses.fields(part.net)
            if field.name not in NOT_OF_THE_NETWORK
        }

    def extras(self) -> dict[str, Any]:
        """Names and defaults of the part's other static fields, which config.json holds beside
        "network".
        """
        return {
            field.name: field.default
            for field in dataclasses.fields(self.part_class())
            if field.name != 'net' and not field.metadata.get('pytree_node', True)
        }

    def tensors_of(self, part) -> dict:
        """The tree that goes into weights.safetensors."""
        if self.name == 'principal':
            return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        return {} if self.net is None else flax.core.unfreeze(nn.meta.unbox(part.params))

    def expected(self, net, network: dict, tensors: dict, where: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors that a bundle of this kind must hold, by '/'-joined path."""
        if self.name == 'principal':
            if sorted(network) != ['components', 'features']:
                raise UserError(
                    f'{where}: "network" of kind principal must be its two sizes, components and '
                    'features'
                )
            count, channels = network['components'], network['features']
            return {
                'mean': (channels,),
                'std': (channels,),
                'pca_mean': (channels,),
                'components': (count, channels),
                'variance': (count,),
            }
        if net is None:
            return {}
        try:
            shapes = jax.eval_shape(net.init, jax.random.key(0), *self.inputs(net, tensors))
        except (TypeError, ValueError, ArithmeticError, IndexError) as error:
            message = str(error).strip().split('\n')[0]
            raise UserError(
                f'{where}: kind {self.name} cannot be built of these network fields: {message}'
            ) from error
        return flatten(
            jax.tree.map(
                lambda leaf: leaf.shape,
                nn.meta.unbox(shapes),
                is_leaf=lambda x: hasattr(x, 'shape'),
            )
        )


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            'encoder',
            're2pix_jax.encoder:Encoder',
            're2pix_jax.encoder.vit:VisionTransformer',
            _encoder_inputs,
        ),
        Kind('principal', 're2pix_jax.encoder.principal:Principal', references=('encoder',)),
        Kind(
            'vae',
            're2pix_jax.vae:Autoencoder',
            're2pix_jax.vae.autoencoder:AutoencoderKL',
            _vae_inputs,
        ),
        Kind(
            'forecaster',
            're2pix_jax.forecaster:Forecaster',
            're2pix_jax.forecaster.transformer:MaskedFeatureTransformer',
            _forecaster_inputs,
            parts=('encoder', 'principal'),
        ),
        Kind('head', 're2pix_jax.heads:Head', 're2pix_jax.heads.dpt:DPTHead', _head_inputs),
        Kind(
            'generator',
            're2pix_jax.generator:Generator',
            're2pix_jax.generator.backbone:BACKBONES',
            _generator_inputs,
        ),
        Kind(
            'inception',
            're2pix_jax.evaluation.networks.inception:Inception',
            're2pix_jax.evaluation.networks.inception:InceptionV3',
            lambda net, tensors: (_array(1, 299, 299, 3),),
        ),
        Kind(
            'i3d',
            're2pix_jax.evaluation.networks.i3d:I3D',
            're2pix_jax.evaluation.networks.i3d:InceptionI3D',
            lambda net, tensors: (_array(1, 16, 224, 224, 3),),
        ),
        Kind(
            'lpips',
            're2pix_jax.evaluation.networks.lpips:LPIPS',
            're2pix_jax.evaluation.networks.lpips:AlexLPIPS',
            lambda net, tensors: (_array(1, 64, 64, 3), _array(1, 64, 64, 3)),
        ),
        Kind(
            're2pix',
            're2pix_jax.model:Re2Pix',
            parts=('forecaster', 'vae', 'generator', 'head'),
            optional=('head',),
        ),
    )
}


def kind_of(part) -> Kind:
    """The kind whose part class `part` is an instance of."""
    for kind in KINDS.values():
        module, name = kind.part.split(':')
        if type(part).__name__ == name and type(part).__module__.startswith(module):
            return kind
    raise TypeError(
        f'{type(part).__name__} is not a part that a bundle can hold: {", ".join(KINDS)} are'
    )


def flatten(tree: dict, prefix: str = '') -> dict:
    """Nested dicts to one dict keyed by '/'-joined path."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f'{prefix}{name}/')
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def unflatten(flat: dict) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, name = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def tuples(value):
    """JSON's lists as tuples, so that a network stays hashable."""
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


def unmatched(where: str, expected: dict, found: dict[str, np.ndarray]) -> None:
    """Raises one UserError that names every tensor which is missing, left over or of another
    shape.
    """
    problems = [
        f'missing {name} {list(expected[name])}' for name in sorted(set(expected) - set(found))
    ]
    problems += [
        f'left over {name} {list(found[name].shape)}' for name in sorted(set(found) - set(expected))
    ]
    problems += [
        f'{name} has shape {list(found[name].shape)} and not {list(expected[name])}'
        for name in sorted(set(found) & set(expected))
        if tuple(found[name].shape) != tuple(expected[name])
    ]
    if problems:
        raise UserError(
            f'{where}: {len(problems)} tensors do not match the network: {"; ".join(problems)}'
        )


def _import(path: str):
    module, name = path.split(':')
    return getattr(importlib.import_module(module), name)
