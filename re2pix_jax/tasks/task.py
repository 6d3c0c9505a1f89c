"""What every task shares: frozen parts, and an evaluation that does not depend on how clips are
batched.
"""

import functools

import jax

from re2pix_jax import bundles, errors

ENCODING_PARTS = ('encoder', 'principal', 'vae')


class Task:
    """Base of the five tasks. A subclass names its network and says how it is initialised, trained,
    measured and saved.

    frozen: {name: part}, pytrees that the loop shards and passes to `loss`; never trained, never
        saved with the parameters.
    bundles: {name: {'path', 'sha256'}} of those parts, recorded in checkpoints.
    """

    frozen_parts: tuple[str, ...] = ()
    kind = ''  # of the bundle that `save` writes, if it holds all that is trained

    def __init__(self, config):
        self.config = config
        self.frozen, self.bundles = {}, {}
        for name in self.frozen_parts:
            path = config.frozen.get(name, '')
            if not path:
                raise errors.UserError(
                    f'config.frozen.{name}: the {config.task} task needs the path of a {name} '
                    'bundle, got none'
                )
            self.frozen[name] = with_dtype(bundles.load(path, name), config.dtype)
            self.bundles[name] = {'path': path, 'sha256': bundles.digest(path, name)}

    def check_data(self, encoded_by):
        """Refuses encoded clips (`Loader.encoded_by`) that other networks made than the frozen
        parts of this task.
        """
        mine = {name: bundle['sha256'] for name, bundle in self.bundles.items()}
        for name, bundle in self.bundles.items():
            mine |= bundles.part_digests(bundle['path'], name)
        for source, theirs in encoded_by.items():
            for name in ENCODING_PARTS:
                if name in mine and mine[name] != theirs.get(name):
                    problem = 'another one' if name in theirs else 'none'
                    raise errors.UserError(
                        f'{source}: expected clips encoded by the {name} of config.frozen, they '
                        'were by '
                        f'{problem}; run prepare encode again with it'
                    )

    def network_fields(self):
        """Static fields of the network: `config.model` with tuples for lists."""
        fields = {
            name: tuple(value) if isinstance(value, (list, tuple)) else value
            for name, value in self.config.model.items()
        }
        return fields | {'dtype': self.config.dtype}

    def init(self, key, batch):
        """Parameters (float32) for batches such as `batch`."""
        raise TypeError(f'{type(self).__name__} does not say how to initialise')

    def load_params(self, name):
        """Parameters to start from, of a bundle such as `save` writes."""
        if not self.kind:
            raise errors.UserError(
                f'config.init: the {self.config.task} task starts from random parameters only, as '
                'bundles lack '
                'what it trains beside the network; leave it empty'
            )
        return bundles.load(name, self.kind).params

    def loss(self, params, frozen, batch, key):
        """(scalar loss, {name: scalar metric}) of one batch; pure."""
        raise TypeError(f'{type(self).__name__} does not say how to train')

    def measure(self, params, frozen, batch, keys):
        """{name: [B] values} for every clip of a batch, `keys` [B] one per clip; pure."""
        raise TypeError(f'{type(self).__name__} does not say what to measure')

    def save(self, params, path, batches, **saving):
        """Writes the trained part as a bundle at `path`; `batches` is a pass of evaluation data,
        `saving` goes to bundles.save.
        """
        raise TypeError(f'{type(self).__name__} does not say how to save')

    @functools.cached_property
    def _sums(self):
        """Sums over the batch, on device: on several processes a scalar is on all of them and a
        split batch is not.
        """
        return jax.jit(
            lambda *arguments: jax.tree.map(lambda values: values.sum(), self.measure(*arguments))
        )

    def evaluate(self, params, frozen, batches, key):
        """Means over all clips of `batches`. A clip's key comes from its record id, so batch size
        and order do not matter.
        """
        sums, count = {}, 0
        for batch in batches:
            keys = jax.vmap(lambda record: jax.random.fold_in(key, record))(batch['record'])
            for name, total in self._sums(params, frozen, batch, keys).items():
                sums[name] = sums.get(name, 0.0) + float(total)
            count += batch['record'].shape[0]
        if not count:
            raise errors.UserError(
                f'{self.config.task}: the evaluation data holds no clips; check config.eval_data'
            )
        return {name: float(total / count) for name, total in sums.items()}


def with_dtype(part, dtype):
    """The part with every network computing in `dtype` (parameters keep theirs)."""
    changes = {}
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        if name == 'net':
            changes[name] = value.clone(dtype=dtype)
        elif hasattr(value, '__dataclass_fields__') and hasattr(value, 'replace'):
            changes[name] = with_dtype(value, dtype)
    return part.replace(**changes)
