"""A linear probe of frozen features: how much semantics one linear map can read out of an encoder.

Two read-outs of the same feature map [..., h, w, C]:

- 'bilinear': C → K classes at each patch, logits upsampled bilinearly to the pixels: the protocol
  of DINOv2's linear segmentation [R].
- 'subpixel': C → p x p x K logits at each patch, its own logits for each of the patch's pixels: it
  also asks where inside the patch the classes lie, which a coarse grid's bilinear map cannot say
  [O].

Both standardise the features by the training set's mean and deviation (part of the linear map) and
train by Adam on cross-entropy over labelled pixels, a cosine to zero [O]. Deterministic: the seed
orders the minibatches and nothing else is random.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from re2pix_jax.cityscapes import CLASSES, IGNORE
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import compatibility
from re2pix_jax.evaluation.batches import of_one_length
from re2pix_jax.evaluation.evaluators.base import Column, Evaluator, by_step
from re2pix_jax.evaluation.evaluators.segmentation import Confusion

KINDS = ('bilinear', 'subpixel')


class Probe(flax.struct.PyTreeNode):
    """A fitted probe: `params` {'kernel', 'bias', 'mean', 'std'}; kind, classes and the labels' (H,
    W) are static.
    """

    params: dict
    kind: str = flax.struct.field(pytree_node=False)
    classes: int = flax.struct.field(pytree_node=False)
    size: tuple[int, int] = flax.struct.field(pytree_node=False)

    @jax.jit
    def logits(self, features):
        """float [..., h, w, C] → float32 [..., H, W, K]."""
        flat = features.reshape(-1, *features.shape[-3:])
        return _logits(self.params, flat, self.kind, self.classes, self.size).reshape(
            *features.shape[:-3], *self.size, self.classes
        )

    @jax.jit
    def labels(self, features):
        """float [..., h, w, C] → uint8 [..., H, W], the likeliest class of each pixel."""
        return self.logits(features).argmax(-1).astype(jnp.uint8)


def fit(
    features,
    labels,
    kind='bilinear',
    classes=CLASSES,
    seed=0,
    steps=300,
    batch_size=8,
    learning_rate=3e-3,
):
    """Fits a probe to cached features.

    Args:
        features: float [N, h, w, C], frozen.
        labels: uint8 [N, H, W], 255 = ignore; 'subpixel' needs H and W to be multiples of h and w.
        kind: one of `KINDS`.
        steps, batch_size, learning_rate: of Adam, in minibatches of frames.

    Returns:
        `Probe`.
    """
    if kind not in KINDS:
        raise ValueError(f'kind {kind!r}: expected one of {", ".join(KINDS)}')
    if len(features) != len(labels) or features.ndim != 4 or labels.ndim != 3:
        raise ValueError(
            f'expected features [N, h, w, C] and labels [N, H, W], got {features.shape} and '
            f'{labels.shape}'
        )
    size, grid, channels = tuple(labels.shape[1:]), features.shape[1:3], features.shape[-1]
    if kind == 'subpixel' and (size[0] % grid[0] or size[1] % grid[1]):
        raise ValueError(f'labels {size} are no multiple of the feature grid {grid}')
    outputs = classes * (size[0] * size[1] // (grid[0] * grid[1]) if kind == 'subpixel' else 1)
    features, labels = np.asarray(features), np.asarray(labels)
    params = {
        'kernel': jnp.zeros((channels, outputs)),
        'bias': jnp.zeros(outputs),
        'mean': jnp.asarray(features.mean(axis=(0, 1, 2), dtype=np.float64), jnp.float32),
        'std': jnp.asarray(
            np.maximum(features.std(axis=(0, 1, 2), dtype=np.float64), 1e-6), jnp.float32
        ),
    }
    batch_size = min(batch_size, len(features))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    trained = {name: params[name] for name in ('kernel', 'bias')}
    state = optimizer.init(trained)

    @jax.jit
    def update(trained, state, features, labels):
        gradient = jax.grad(lambda t: _loss(params | t, features, labels, kind, classes, size))(
            trained
        )
        changes, state = optimizer.update(gradient, state)
        return optax.apply_updates(trained, changes), state

    rng, order = np.random.default_rng(seed), np.zeros(0, np.int64)
    for _ in range(steps):
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(features))])
        batch, order = order[:batch_size], order[batch_size:]
        trained, state = update(trained, state, features[batch], labels[batch])
    return Probe(params | trained, kind, classes, size)


def _logits(params, features, kind, classes, size):
    """[N, h, w, C] → [N, H, W, K]."""
    x = (features.astype(jnp.float32) - params['mean']) / params['std']
    x = x @ params['kernel'] + params['bias']
    count, h, w = x.shape[:3]
    if kind == 'bilinear':
        return jax.image.resize(x, (count, *size, classes), 'bilinear')
    x = x.reshape(count, h, w, size[0] // h, size[1] // w, classes)
    return x.swapaxes(2, 3).reshape(count, *size, classes)


@functools.partial(jax.jit, static_argnames=('kind', 'classes', 'size'))
def _loss(params, features, labels, kind, classes, size):
    logits = _logits(params, features, kind, classes, size)
    known = labels != IGNORE
    loss = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(known, labels, 0).astype(jnp.int32)
    )
    return (loss * known).sum() / jnp.maximum(known.sum(), 1)


class LinearProbe(Evaluator):
    """Labels that one linear map reads in the frozen encoder's features of true frames, fitted on
    single frames of the train split.
    """

    COLUMNS = tuple(
        Column(f'probe_{kind}', f'mIoU of linear probe, {how} %', True, 100, 1)
        for kind, how in (
            ('bilinear', 'logits a patch, upsampled'),
            ('subpixel', 'logits a pixel of the patch'),
        )
    )
    METHODS = ('encoder',)
    FIELDS = frozenset({'frames', 'labels'})
    OPTIONS = {'clips': 400, 'steps': 300, 'batch_size': 8}  # one frame a clip; frames of a step

    def __init__(self, name, settings):
        super().__init__(name, settings)
        if min(self.options[option] for option in ('clips', 'steps', 'batch_size')) < 1:
            raise UserError(
                f'config.evals.{name} = {settings}: expected at least 1 clip, 1 step and 1 frame a '
                'batch; take the entry away to go without'
            )

    def prepare(self, part, clips):
        forecaster = getattr(part, 'forecaster', part)
        encode = (
            getattr(forecaster, 'encode_features', None) or compatibility.encoder_of(part).encode
        )
        features, labels = [], []
        count, size = self.options['clips'], self.options['batch_size']
        batches = clips.open('train', count, 1, size)
        try:
            count = min(count, batches.clips)
            for batch, known in of_one_length(batches, count, size, 'probe: features'):
                encoded = encode(batch['frames'])
                features.append(np.asarray(encoded[:known, 0], np.float32))
                labels.append(batch['labels'][:known, 0])
        finally:
            batches.close()
        features, labels = np.concatenate(features), np.concatenate(labels)
        if (labels == IGNORE).all():
            self.left_out = f'{self.titles}: split train of {clips.source} has no labels'
            return
        self.parts = {
            kind: fit(
                features, labels, kind, seed=self.seed, steps=self.options['steps'], batch_size=size
            )
            for kind in KINDS
            if kind != 'subpixel'
            or not any(a % b for a, b in zip(labels.shape[1:], features.shape[1:3], strict=True))
        }

    def measure(self, parts, view, views, batch):
        labels = batch['labels']
        return {
            kind: by_step(
                Confusion.empty(probe.classes).update, labels, probe.labels(view.features)
            )
            for kind, probe in parts.items()
        }

    def add(self, total, found, known):
        if total is None:
            return found
        return {kind: total[kind].merge(state) for kind, state in found.items()}

    def report(self, states):
        (state,) = states.values()
        found = {}
        for kind, confusion in state.items():
            joined = jax.tree.map(lambda x: x[0], confusion)
            for step in range(1, len(confusion.low)):
                joined = joined.merge(jax.tree.map(lambda x, k=step: x[k], confusion))
            miou = joined.compute().miou
            found[f'probe_{kind}'] = None if np.isnan(miou) else miou
        return {'encoder': (found, [])}

    def about(self):
        return {name: self.options[name] for name in ('clips', 'steps', 'batch_size')} | {
            'split': 'train'
        }
