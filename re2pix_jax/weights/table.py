"""Key tables: which published tensor becomes which of our parameters.

A table is a list of rules (their key, our path, layout), where {} stands for a number. It is read strictly: a tensor that no
rule knows, a rule without tensor and a shape that does not fit are all reported, together.
"""

import dataclasses
import re
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError
from re2pix_jax.weights.kinds import unflatten


def keep(array):
    return array


def dense(array):
    """torch Linear [out, in] -> kernel [in, out]."""
    return array.T


def conv(array):
    """torch Conv2d [out, in, h, w] -> kernel [h, w, in, out]."""
    return array.transpose(2, 3, 1, 0)


def conv3d(array):
    """torch Conv3d [out, in, t, h, w] -> kernel [t, h, w, in, out]."""
    return array.transpose(2, 3, 4, 1, 0)


def patches(array):
    """torch Conv2d [out, in, h, w] whose stride is its size -> Dense kernel [h * w * in, out]."""
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def transposed_conv(array):
    """torch ConvTranspose2d [in, out, h, w] whose stride is its size -> [in, h, w, out]."""
    return array.transpose(0, 2, 3, 1)


def flat(array):
    """Drops axes of length 1 in front: (1, 1, width) -> (width,)."""
    return array.reshape(array.shape[-1])


@dataclasses.dataclass(frozen=True)
class Table:
    """Rules of one model.

    Attributes:
        model: its name, for messages.
        rules: (their key, our path, layout function).
        ignored: patterns (regular expressions) of their keys that are left out on purpose.
    """

    model: str
    rules: tuple[tuple[str, str, Callable], ...]
    ignored: tuple[str, ...] = ()

    def convert(self, tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], where) -> dict:
        """Published tensors to the tree of float32 parameters that the network wants, one tensor in memory beside it.

        Raises:
            UserError: one, with every tensor that is left over, missing, or of another shape.
        """
        compiled = [(re.compile(re.escape(theirs).replace(r'\{\}', r'(\d+)')), ours, layout)
                    for theirs, ours, layout in self.rules]
        ignored = [re.compile(pattern) for pattern in self.ignored]
        found, problems = {}, []
        for key, array in tensors.items():
            matches = [(match, ours, layout) for pattern, ours, layout in compiled if (match := pattern.fullmatch(key))]
            path = matches[0][1].format(*matches[0][0].groups()) if matches else None
            if path is None or path not in expected:
                if not any(pattern.fullmatch(key) for pattern in ignored):
                    problems.append(f'left over {key} {list(array.shape)}')
                continue
            try:
                value = jnp.asarray(np.ascontiguousarray(matches[0][2](np.asarray(array)), np.float32))
            except ValueError:
                value = array
            if value.shape != tuple(expected[path]):
                problems.append(f'{key} has shape {list(array.shape)}, which does not give {path} {list(expected[path])}')
            found[path] = value
        problems += [f'missing {self.source_of(path)} for {path} {list(expected[path])}'
                     for path in sorted(set(expected) - set(found))]
        if problems:
            raise UserError(f'{where}: {len(problems)} tensors do not match {self.model}: {"; ".join(problems)}')
        return unflatten(found)

    def source_of(self, path: str) -> str:
        """The published key that our parameter comes from."""
        for theirs, ours, _ in self.rules:
            if match := re.fullmatch(re.escape(ours).replace(r'\{\}', r'(\d+)'), path):
                return theirs.format(*match.groups())
        return 'anything'


def norm(theirs: str, ours: str) -> list:
    return [(f'{theirs}.weight', f'{ours}/scale', keep), (f'{theirs}.bias', f'{ours}/bias', keep)]


def layer(theirs: str, ours: str, layout: Callable = dense) -> list:
    return [(f'{theirs}.weight', f'{ours}/kernel', layout), (f'{theirs}.bias', f'{ours}/bias', keep)]


def batch_norm(theirs: str, ours: str) -> list:
    return [*norm(theirs, f'params/{ours}'), (f'{theirs}.running_mean', f'batch_stats/{ours}/mean', keep),
            (f'{theirs}.running_var', f'batch_stats/{ours}/var', keep)]


def count(tensors: dict, pattern: str) -> int:
    """How many numbers the keys show in the place of {}: the depth of a stack of layers."""
    matcher = re.compile(re.escape(pattern).replace(r'\{\}', r'(\d+)') + '.*')
    return len({match.group(1) for key in tensors if (match := matcher.match(key))})


def need(tensors: dict, key: str, axes: int, where) -> np.ndarray:
    """The tensor that a size is read from."""
    if key not in tensors or tensors[key].ndim != axes:
        raise UserError(f'{where}: has no tensor {key} with {axes} axes: is this the right kind of file?')
    return tensors[key]
