"""Key tables: which published tensor becomes which of our parameters.

A table is a list of rules (their key, our path, layout), where {} stands for a number. It is read
strictly: a tensor that no rule knows, a rule without tensor and a shape that does not fit are all
reported, together.
"""

import contextlib
import contextvars
import dataclasses
import fnmatch
import re
from collections.abc import Callable

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from re2pix_jax.errors import UserError

_NOTES = contextvars.ContextVar('notes', default=None)


@contextlib.contextmanager
def notes():
    """Gives a list that fills, while the context lasts, with what is left out of files on purpose:
    a line for each reason.
    """
    written: list[str] = []
    token = _NOTES.set(written)
    try:
        yield written
    finally:
        _NOTES.reset(token)


def left_out(names, pattern: str, reason: str) -> None:
    """Notes that the tensors of these names are not used; `pattern` is what they have in common."""
    if names and _NOTES.get() is not None:
        _NOTES.get().append(
            f'{len(names)} of {pattern} ({reason})' if len(names) > 1 else f'{names[0]} ({reason})'
        )


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
        ignored: (pattern of their keys, as of file names; why) of what is left out on purpose.
    """

    model: str
    rules: tuple[tuple[str, str, Callable], ...]
    ignored: tuple[tuple[str, str], ...] = ()

    def convert(
        self, tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], where
    ) -> dict:
        """Published tensors to the tree of float32 parameters that the network wants, one tensor in
        memory beside it.

        Raises:
            UserError: one, with every tensor that is left over, missing, given twice, or of another
                shape.
        """
        compiled = [
            (re.compile(re.escape(theirs).replace(r'\{\}', r'(\d+)')), ours, layout)
            for theirs, ours, layout in self.rules
        ]
        found, sources, problems = {}, {}, []
        unused: dict[str, list[str]] = {pattern: [] for pattern, _ in self.ignored}
        for key, array in tensors.items():
            matches = [
                (match, ours, layout)
                for pattern, ours, layout in compiled
                if (match := pattern.fullmatch(key))
            ]
            path = matches[0][1].format(*matches[0][0].groups()) if matches else None
            if path is None or path not in expected:
                pattern = next(
                    (pattern for pattern in unused if fnmatch.fnmatchcase(key, pattern)), None
                )
                if pattern is None:
                    problems.append(f'left over {key} {list(array.shape)}')
                else:
                    unused[pattern].append(key)
                continue
            if path in found:
                problems.append(f'{sources[path]} and {key} both give {path}')
                continue
            try:
                value = jnp.asarray(
                    np.ascontiguousarray(matches[0][2](np.asarray(array)), np.float32)
                )
            except (ValueError, IndexError):  # a layout of another number of axes
                value = array
            if value.shape != tuple(expected[path]):
                problems.append(
                    f'{key} has shape {list(array.shape)}, which does not give {path} '
                    f'{list(expected[path])}'
                )
            found[path], sources[path] = value, key
        problems += [
            f'missing {self.source_of(path)} for {path} {list(expected[path])}'
            for path in sorted(set(expected) - set(found))
        ]
        if problems:
            raise UserError(
                f'{where}: {len(problems)} tensors do not match {self.model}: {"; ".join(problems)}'
            )
        for pattern, reason in self.ignored:
            left_out(unused[pattern], pattern, reason)
        return flax.traverse_util.unflatten_dict(found, sep='/')

    def source_of(self, path: str) -> str:
        """The published key that our parameter comes from."""
        for theirs, ours, _ in self.rules:
            if match := re.fullmatch(re.escape(ours).replace(r'\{\}', r'(\d+)'), path):
                return theirs.format(*match.groups())
        return 'anything'


def norm(theirs: str, ours: str) -> list:
    return [(f'{theirs}.weight', f'{ours}/scale', keep), (f'{theirs}.bias', f'{ours}/bias', keep)]


def layer(theirs: str, ours: str, layout: Callable = dense) -> list:
    return [
        (f'{theirs}.weight', f'{ours}/kernel', layout),
        (f'{theirs}.bias', f'{ours}/bias', keep),
    ]


def batch_norm(theirs: str, ours: str) -> list:
    return [
        *norm(theirs, f'params/{ours}'),
        (f'{theirs}.running_mean', f'batch_stats/{ours}/mean', keep),
        (f'{theirs}.running_var', f'batch_stats/{ours}/var', keep),
    ]


def count(tensors: dict, pattern: str) -> int:
    """How many numbers the keys show in the place of {}: the depth of a stack of layers."""
    matcher = re.compile(re.escape(pattern).replace(r'\{\}', r'(\d+)') + '.*')
    return len({match.group(1) for key in tensors if (match := matcher.match(key))})


def need(tensors: dict, key: str, axes: int, where) -> np.ndarray:
    """The tensor that a size is read from."""
    if key not in tensors or tensors[key].ndim != axes or 0 in tensors[key].shape:
        raise UserError(
            f'{where}: has no tensor {key} with {axes} axes: is this the right kind of file?'
        )
    return tensors[key]


def rename(tensors: dict, name_of: Callable[[str], str], where) -> dict:
    """The tensors under other names; two that come to have the same one are refused."""
    renamed, sources = {}, {}
    for key, array in tensors.items():
        name = name_of(key)
        if name in renamed:
            raise UserError(
                f'{where}: {sources[name]} and {key} are both {name}: expected one of them; '
                'remove the other'
            )
        renamed[name], sources[name] = array, key
    return renamed
