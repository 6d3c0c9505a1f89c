"""The kinds of bundle: which part each one opens as, and which tensors it must hold."""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import flax
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax import schema
from re2pix_jax.errors import UserError
from re2pix_jax.generator.sampler import SAMPLERS

NOT_OF_THE_NETWORK = (
    'parent',
    'name',
    'dtype',
)  # dtype: in what precision to compute is for the running program to say
OF_EVERY_KIND = ('format', 'kind', 'network', 'storage', 'parts', 'about')  # in config.json
# What the types of networks' and parts' fields leave open. The limits are beyond all that is built;
# without them a file could ask for a network that takes hours and all memory to describe.
INTEGERS = schema.Within(0, 1 << 16)
_Grid = tuple[(Annotated[int, schema.Within(1, 2048, 'positive')],) * 2]
_Layers = Annotated[int, schema.Within(1, 256)]
FIELDS = {
    'depth': _Layers,
    'layers_per_block': _Layers,
    'blocks': _Layers,
    'components': Annotated[int, INTEGERS],  # 0: the baseline, which is given none
    'features': schema.Positive,
    'grid': _Grid,
    'latent_grid': _Grid,
    'position_grid': _Grid | None,
    'size': schema.Size,
    'image_size': schema.Size | None,
    'fps': schema.PositiveNumber,
    'sampler_steps': schema.Positive,
    'sampler': Literal[*SAMPLERS],
    'sampler_grid': schema.Name,
    'context_noise': Annotated[float, schema.Within(0, 1)],
    'tile': schema.Positive | None,
    'frames_at_once': schema.Positive | None,
}


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
            if field.name not in NOT_OF_THE_NETWORK
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
                f'{where}: "network" of kind {self.name} has unknown fields [{", ".join(unknown)}] '
                f'and lacks [{", ".join(missing)}]: it takes {", ".join(sorted(fields))}'
            )
        values = _checked(network, fields, f'{where}: network')
        try:
            return net_class(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f'{where}: network: {_first_line(error)}') from error

    def read_extras(self, config: dict, where) -> dict:
        """The part's other static fields, of what config.json holds beside "network".

        Raises:
            UserError: it holds what this kind does not have, or a value of another type.
        """
        known = _static(self.part_class())
        found = {name: value for name, value in config.items() if name not in OF_EVERY_KIND}
        if strange := sorted(set(found) - set(known)):
            raise UserError(
                f'{where}: unknown entries {", ".join(strange)}; kind {self.name} may have '
                f'{", ".join([*known, "about"])}'
            )
        return _checked(found, known, where)

    def describe_net(self, part) -> dict:
        """The "network" entry of config.json for a part."""
        if self.name == 'principal':
            count, channels = part.components.shape
            return {'components': int(count), 'features': int(channels)}
        return {} if self.net is None else self.fields_of(part.net)

    def fields_of(self, net, changed: bool = False) -> dict:
        """The static fields of a network, or those alone that are not at their default."""
        _, *others = self._nets().items()
        chosen = [name for name, net_class in others if type(net) is net_class]
        return ({'backbone': chosen[0]} if chosen else {}) | {
            field.name: getattr(net, field.name)
            for field in dataclasses.fields(net)
            if field.name not in NOT_OF_THE_NETWORK
            and not (changed and getattr(net, field.name) == field.default)
        }

    def extras(self) -> dict[str, Any]:
        """Names and defaults of the part's other static fields, which config.json holds beside
        "network".
        """
        return {name: field.default for name, field in _static(self.part_class()).items()}

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
            network = _checked(network, network, f'{where}: network')
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
            return _shapes(net, tuple(self.inputs(net, tensors)))
        except Exception as error:  # whatever a network makes of fields that a file names
            raise UserError(
                f'{where}: kind {self.name} cannot be built of these network fields: '
                f'{_first_line(error)}'
            ) from error


@functools.lru_cache(64)
def _shapes(net, inputs: tuple) -> dict[str, tuple[int, ...]]:
    shapes = nn.meta.unbox(jax.eval_shape(net.init, jax.random.key(0), *inputs))
    flat = flax.traverse_util.flatten_dict(flax.core.unfreeze(shapes), sep='/')
    return {path: leaf.shape for path, leaf in flat.items()}


def _static(part_class) -> dict[str, dataclasses.Field]:
    """The fields of a part's class that are neither its network nor arrays."""
    return {
        field.name: field
        for field in dataclasses.fields(part_class)
        if field.name != 'net' and not field.metadata.get('pytree_node', True)
    }


def _checked(found: dict, fields: dict, where) -> dict:
    """Values of config.json in the types that their fields have; lists become tuples."""
    return {
        name: tuples(
            schema.check(
                value,
                FIELDS.get(name) or fields[name].type,
                f'{where}: {name}',
                integers=INTEGERS,
            )
        )
        for name, value in found.items()
    }


def _first_line(error) -> str:
    return str(error).strip().split('\n')[0] or type(error).__name__


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
            'judge',
            're2pix_jax.evaluation.networks.judge:Judge',
            're2pix_jax.evaluation.networks.judge:VideoNetwork',
            lambda net, tensors: (_array(1, 2, 1 << len(net.widths), 1 << len(net.widths), 3),),
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


def check_forecaster(where, part) -> None:
    """Refuses a forecaster whose encoder or principal components belong to another one."""
    channels = len(part.encoder.net.layers) * part.encoder.net.width
    count, features = part.principal.components.shape
    if (features, count) != (channels, part.net.components):
        raise UserError(
            f'{where}: its parts do not fit: the encoder gives {channels} channels, the principal '
            f'components turn {features} into {count}, the forecaster takes {part.net.components}; '
            'expected those that it was trained on'
        )


def _import(path: str):
    module, name = path.split(':')
    return getattr(importlib.import_module(module), name)
