"""What every task shares: a network, frozen parts, and the bundle that comes out."""

import jax
import jax.numpy as jnp

from re2pix_jax import bundles, errors
from re2pix_jax.nn.precision import with_dtype

ENCODING_PARTS = ('encoder', 'principal', 'vae')


class Task:
    """Base of the tasks. A subclass builds its network and says what it takes, what its loss
    is and which part it becomes.

    Attributes:
        net: the trained network; beside its class stand the lists SHARDING and MUON.
        frozen: {name: part}, pytrees that the loop shards and passes to `loss`; never trained,
            never saved with the parameters.
        bundles: {name: {'path', 'identity'}} of those parts, recorded in checkpoints.
        carried: {name: part} that is exported with what is trained and that no loss sees.
        shapes: the variables as ShapeDtypeStructs.
    """

    frozen_parts: tuple[str, ...] = ()
    carried_parts: tuple[str, ...] = ()  # of `carried`, where config.frozen names them
    kind = ''  # of the bundle that `part` becomes
    measured = False  # whether `part` is measured on clips
    starts_from: str | None = ''  # kind of the bundle to start from; '': `kind`, None: none
    # What shapes of parameters do not tell of such a bundle: fields of its network (config.model),
    # and of the part itself (config.loss).
    untold: tuple[str, ...] = ()
    untold_of_loss: tuple[str, ...] = ()

    def __init__(self, config, load: bool = True, frozen: dict | None = None):
        """Builds the network of `config.model` and, with `load`, opens the bundles of
        `config.frozen`; without, shapes are all that can be asked for. `frozen` parts, of shapes
        for arrays where nothing is computed, take the place of bundles.

        Raises:
            UserError: fields of the config that do not fit each other, or bundles that do not fit
                the network.
        """
        self.config, self.frozen, self.bundles, self.carried = config, {}, {}, {}
        with errors.blaming('config.model'):
            self.net = self.build(**self._network_fields())
        for name in self.frozen_parts if frozen is not None else ():
            self.frozen[name] = with_dtype(frozen[name], config.dtype)
        for name in self.frozen_parts if load and frozen is None else ():
            path = config.frozen.get(name, '')
            if not path:
                raise errors.UserError(
                    f'config.frozen.{name}: the {config.task} task needs the path of a bundle of '
                    f'kind {name}, got none'
                )
            self.frozen[name] = with_dtype(bundles.load(path, name), config.dtype)
            self.bundles[name] = {
                'path': bundles.pinned(path),
                'identity': bundles.digest(path, name),
            }
        for name in self.carried_parts if load and frozen is None else ():
            if path := config.frozen.get(name, ''):
                self.carried[name] = bundles.load(path, name)
        self.check(load)
        with errors.blaming('config.model'):
            self.shapes = jax.eval_shape(self.init, jax.random.key(0))

    def build(self, **fields):
        """The network with these fields; ValueError or TypeError for what it refuses."""
        raise NotImplementedError

    def check(self, loaded: bool) -> None:
        """Refuses settings that contradict each other and, where they are loaded, frozen parts that
        do not fit the network.
        """

    def inputs(self) -> tuple:
        """Arrays of the shapes that the network takes."""
        raise NotImplementedError

    def init(self, key, batch=None) -> dict:
        """{'params': ..., 'batch_stats': ... if any}, float32, whatever the batch."""
        del batch
        return self.net.init(key, *self.inputs())

    def load(self, name: str) -> dict:
        """Variables to start from, of a bundle such as `save` writes."""
        return self.start(name).params

    def start(self, name: str):
        """The part whose variables `load` gives.

        Raises:
            UserError: there is no such bundle, or it is of another network where shapes would not
                tell.
        """
        if self.starts_from is None:
            raise errors.UserError(
                f'config.init: the {self.config.task} task starts from random parameters only, as '
                'bundles lack what it trains beside the network; leave it empty'
            )
        part = bundles.load(name, self.starts_from or self.kind)
        found = [
            (f'model.{field}', getattr(part.net, field), getattr(self.net, field))
            for field in self.untold
            if hasattr(part.net, field) and hasattr(self.net, field)
        ]
        for field in self.untold_of_loss:
            default = type(part).__dataclass_fields__[field].default
            theirs, ours = getattr(part, field), self.config.loss.get(field, default)
            if isinstance(ours, tuple | list):
                theirs, ours = tuple(theirs or ()), tuple(ours)
            found.append((f'loss.{field}', theirs, ours))
        for field, theirs, ours in found:
            if theirs != ours:
                raise errors.UserError(
                    f'config.init: {name} was trained with {field.partition(".")[2]} {theirs!r}, '
                    f'and config.{field} is {ours!r}; set config.{field} to {theirs!r} or start '
                    'from another bundle'
                )
        return part

    def loss(self, variables, frozen, batch, key, teacher=None):
        """Of one batch, or of a part of it; pure.

        Args:
            variables: as `init` gives them.
            frozen: as `self.frozen`.
            batch: arrays [B, ...]; 'place' int32 [B] says where in the global batch each clip
                stands, 0 to B - 1 where it is not given; 'step' int32 [B] how many steps were taken
                before.
            key: of the step: see `clip_keys`.
            teacher: the averaged variables.

        Returns:
            (scalar, ({name: scalar}, {'batch_stats': new ones} or {})).
        """
        raise NotImplementedError

    def part(self, variables, batches=None):
        """The part that is exported and evaluated. `batches` is a pass of evaluation data, for what
        has to be measured; without it, what needs no measuring.
        """
        raise NotImplementedError

    def judged(self, variables):
        """What the evaluators of config.evals are run on while training: `part`, and for a head
        what gives it its features.
        """
        return self.part(variables)

    def save(self, variables, path, batches=None, **saving) -> None:
        """Writes `part` as a bundle at `path`; `saving` goes to bundles.save."""
        bundles.save(path, self.part(variables, batches), **saving)

    def check_data(self, encoded_by: dict, depth_kinds: dict | None = None) -> None:
        """Refuses clips that do not fit the task.

        Args:
            encoded_by: `Loader.encoded_by`: encoded clips must come from the frozen parts.
            depth_kinds: `Loader.depth_kinds`: depth must be what the task reads.
        """
        mine = {name: bundle['identity'] for name, bundle in self.bundles.items()}
        for name, bundle in self.bundles.items():
            mine |= bundles.part_digests(bundle['path'], name)
        for source, theirs in encoded_by.items():
            for name in ENCODING_PARTS:
                if name in mine and mine[name] != theirs.get(name):
                    problem = 'another one' if name in theirs else 'none'
                    raise errors.UserError(
                        f'{source}: expected clips encoded by the {name} of config.frozen, they '
                        f'were by {problem}; run prepare encode again with it'
                    )
        wanted = self.depth_kind()
        for source, kinds in (depth_kinds or {}).items():
            if wanted and kinds - {wanted}:
                raise errors.UserError(
                    f'{source}: its depth is in {", ".join(sorted(kinds))}, and this task learns '
                    f'from {wanted}; take another source'
                    + (' or set config.loss.depth_range' if self.kind == 'head' else '')
                )

    def depth_kind(self) -> str:
        """'metres' or 'classes' where the loss reads depth, '' where it does not."""
        return ''

    def _check_components(self) -> None:
        """Refuses principal components that were fitted to another encoder."""
        net, principal = self.frozen['encoder'].net, self.frozen['principal']
        features, channels = principal.components.shape[1], len(net.layers) * net.width
        if features != channels:
            raise errors.UserError(
                f'config.frozen.principal: {self.config.frozen.principal} takes features of '
                f'{features} channels, the encoder gives {channels}; give the components that were '
                'fitted to this encoder'
            )

    def _network_fields(self):
        """Static fields of the network: `config.model` with tuples for lists."""
        fields = {
            name: tuple(value) if isinstance(value, (list, tuple)) else value
            for name, value in self.config.model.items()
        }
        return fields | {'dtype': self.config.dtype}


def clip_keys(key, batch: dict):
    """Keys [B], one for each clip, by its place in the global batch: the same however that is cut
    into parts and laid over devices.
    """
    places = batch.get('place')
    if places is None:
        places = jnp.arange(len(jax.tree.leaves(batch)[0]))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)
